"""Each function of the PhEDEx tool, on a real data service: what is printed, and what is said of bad input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.errors import PhedexRucioError, UnknownNode
from common.phedex.das import DasFailed
from datasvc.build import Snapshot
from datasvc.recording import RECORDED
from datasvc.serve import running
from phedex_rucio.main import cli
from phedex_rucio.output import exit_code_of

PISA, DESY = "T2_IT_Pisa", "T2_DE_DESY"
DATASET = "/Alpha/Run2018A-v1/RAW"
FULL, PART, OPEN = f"{DATASET}#1111", f"{DATASET}#2222", f"{DATASET}#3333"
LFN = "/store/data/Run2018A/x.root"
PFN = f"srm://dcache-se-cms.desy.de:8443/srm/managerv2?SFN=/pnfs/desy.de/cms/tier2{LFN}"
Ask = Callable[..., Any]


def files(number: int) -> list[tuple[str, int, str | None]]:
    return [(f"/store/data/f{number}{n}.root", 10 + n, "a952185" if n else None) for n in range(3)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("tool") / "snapshot.sqlite"
    with Snapshot(path) as snapshot:
        for node in (PISA, DESY, "T1_IT_CNAF_MSS", "T1_IT_CNAF_Buffer"):
            snapshot.add_node(node)
        snapshot.add_tfc(DESY, (RECORDED / "tfc/T2_DE_DESY.storage.xml").read_bytes())
        snapshot.add_link(DESY, PISA, 2)
        snapshot.add_link(PISA, DESY, 3, status="deactivated")
        snapshot.add_agent_log(DESY, "FileDownload -backend FTS3 -service https://fts3.cern.ch:8446 -x y")
        for number, block in enumerate((FULL, PART, OPEN)):
            snapshot.add_block(block, files(number), is_open=block == OPEN)
            snapshot.add_replica(block, PISA, group="DataOps")
        snapshot.set_replica_files(PART, PISA, [files(1)[0][0]])
        snapshot.add_replica(FULL, DESY)
        snapshot.add_deletion(FULL, DESY, requested=1_500_000_000, completed=1_500_000_060)
        snapshot.add_deletion(FULL, DESY, requested=1_500_000_120)
        snapshot.add_deletion(PART, PISA, requested=1_400_000_000, completed=1_300_000_000)
    with running(path) as found:
        yield found


@pytest.fixture
def ask(url: str) -> Ask:
    """What a function prints, as JSON: its output is piped."""

    def asked(*words: str) -> Any:
        result = invoke(url, *words)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return json.loads(result.stdout)

    return asked


def invoke(url: str, *words: str) -> Result:
    return CliRunner(env={"PHEDEX_URL": url}).invoke(cli, ["phedex", *words])


def test_nodes_links_and_what_agents_said(ask: Ask) -> None:
    assert [row["name"] for row in ask("pnns", "--select", "T1_.*", "--exclude", ".*_MSS")] == ["T1_IT_CNAF_Buffer"]
    assert [row["name"] for row in ask("pnns", "--select", "T2")] == [], "the whole name must match"
    assert ask("links") == [{"source": DESY, "sink": PISA, "distance": 2, "status": "ok"}]
    assert len(ask("links", "--src", PISA, "--dest", DESY, "--dump")) == 1
    assert ask("fts", DESY) == [{"node": DESY, "fts": "https://fts3.cern.ch:8446"}]
    assert ask("fts", PISA) == []
    assert ask("datasvc", "nodes", "-o", f"node={DESY}")["node"][0]["name"] == DESY


def test_catalogues_and_places(ask: Ask) -> None:
    assert {row["proto"] for row in ask("tfc", DESY, "--concise")} == {"srmv2", "direct"}
    assert len(ask("tfc", DESY, "--dump")) > len(ask("tfc", DESY))
    by_file = ask("tfc", str(RECORDED / "tfc/T2_DE_DESY.storage.xml"))
    assert sorted(by_file, key=str) == sorted(ask("tfc", DESY), key=str)  # PhEDEx groups rules by protocol
    assert [row["pfn"] for row in ask("lfn2pfn", DESY, "--lfn", LFN)] == [PFN]
    by_file = ask("lfn2pfn", DESY, "--lfn", LFN, "--details", "--tfc", str(RECORDED / "tfc/T2_DE_DESY.storage.xml"))
    assert by_file[0]["pfn"] == PFN
    assert by_file[0]["storage"]["hostname"] == "dcache-se-cms.desy.de"
    (storage,) = ask("seinfo", DESY)
    assert (storage["scheme"], storage["port"], storage["prefix"]) == ("srm", 8443, "/pnfs/desy.de/cms/tier2")
    assert {row["sename"] for row in ask("senames", DESY, "--protocol", "srmv2")} == {"dcache-se-cms.desy.de"}


def test_items_and_their_files(ask: Ask) -> None:
    (about,) = ask("check-data-item", FULL)
    assert about == {"isblock": True, "pds": DATASET, "fbhash": "1111", "pfb": FULL}
    assert ask("list-data-items", DATASET) == [{"name": name} for name in (FULL, PART, OPEN)]
    (dataset,) = ask("list-data-items", "/Alpha/*/RAW", "--outtype", "dataset", "--metadata", "--locality")
    assert dataset == {
        "name": DATASET,
        "blocks": 3,
        "files": 9,
        "bytes": 99,
        "is_open": "y",
        "complete": [],
        "incomplete": [DESY, PISA],
    }
    assert [row["name"] for row in ask("list-data-items", DATASET, "--node", DESY)] == [FULL]
    listed = ask("fileblock-files", FULL)
    assert [(row["size"], row["checksum"]) for row in listed] == [(10, None), (11, "0a952185"), (12, "0a952185")]
    assert len(ask("fileblocks-files", DATASET, "--node", PISA)[PART]) == 1
    assert [row["block"] for row in ask("subscriptions", PISA)] == [FULL]
    assert ask("subscriptions", PISA, "--item", PART) == []


def test_deletions(ask: Ask) -> None:
    assert ask("deletions", FULL) == [
        {"block": FULL, "node": DESY, "requested": "2017-07-14 02:40:00", "completed": "2017-07-14 02:41:00"},
        {"block": FULL, "node": DESY, "requested": "2017-07-14 02:42:00", "completed": None},
    ]
    assert [row["block"] for row in ask("deletions", DATASET)] == [PART, FULL, FULL]
    (asked_again,) = ask("deletions", DATASET, "--node", PISA)
    assert asked_again["completed"] is None
    assert ask("deletions", OPEN) == []


def test_das_is_answered_by_the_data_service(ask: Ask, url: str) -> None:
    (block,) = ask("das", f"block block={FULL} site={PISA} system=phedex")
    assert block["block"][0]["nfiles"] == 3
    assert block["block"][0]["replica"][0]["node"] == PISA
    assert len(ask("das", f"file dataset={DATASET} system=phedex")) == 9
    assert ask("das", f"dataset site={DESY} system=phedex")[0]["dataset"] == [{"name": DATASET}]
    assert [row["site"][0]["name"] for row in ask("das", f"site block={FULL} system=phedex")] == [DESY, PISA]
    said = invoke(url, "das", f"block block={FULL}").stderr
    assert "dasgoclient is not installed: answered by the data service's blockreplicas" in said


def test_das_by_an_installed_client_whose_failure_is_not_nothing(url: str, tmp_path: Path) -> None:
    program = tmp_path / "dasgoclient"
    program.write_text('#!/bin/sh\ncase "$1" in *good*) echo "[{}]";; *) echo "[]"; echo "ERROR: das exit 3";; esac\n')
    os.chmod(program, 0o755)
    good = invoke(url, "das", "good", "--dasgoclient", str(program))
    assert json.loads(good.stdout) == [{}]
    bad = invoke(url, "das", "bad", "--dasgoclient", str(program))
    assert isinstance(bad.exception, DasFailed)
    assert "ERROR: das exit 3" in str(bad.exception)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("tfc", PISA), "no storage.xml"),
        (("tfc", "/nowhere/storage.xml"), "cannot be read"),
        (("lfn2pfn", DESY, "--lfn", "/foo", "--protocol", "x"), "no rule of protocol x places /foo"),
        (("seinfo", DESY, "--protocol", "nosuch"), "has no place there"),
        (("fileblock-files", DATASET), "a dataset, not a block"),
        (("check-data-item", "/a/b"), "neither"),
        (("pnns", "--select", "("), "--select: '(' is no regular expression"),
        (("das", "run run=1"), "only these are answered"),
        (("datasvc", "nodes", "-o", "x"), "not KEY=VALUE"),
    ],
)
def test_bad_input_is_one_line_and_a_usage_error(url: str, words: tuple[str, ...], says: str) -> None:
    error = invoke(url, *words).exception
    assert isinstance(error, PhedexRucioError), error
    assert says in str(error)
    assert "\n" not in str(error)
    assert exit_code_of(error) == 2


def test_an_unknown_node_is_named(url: str) -> None:
    by_item = ("list-data-items", DATASET, "--node")
    for words in (
        ("tfc",),
        by_item,
        ("deletions", DATASET, "--node"),
        ("fts",),
        ("senames",),
        ("links", "--src"),
        ("links", "--dest"),
    ):
        error = invoke(url, *words, "T2_XX_None").exception
        assert isinstance(error, UnknownNode)
        assert exit_code_of(error) == 2
        assert "has no node T2_XX_None" in str(error)


def test_what_phedex_refuses_is_said_in_its_own_words(url: str) -> None:
    error = invoke(url, "datasvc", "nosuchcall").exception
    assert isinstance(error, PhedexRucioError)
    assert "nosuchcall" in str(error)
