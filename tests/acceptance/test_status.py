"""How is it, and what was done? One small deployment from its first hour to a worker that does not answer."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command import ended, run, started, until
from tests.acceptance.test_sync import BLOCKS, NODES, WITHOUT_RSE, snapshot
from tests.integration.messaging import eventually
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site

Env = dict[str, str]


@pytest.fixture
def env(tmp_path: Path, clean_rucio: RucioServer, amqp_url: str) -> Iterator[Env]:
    for node in NODES:
        make_site(clean_rucio, node)
    with snapshot(tmp_path / "phedex.sqlite") as url:
        yield {
            "PHEDEX_URL": url,
            "AMQP_URL": amqp_url,
            "PHEDEX_RUCIO_MAIN_BEAT": "0.3",
            **clean_rucio.client_environment(),
        }


@contextmanager
def worker(env: Env) -> Iterator[int]:
    """A worker's process id; the process is killed at the end."""
    with started("worker", "--threads", "1", env=env) as process:
        until(process, 'event="worker ready"')
        yield process.pid


def status(env: Env, code: int, *more: str) -> dict[str, Any]:
    """What `status --json` says, by the problems' codes; it ends with this code."""
    done = run("status", "--json", *more, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    data = json.loads(done.stdout)
    return data | {"codes": {problem["code"]: problem["says"] for problem in data["problems"]}}


def test_from_the_first_hour_to_a_worker_that_does_not_answer(env: Env) -> None:
    assert "queues_missing" in status(env, 3)["codes"]
    assert run("setup", env=env).returncode == 0
    (cycle,) = run("sync", "site", NODES[0], env=env).stdout.splitlines()
    page = run("status", env=env)
    assert page.returncode == 3, page.stderr
    assert "1. No worker runs, and there are messages: 1 in sync.site.now." in page.stdout
    assert "→ phedex-rucio worker\n" in page.stdout

    with worker(env) as pid:
        assert run("wait", cycle, env=env).returncode == 0
        well = status(env, 0)
        assert [system["error"] for system in well["systems"]] == ["", "", ""]
        assert [(one["state"], one["threads"]) for one in well["processes"]] == [("ready", 1)]
        (site,) = well["sites"]
        assert (site["node"], site["last"]["outcome"], site["last"]["counts"]["added"]) == (NODES[0], "changed", 6)
        assert site["in_sync_as_of"]

        told(env, cycle)
        with started("scheduler", env=env) as scheduler:
            until(scheduler, "this scheduler holds the lease")
            held = eventually(lambda: _active(status(env, 0, "--no-rucio")), "an active scheduler")
            assert held["broker"]["lease"] == "held"
            ended(scheduler, signal.SIGTERM)
        gone = status(env, 0, "--no-rucio")
        assert (gone["broker"]["lease"], [one["role"] for one in gone["processes"]]) == ("free", ["worker"])
        assert run("site", "freeze", NODES[1], "--reason", "disks", env=env).returncode == 0
        skipped = run("sync", "site", NODES[1], WITHOUT_RSE, "--wait", env=env)
        assert skipped.returncode == 0, skipped.stderr
        wrong = status(env, 3)["codes"]
        assert f"pnn={WITHOUT_RSE}: nothing is synced there" in wrong["no_rse"]
        assert f"{NODES[1]} is frozen since " in wrong["switched"]
        assert wrong["switched"].endswith(": disks")

        os.kill(pid, signal.SIGSTOP)
        try:
            said = eventually(lambda: status(env, 3, "--no-rucio")["codes"].get("process_silent"), "silent")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert f"Worker {socket.gethostname()}-{pid} has said nothing since" in said


def _active(data: dict[str, Any]) -> dict[str, Any] | None:
    states = {one["role"]: one["state"] for one in data["processes"]}
    return data if states.get("scheduler") == "active" else None


def told(env: Env, cycle: str) -> None:
    """History finds the same cycle by its name, its site, its dataset and a block."""
    for name in (cycle, BLOCKS[0].partition("#")[0]):
        found = run("history", name, env=env)
        assert found.returncode == 0, found.stderr
        assert f"cycle {cycle}, by " in found.stdout
        assert f"sync.site {NODES[0]}  changed, took " in found.stdout
        assert "6 added" in found.stdout or name.startswith("/")
    block = run("history", BLOCKS[0], env=env)
    assert block.returncode == 0, block.stderr
    assert [word in block.stdout for word in (NODES[0], "added, with its rule", cycle)] == [True] * 3
    (deed,) = json.loads(run("history", BLOCKS[0], "--json", env=env).stdout)["deeds"]
    assert (deed["node"], deed["cycle"]) == (NODES[0], cycle)
    nothing = run("history", BLOCKS[0] + "x", env=env)
    assert nothing.returncode == 1
    assert "no event is about this block (--since 30d)" in nothing.stderr


def test_without_a_broker_it_says_so_again_and_again() -> None:
    env = {"AMQP_URL": "amqp://guest:geheim@127.0.0.1:9/%2F", "PHEDEX_URL": "http://127.0.0.1:9/phedex/datasvc"}
    once = status(env, 5, "--no-rucio")
    assert once["codes"]["broker_away"].startswith("no connection to broker guest@127.0.0.1:9")
    assert once["codes"]["phedex_away"].startswith("PhEDEx does not answer here")
    with started("status", "--watch", "1", "--no-rucio", env=env) as process:
        assert process.stdout is not None
        titles = (line for line in process.stdout if line.startswith("phedex-rucio at guest@127.0.0.1:9 vhost /, "))
        assert next(titles) != next(titles)
        code, errors = ended(process, signal.SIGINT)
    assert (code, errors.strip()) == (130, "")
