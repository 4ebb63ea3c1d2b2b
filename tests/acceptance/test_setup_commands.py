"""The original tools' own examples, on recorded nodes and an empty Rucio that is filled by these commands alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasvc import recording
from datasvc.serve import running
from phedex_rucio.main import main
from tests.acceptance.command import run
from tests.stack.rucio_server import RucioServer
from tests.stack.world import client_environment

FTS = "https://fts3.cern.ch:8446"
Env = dict[str, str]


@pytest.fixture
def env(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[Env]:
    """An empty Rucio, and PhEDEx with the recorded nodes, blocks and catalogues."""
    snapshot = tmp_path / "snapshot.sqlite"
    recording.load(snapshot)
    with running(snapshot) as url:
        yield {"PHEDEX_URL": url, **clean_rucio.client_environment()}


def done(env: Env, *words: str, code: int = 0) -> str:
    """What the command printed, which ended as it should."""
    result = run(*words, "--local", env=env)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_from_an_empty_rucio_to_a_synced_site(env: Env, clean_rucio: RucioServer) -> None:
    root = clean_rucio.client()
    tier1 = ("rse", "update", "--pnn", "all", "--select", r"T1_(FR|IT)\S+", "--exclude", r"\S+RAL\S+", "--fts", FTS)
    said = done(env, *tier1, "--type", "real", "--type", "temp", "--type", "test")
    assert "left out, for their buffers stand for them: T1_FR_CCIN2P3_MSS, T1_IT_CNAF_MSS" in said
    assert root.get_rse("T1_IT_CNAF_Tape")["rse_type"] == "TAPE"
    assert root.get_rse("T1_FR_CCIN2P3_Disk_Temp")["deterministic"] is False
    tier2 = ("rse", "update", "--pnn", "all", "--select", r"T2_(DE|CH)_\S+", "--exclude", r"\S+CERN\S+", "--fts", FTS)
    done(env, *tier2, "--type", "real", "--type", "test")
    again = done(env, *tier2, "--type", "real", "--type", "test")
    assert again.splitlines()[-1] == "Nothing to change: T2_DE_RWTH, rse"
    assert {row["rse"] for row in root.list_rses("country=DE&cms_type=test")} >= {"T2_DE_DESY_Test", "T2_DE_RWTH_Test"}

    done(env, "account", "update", "--rse", "T2_DE_DESY")
    done(env, "account", "update", "--rsefilter", r"T2_\S+")
    assert root.get_local_account_limit("sync_t2_de_rwth", "T2_DE_RWTH") == {"T2_DE_RWTH": float("inf")}

    links = ("link", "update", "--phedex-links", "--overwrite", "--disable", "--src-select", "T2_DE_.*")
    dry = run(*links, "--dry-run", "--json", env=env)
    assert json.loads(dry.stdout)["finished"]
    assert clean_rucio.sql("SELECT count(*) FROM distances") == [(0,)]
    done(env, *links)
    (count,) = clean_rucio.sql("SELECT count(*) FROM distances WHERE distance > 0")
    assert count[0] > 0
    assert "Nothing to change: T2_DE_DESY, link" in done(env, *links)

    assert "T2_DE_DESY  changed" in done(env, "sync", "site", "T2_DE_DESY")
    assert clean_rucio.sql("SELECT count(*) > 0, min(locks_ok_cnt) > 0 FROM rules") == [(True, True)]
    assert run("verify", "T2_DE_DESY", env=env).returncode == 0


def test_setup_does_it_all_in_order_and_stops_at_what_fails(env: Env, clean_rucio: RucioServer) -> None:
    said = done(env, "setup", "T2_DE_DESY", "--fts", FTS, "--canary", "3")
    steps = [line.partition(":")[0] for line in said.splitlines() if re.fullmatch(r"\w+: \d+ commands?", line)]
    assert steps == ["RSEs", "accounts", "distances", "canary", "sync"]
    assert clean_rucio.sql("SELECT count(*) FROM rules") == [(29,)]
    assert "In sync: 29 blocks at T2_DE_DESY match." in done(env, "setup", "T2_DE_DESY", "--fts", FTS)
    before = clean_rucio.sql("SELECT count(*) FROM rses")
    assert "has no node T2_XX_Unknown" in done(env, "setup", "T2_CH_CERN", "T2_XX_Unknown", code=2)
    assert clean_rucio.sql("SELECT count(*) FROM rses") == before, "said before anything is written"
    owner = "sync_t2_de_desy"  # the service's identity may be it, and it may not set anything up
    refused = run("setup", "T2_CH_CERN", "--account", owner, "--local", env=env)
    assert refused.returncode == 1
    assert "RucioRefused: Rucio: add_rse T2_CH_CERN: AccessDenied: " in refused.stderr
    assert "RSEs: not done, so nothing after it is tried" in refused.stderr
    assert clean_rucio.sql("SELECT count(*) FROM rses") == before


RSE, ACCOUNT, LINK = ("rse", "update", "--pnn", "T2_DE_DESY"), ("account", "update"), ("link", "update")
ALL = ("rse", "update", "--pnn", "all")
BAD: list[tuple[tuple[str, ...], str]] = [
    ((*RSE, "--nosuch"), "No such option '--nosuch'. (phedex-rucio rse update --help explains)"),
    ((*RSE, "--type", "foo"), "'foo' is not one of 'real', 'temp', 'test'"),
    ((*RSE, "--tfc", "/nosuch"), "'/nosuch' does not exist"),
    (("rse", "update"), "Missing option '--pnn'"),
    (("rse", "update", "--pnn", "Desy"), "node: 'Desy' is no node such as T2_IT_Pisa"),
    ((*RSE, "--select", "x"), "give --pnn all"),
    ((*ALL, "--select", "("), "--select: '(' is no regular expression that RE2 takes"),
    ((*ALL, "--select", "nothing"), "leave no node"),
    ((*RSE, "--attr", "x"), "--attr x: not KEY=VALUE"),
    ((*RSE, "--attr", "phedex_sync=frozen"), "attribute phedex_sync: not to be given: `phedex-rucio site`"),
    ((*RSE, "--attr", "cms_type=test"), "attribute cms_type: not to be given: --type says it"),
    ((*RSE, "--domains", "{"), "--domains"),
    ((*RSE, "--domains", '{"wan":{"fly":1}}'), "domains: 'fly': 1: not a number from 0 up for one of delete, "),
    ((*RSE, "--domains", '{"moon":{"read":1}}'), "domains: Rucio knows no 'moon'"),
    ((*RSE, "--seinfo", "port=x"), "--seinfo"),
    ((*RSE, "--tfc-exclude", "("), "--tfc-exclude: '(' is no regular expression"),
    ((*RSE, "--rse", "a/b"), "options.rse: 'a/b' is no RSE such as T2_IT_Pisa_Test"),
    ((*RSE, "--pnn", "T2_CH_CERN", "--rse", "T2_X"), "--rse: names the RSE of one"),
    ((*ACCOUNT, "--rsefilter", "nothing"), "matches no RSE"),
    ((*ACCOUNT, "--rsefilter", "("), "--rsefilter: '(' is no regular expression"),
    ((*ACCOUNT, "--rse", "a/b"), "rse: 'a/b' is no RSE such as "),
    ((*LINK, "--exclude", "{}"), "--exclude"),
    ((*LINK, "--rse", "T2_DE_DESY", "--exclude", '[{"dst":{"pnn":"("}}]'), "exclude.pnn: '(' is no regular expression"),
    ((*LINK, "--distance", '{"x":1}'), "--distance"),
    ((*LINK, "--src-select", "nothing"), "matches no RSE"),
    ((*LINK, "--rse", "T2_DE_DESY", "--dst-select", "("), "--dst-select: '(' is no regular expression"),
    (("setup", "T1_US_FNAL_MSS"), "a tape has no RSE of its own: name T1_US_FNAL_Buffer"),
    (("upload", __file__, "store/x", "T2_DE_DESY_Temp", "T2_DE_DESY"), "name: 'store/x' is no name such as /store/"),
    (("upload", __file__, "/store/x", "T2_XX", "T2_DE_DESY"), "T2_XX: no such RSE"),
]


def test_what_is_wrong_is_one_line(
    clean_rucio: RucioServer, env: Env, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHEDEX_URL", env["PHEDEX_URL"])
    with client_environment(clean_rucio):
        for words, says in BAD:
            with pytest.raises(SystemExit) as ended:
                main([*words, "--local"])
            said = capsys.readouterr()
            assert (ended.value.code, said.out) == (2, ""), words
            assert says in said.err, words
            assert len(said.err.strip().splitlines()) == 1, words
    assert clean_rucio.sql("SELECT count(*) FROM rses") == [(0,)]
