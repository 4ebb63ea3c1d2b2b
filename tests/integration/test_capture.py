"""Is a captured snapshot what the service has? By the same calls, also after a capture that was cut short."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from common.errors import UsageError
from common.phedex.client import Phedex
from common.settings.model import Main
from datasvc import recording
from datasvc.build import Snapshot
from datasvc.capture import capture
from datasvc.generate import Size, generate
from datasvc.serve import running
from phedex_rucio.main import cli

# Each call with its options, and the key of its rows. Ids are the snapshot's own.
CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("nodes", {}, "node"),
    ("groups", {}, "group"),
    ("tfc", {"node": "T2_DE_DESY"}, "storage-mapping"),
    ("links", {"from": "T2_DE_DESY"}, "link"),
    ("agentlogs", {"node": "T2_DE_DESY", "update_since": "0"}, "agent"),
    ("senames", {"node": "T2_DE_DESY"}, "senames"),
    ("lfn2pfn", {"node": "T2_DE_DESY", "protocol": "srmv2", "lfn": "/store/data/x"}, "mapping"),
    ("blockreplicas", {"node": "T2_DE_DESY", "dataset": "/*/*/*"}, "block"),
    ("blockreplicas", {"node": "T1_US_FNAL_Buffer", "dataset": "/*/*/*"}, "block"),
    ("filereplicas", {"dataset": "/*/*/*", "node": "T2_CH_CERN"}, "block"),
    ("deletions", {}, "dataset"),
    ("subscriptions", {"node": "T2_DE_DESY", "create_since": "0"}, "dataset"),
    ("data", {"dataset": "/*/*/RAW", "level": "file", "create_since": "0"}, "dbs"),
]


def client(url: str) -> Phedex:
    return Phedex(Main(phedex_url=url))


def without_ids(value: Any) -> Any:
    """The rows without ids and times of asking, in an order of their own."""
    if isinstance(value, dict):
        left = {key: without_ids(each) for key, each in value.items() if not key.endswith(("id", "_age"))}
        return {key: each for key, each in left.items() if not key.endswith("agent_update") and key != "time"}
    return sorted((without_ids(each) for each in value), key=str) if isinstance(value, list) else value


def said(phedex: Phedex) -> list[Any]:
    return [without_ids(phedex.raw(call, **options)[key]) for call, options, key in CALLS]


def _with_requests(path: Path) -> None:
    """Deletions that are done, not done and of retired nodes, and a subscription of a whole dataset."""
    with Snapshot(path) as snapshot:
        block = "SELECT name FROM block WHERE name GLOB '/*/*/*#*' ORDER BY id LIMIT 3"
        names = [row[0] for row in snapshot.connection.execute(block)]
        snapshot.add_deletion(names[0], "T2_DE_DESY", requested=1_400_000_000.25, completed=1_400_000_001)
        snapshot.add_deletion(names[0], "T2_DE_DESY", requested=1_400_000_002)
        snapshot.add_deletion(names[1], "T1_US_FNAL_MSS", requested=1_400_000_003, completed=1_400_000_001.5)
        snapshot.add_deletion(names[1], "XT1_TW_ASGC_MSS")
        snapshot.subscribe_dataset(names[2].partition("#")[0], "T2_DE_DESY")


def test_what_is_captured_is_what_the_service_says_also_in_two_goes(tmp_path: Path) -> None:
    original, copy = tmp_path / "original.sqlite", tmp_path / "copy.sqlite"
    recording.load(original)
    _with_requests(original)
    with running(original) as url, client(url) as live:
        before = said(live)
        assert all(before), [call for call, rows in zip(CALLS, before, strict=True) if not rows]
        cut_short = capture(live, "prod", url, copy)
        assert len(list(islice(cut_short, 400))) == 400
        cut_short.close()
        assert not copy.exists()
        asked = live.requests
        steps = list(capture(live, "prod", url, copy))
        assert live.requests - asked < len(steps) - 390, "what was done before is not asked for again"
        assert {step.what for step in steps} >= {"nodes", "catalogues", "datasets", "replicas", "deletions", "files"}
    with running(copy) as url, client(url) as kept:
        assert said(kept) == before


def test_incomplete_replicas_lack_the_same_files(tmp_path: Path) -> None:
    original, copy = tmp_path / "original.sqlite", tmp_path / "copy.sqlite"
    generate(original, Size(3, 20, 5), seed=7)
    with Snapshot(original) as snapshot:
        row = snapshot.connection.execute("SELECT b.name FROM replica r JOIN block b ON b.id = r.block_id LIMIT 1")
        (block,) = row.fetchone()
        node = snapshot.nodes_of(block)[0]
        there = snapshot.files_at(block, node)[1:]
        snapshot.set_replica_files(block, node, there)
    with running(original) as url, client(url) as live:
        list(capture(live, "prod", url, copy))
    with Snapshot(copy) as captured:
        assert captured.files_at(block, node) == there


def test_two_services_are_not_mixed_and_nothing_is_overwritten(tmp_path: Path) -> None:
    original, copy = tmp_path / "original.sqlite", tmp_path / "copy.sqlite"
    generate(original, Size(2, 2, 2), seed=1)
    with running(original) as url, client(url) as live:
        begun = capture(live, "prod", url, copy)
        next(begun)
        begun.close()
        with pytest.raises(UsageError, match="was begun from"):
            next(capture(live, "prod", "http://elsewhere/phedex/datasvc", copy))
        result = CliRunner().invoke(cli, ["datasvc", "capture", url, "--output", str(copy)])
        assert result.exit_code == 0, result.output
        assert f"{copy}: captured from {url}" in result.output
        with pytest.raises(UsageError, match="exists"):
            next(capture(live, "prod", url, copy))
