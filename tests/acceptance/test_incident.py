"""An incident, for somebody who knows only the README: `status` says what is wrong, and what it says to type helps.

What else can be wrong is in test_status.py, test_explain.py and test_explain_trouble.py: a side that is away, does not
let us in or talks nonsense, a site without an RSE, a frozen site, no worker.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.broker.connection import blocking
from common.settings.model import Main
from tests.acceptance.command import run, started, until
from tests.integration.messaging import eventually
from tests.stack.proxy import Proxy
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, TwoSides, block, two_sides

Env = dict[str, str]
POISON = json.dumps({"kind": "sync.blocks", "node": NODE, "blocks": [block(1)], "colour": 1}).encode()


@pytest.fixture
def to_rucio(clean_rucio: RucioServer) -> Iterator[Proxy]:
    with Proxy(clean_rucio.port) as proxy:
        yield proxy


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


@pytest.fixture
def env(sides: TwoSides, amqp_url: str, to_rucio: Proxy) -> Env:
    url = f"http://127.0.0.1:{to_rucio.port}"
    ours = {"PHEDEX_URL": sides.main.phedex_url, "AMQP_URL": amqp_url, "PHEDEX_RUCIO_MAIN_BEAT": "0.3"}
    return ours | sides.rucio.client_environment(url=url)


@contextmanager
def worker(env: Env) -> Iterator[int]:
    """A worker's process id; the process is killed at the end."""
    with started("worker", "--threads", "1", env=env) as process:
        until(process, 'event="worker ready"')
        yield process.pid


def wrong(env: Env, *more: str) -> dict[str, dict[str, Any]]:
    """The problems that `status` tells of, by their codes."""
    done = run("status", "--json", *more, env=env)
    assert done.stdout, done.stderr
    return {problem["code"]: problem for problem in json.loads(done.stdout)["problems"]}


def typed(line: str, *more: str, env: Env) -> str:
    """What a command prints that was typed as it stands; it ends well."""
    words = shlex.split(line, comments=True)
    assert words[0] == "phedex-rucio"
    done = run(*words[1:], *more, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_status_says_to_type_helps(sides: TwoSides, env: Env, to_rucio: Proxy) -> None:
    for n in range(12):
        sides.put(block(n))
    assert run("setup", env=env).returncode == 0
    with worker(env) as pid:
        assert run("sync", "site", NODE, "--wait", env=env).returncode == 0
        a_guard_that_holds_and_a_poisoned_message(sides, env)
        cycle = a_worker_that_hangs(sides, env, to_rucio, pid)
    with worker(env):
        assert run("wait", cycle, env=env).returncode == 0
        assert len(sides.rules(block(20))) == 1


def a_guard_that_holds_and_a_poisoned_message(sides: TwoSides, env: Env) -> None:
    for n in (2, 3, 4):
        sides.snapshot.remove_replica(block(n), NODE)
    with blocking(Main(amqp_url=env["AMQP_URL"]), "test") as connection:
        connection.channel().basic_publish("", "sync.blocks", POISON)
    assert run("sync", "site", NODE, "--wait", env=env).returncode == 4
    found = eventually(lambda: _with(wrong(env), "held", "dead_letters"), "both are told")
    says = found["held"]["says"]
    assert says.startswith(f"{NODE}: removals are held since ")
    assert "3 blocks deleted everywhere in PhEDEx" in says
    explained = run("explain", block(2), NODE, env=env)
    assert explained.returncode == 4, explained.stdout
    assert "The guard holds it (nowhere)" in explained.stdout

    says = found["dead_letters"]["says"]
    assert says.startswith("1 dead letter of sync.blocks")
    assert "colour: unknown field" in says
    (following,) = found["dead_letters"]["next"]
    assert "colour: unknown field" in typed(following, env=env)

    (following,) = found["held"]["next"]
    assert "--approve" not in following  # the list is what is offered first
    assert following == f"phedex-rucio plan {NODE}"
    plan = json.loads(run("plan", NODE, "--json", env=env).stdout)
    typed(plan["ruling"]["command"].replace("'…'", "seen"), "--wait", env=env)
    assert run("dead", "drop", "--queue", "sync.blocks", "--all", "--yes", env=env).returncode == 0
    assert not {"held", "dead_letters"} & wrong(env).keys()


def a_worker_that_hangs(sides: TwoSides, env: Env, to_rucio: Proxy, pid: int) -> str:
    """Its command never comes back and it says nothing more; it is ended as `status` says; the open cycle's name."""
    sides.put(block(20))
    to_rucio.freeze()
    cycle = run("sync", "site", NODE, env=env).stdout.strip()
    eventually(lambda: _in_hand(env), "the command is in hand")
    os.kill(pid, signal.SIGSTOP)
    found = eventually(lambda: wrong(env, "--no-rucio").get("process_silent"), "it is told that the worker is silent")
    assert f"-{pid} has said nothing since" in found["says"]
    assert f"with sync.site {NODE} (" in found["says"]
    assert found["next"][0].startswith(f"kill -9 {pid} ")
    os.kill(pid, signal.SIGKILL)
    to_rucio.thaw()
    return cycle


def _with(found: dict[str, Any], *codes: str) -> dict[str, Any] | None:
    return found if found.keys() >= set(codes) else None


def _in_hand(env: Env) -> list[Any]:
    (one,) = json.loads(run("status", "--json", "--no-rucio", env=env).stdout)["processes"]
    in_hand: list[Any] = one["in_hand"]
    return in_hand
