"""A sync from the command line, with a real PhEDEx snapshot service, broker, worker and Rucio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from datasvc.build import Snapshot
from datasvc.serve import running
from tests import checker
from tests.acceptance.command import run, worker
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site

NODES = ("T2_IT_Pisa", "T2_US_MIT")
WITHOUT_RSE = "T1_US_FNAL"
DATASETS = ("/Primary/Run2018A-v1/AOD", "/Primary/Run2018B-v1/RAW")
BLOCKS = [f"{dataset}#{number}" for dataset in DATASETS for number in range(3)]


@dataclass(frozen=True)
class World:
    """A PhEDEx with two sites that Rucio has and one that it has not, and the environment that leads to both."""

    phedex: str
    rucio: RucioServer
    env: dict[str, str]

    def differences(self) -> list[str]:
        """What the judge finds at both sites."""
        sites = {node: checker.expected(self.phedex, node, node, f"sync_{node.lower()}") for node in NODES}
        return checker.differences(checker.read_tables(self.rucio.sql), sites)


@contextmanager
def snapshot(path: Path) -> Iterator[str]:
    with Snapshot(path) as made:
        for node in (*NODES, WITHOUT_RSE):
            made.add_node(node)
        for number, block in enumerate(BLOCKS):
            lfn = f"/store/data/{number}"
            made.add_block(block, [(f"{lfn}/{i}.root", 1000 + i, f"adler32:0000000{i},cksum:1") for i in range(3)])
            for node in (*NODES, WITHOUT_RSE):
                made.add_replica(block, node)
    with running(path) as url:
        yield url


@pytest.fixture
def world(tmp_path: Path, clean_rucio: RucioServer) -> Iterator[World]:
    for node in NODES:
        make_site(clean_rucio, node)
    with snapshot(tmp_path / "phedex.sqlite") as url:
        yield World(url, clean_rucio, {"PHEDEX_URL": url, **clean_rucio.client_environment()})


def test_local_sync_from_plan_to_in_sync(world: World) -> None:
    plan = run("plan", NODES[0], env=world.env)
    assert plan.returncode == 3, plan.stderr
    assert "6 blocks to add (18 files" in plan.stdout

    for dry in (run("sync", "site", NODES[0], "--local", "--dry-run", env=world.env), plan):
        assert dry.returncode in (0, 3), dry.stderr
        assert world.rucio.sql("SELECT count(*) FROM rules") == [(0,)]

    done = run("sync", "site", *NODES, "--local", "--json", env=world.env)
    assert done.returncode == 0, done.stderr + done.stdout
    sites = {site["about"]: site["counts"] for site in json.loads(done.stdout)["sites"]}
    assert {node: sites[node]["added"] for node in NODES} == dict.fromkeys(NODES, 6)
    assert world.differences() == []

    again = run("plan", NODES[0], env=world.env)
    assert again.returncode == 0
    assert again.stdout == f"In sync: 6 blocks at {NODES[0]} match.\n"
    assert run("sync", "site", NODES[1], "--local", env=world.env).stdout == f"In sync: 6 blocks at {NODES[1]} match.\n"


def test_local_sync_of_single_blocks_touches_only_them(world: World) -> None:
    done = run("sync", "block", BLOCKS[0], BLOCKS[4], "--node", NODES[0], "--local", env=world.env)
    assert done.returncode == 0, done.stderr + done.stdout
    assert sorted(world.rucio.sql("SELECT name FROM rules")) == [(BLOCKS[0],), (BLOCKS[4],)]


def test_a_site_without_rse_is_skipped(world: World) -> None:
    skipped = run("sync", "site", WITHOUT_RSE, "--local", env=world.env)
    assert skipped.returncode == 0, skipped.stderr
    assert "skipped" in skipped.stdout
    assert f"pnn={WITHOUT_RSE}" in skipped.stdout
    assert run("plan", WITHOUT_RSE, env=world.env).stdout.startswith("Skipped: ")


def test_local_tells_which_system_is_away_and_who_is_not_let_in(world: World) -> None:
    nowhere = {**world.env, "PHEDEX_URL": "http://127.0.0.1:9/phedex", "PHEDEX_RUCIO_MAIN_PHEDEX_TRIES": "1"}
    away = run("sync", "site", NODES[0], "--local", env=nowhere)
    assert away.returncode == 5, away.stdout
    assert len(away.stderr.splitlines()) == 1
    stranger = run("sync", "site", NODES[0], "--local", "--account", "nobody", env=world.env)
    assert stranger.returncode == 6, stranger.stderr
    assert len(stranger.stderr.splitlines()) == 1
    # Writes the client's one configuration again: from here on every command is led astray.
    without_rucio = {**world.env, **world.rucio.client_environment(url="http://127.0.0.1:9")}
    for arguments in (("plan", NODES[0]), ("sync", "site", NODES[0], "--local")):
        away = run(*arguments, env=without_rucio)
        assert away.returncode == 5, away.stderr
        assert len(away.stderr.splitlines()) == 1


def test_a_worker_does_what_was_sent_and_wait_tells_its_end(world: World, amqp_url: str) -> None:
    env = {**world.env, "AMQP_URL": amqp_url}
    with worker(env, "--threads", "2"):
        done = run("sync", "dataset", "/Primary/*/*", "--wait", env=env)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "2 datasets, 6 blocks, 3 nodes; 1 skipped: no RSE (T1_US_FNAL)" in done.stderr
        rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:]}
        assert [rows[node] for node in (*NODES, WITHOUT_RSE)] == ["changed", "changed", "skipped"]
        assert world.differences() == []
        again = run("sync", "site", *NODES, "--wait", env=env)
        assert again.returncode == 0, again.stderr
        assert again.stdout.splitlines() == [f"In sync: 6 blocks at {node} match." for node in NODES]
        checked = run("check", env=env)
        assert checked.returncode == 0, checked.stdout
