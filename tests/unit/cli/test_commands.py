"""What a person's words become: messages with checked fields, kinds with modules, and quick help."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import re2
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import consumers
from common.errors import InvalidMessage, UsageError
from common.messages.codec import MAX_BYTES, build, encode
from common.messages.commands import KINDS, SyncBlocks, SyncDataset, SyncSite
from common.settings.model import Main, Settings
from common.sync.selection import selection
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import expand, main, roots, send, wait, wiring

BLOCK = "/Primary/Processed-v1/AOD#0a1b-2c"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["node=T2_US_MIT", "limit=5", "dry=true"], {"node": "T2_US_MIT", "limit": 5, "dry": True}),
        (["meta.lane=now", "meta.by=me"], {"meta": {"lane": "now", "by": "me"}}),
        (['blocks=["a","b"]'], {"blocks": ["a", "b"]}),
        (["select=^/A=B$"], {"select": "^/A=B$"}),
        (["reason="], {"reason": ""}),
    ],
)
def test_fields(fields: list[str], expected: dict[str, object]) -> None:
    assert send.parse_fields(fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["node"], "--field node: not NAME=VALUE"),
        (["=x"], "--field =x: not NAME=VALUE"),
        (["node=a", "node=b"], "--field node: given twice"),
        (["meta=a", "meta.by=b"], "--field meta.by: meta has a value already"),
        (["meta.by=b", "meta={}"], "--field meta: given twice"),
    ],
)
def test_fields_that_are_none(fields: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        send.parse_fields(fields)
    assert str(caught.value).startswith(message)


def test_a_hand_gives_no_permission_to_remove() -> None:
    command = SyncBlocks(node="T2_US_MIT", blocks=[BLOCK], removable_until=datetime.now(UTC))
    assert send.harmless(command) == SyncBlocks(node="T2_US_MIT", blocks=[BLOCK])


def test_a_root_names_its_cycle_its_lane_and_its_sender() -> None:
    meta = roots.rooted(SyncSite(node="T2_US_MIT")).meta
    assert meta.id == meta.cycle != ""
    assert meta.lane == "now"
    assert re.fullmatch(r".+@.+", meta.by)
    begin = wait.begin_of(meta.cycle)
    assert begin is not None
    assert begin < datetime.now(UTC)
    assert wait.begin_of("T2_US_MIT@2026") is None


def test_a_root_is_checked_like_a_message_from_the_wire() -> None:
    with pytest.raises(InvalidMessage, match="node: "):
        roots.rooted(SyncSite(node="Pisa"))


def test_blocks_become_one_site_command_a_dataset_that_matches_exactly_them() -> None:
    blocks = ["/A/B.C-v1/AOD#1", "/A/B.C-v1/AOD#2", "/D/E/RAW#1"]
    first, second = roots.of_blocks("T2_US_MIT", blocks, SyncSite(node="T2_US_MIT", dry=True))
    assert (first.dataset, second.dataset, first.dry) == ("/A/B.C-v1/AOD", "/D/E/RAW", True)
    chosen = selection(first.dataset, [first.select], [])
    assert [name for name in [*blocks, "/A/B.C-v1/AOD#11", "/A/BxC-v1/AOD#1"] if chosen(name)] == blocks[:2]


@given(st.sets(st.from_regex(r"[A-Za-z0-9.\-_]{1,100}", fullmatch=True), min_size=1, max_size=800))
def test_many_blocks_fit_into_messages_and_none_is_lost(suffixes: set[str]) -> None:
    blocks = [f"/Primary/{'P' * 190}-v1/AOD#{suffix}" for suffix in suffixes]
    commands = roots.of_blocks("T2_US_MIT", blocks, SyncSite(node="T2_US_MIT"))
    assert all(len(encode(command)) < MAX_BYTES for command in commands)
    expressions = [re2.compile(command.select) for command in commands]
    assert all(sum(e.search(block) is not None for e in expressions) == 1 for block in blocks)


def test_what_is_no_block_is_said() -> None:
    with pytest.raises(UsageError, match="/A/B/AOD: no block name"):
        roots.of_blocks("T2_US_MIT", ["/A/B/AOD"], SyncSite(node="T2_US_MIT"))


def test_a_preview_counts_what_a_pattern_expands_to() -> None:
    found = {"T2_US_MIT": ["/A/B/AOD#1", "/A/B/AOD#2"], "T1_US_FNAL": ["/A/B/AOD#1", "/A/C/AOD#1"]}
    assert expand.preview(found, ["T1_US_FNAL"]) == "2 datasets, 3 blocks, 2 nodes; 1 skipped: no RSE (T1_US_FNAL)"
    assert expand.preview(found, []) == "2 datasets, 3 blocks, 2 nodes"
    assert expand.preview({}, None) == "0 datasets, 0 blocks, 0 nodes; Rucio was not asked for their RSEs"


def test_an_approval_of_a_dataset_goes_to_nodes_where_phedex_has_it_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Snapshot(tmp_path / "snapshot.db") as snapshot:
        for node in ("T2_US_MIT", "T2_US_UCSD", "T1_US_FNAL_Buffer"):
            snapshot.add_node(node)
    approved = SyncDataset(v=2, dataset="/A/B/AOD", approve="20261128T004510123-1a2b3c", reason="gone")
    with running(tmp_path / "snapshot.db") as url:
        settings = Settings(main=Main(phedex_url=url))
        (narrow,) = expand.narrowed([approved], "T2_.*", settings)
        assert narrow.nodes == ["T2_US_MIT", "T2_US_UCSD"]
        assert "an approval also goes" not in capsys.readouterr().err
        assert expand.narrowed([approved], "", settings) == [approved]
        assert "an approval also goes where Rucio alone has blocks of it" in capsys.readouterr().err
        with pytest.raises(UsageError, match="--node matches no node"):
            expand.narrowed([approved], "T3_.*", settings)


def test_kinds_and_modules_are_one_to_one() -> None:
    folder = Path(consumers.__file__).parent
    modules = {f"consumers.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    assert modules == {wiring.module_of(kind) for kind in KINDS}
    assert wiring.handlers().keys() == KINDS.keys()


def test_help_starts_without_the_heavy_clients() -> None:
    script = (
        "import sys; from phedex_rucio.main import cli; cli.main(['--help'], standalone_mode=False);"
        "print(sorted({'rucio', 'pika', 'requests', 'rich', 'yaml', 're2'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.rstrip().endswith("[]")
    assert all(name in shown for name in ("sync", "plan", "wait", "send", "worker", "config"))


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_of_the_table_explains_itself(name: str) -> None:
    result = CliRunner().invoke(main.cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_dry_run_prints_exactly_what_would_be_sent() -> None:
    arguments = ["send", "sync.blocks", "--field", "node=T2_US_MIT", "--field", f'blocks=["{BLOCK}"]', "--dry-run"]
    result = CliRunner().invoke(main.cli, [*arguments, "--field", "meta.lane=bulk"])
    assert result.exit_code == 0, result.output
    assert f'"blocks": [\n    "{BLOCK}"' in result.output
    assert '"lane": "now"' not in result.output
    assert build("sync.blocks", {"node": "T2_US_MIT", "blocks": [BLOCK]})
