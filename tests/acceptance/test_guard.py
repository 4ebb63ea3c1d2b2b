"""A mass removal from the command line: held with exit code 4, shown by `plan`, allowed by its checksum alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasvc.build import Snapshot
from tests.acceptance.command import run
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, TwoSides, block, two_sides

MARKS = "SELECT name FROM rules WHERE meta LIKE '%phedex_gone_since%' ORDER BY name"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


def lost(snapshot: Snapshot, *numbers: int) -> None:
    for n in numbers:
        snapshot.remove_replica(block(n), NODE)


def test_held_shown_and_approved(sides: TwoSides) -> None:
    env = {"PHEDEX_URL": sides.main.phedex_url, **sides.rucio.client_environment()}
    for n in range(12):
        sides.put(block(n))
    assert run("sync", "site", NODE, "--local", env=env).returncode == 0
    lost(sides.snapshot, 2, 3, 4)

    held = run("sync", "site", NODE, "--local", env=env)
    assert held.returncode == 4, held.stderr
    assert f"{NODE}: Held (share): would mark 3 of 12 rules (25 %), limit 10 %." in held.stdout
    typed = re.search(r"To allow exactly this: phedex-rucio (.+)", held.stdout)
    assert typed is not None
    arguments = shlex.split(typed[1])
    checksum = arguments[arguments.index("--approve") + 1]

    plan = run("plan", NODE, env=env)
    assert plan.returncode == 3
    assert f"  - {block(2)}  gone, held: share" in plan.stdout
    assert checksum in plan.stdout
    data = json.loads(run("plan", NODE, "--json", env=env).stdout)
    assert data["ruling"]["checksum"] == checksum
    assert data["ruling"]["held"] == dict.fromkeys(map(block, (2, 3, 4)), "share")

    as_json = run("sync", "site", NODE, "--local", "--json", env=env)
    assert as_json.returncode == 4
    (guard,) = json.loads(as_json.stdout)["sites"][0]["guard"]
    assert (guard["limit"], guard["number"], guard["share"], guard["most"]) == ("share", 3, 0.25, 0.1)
    assert guard["override"].startswith(f"phedex-rucio sync site {NODE} --approve {checksum} ")

    for wrong in (["--approve", checksum], ["--approve", checksum, "--reason", "x", "--limit", "5"]):
        refused = run("sync", "site", NODE, "--local", *wrong, env=env)
        assert refused.returncode == 2, refused.stdout
    assert run("sync", "site", NODE, "T2_CH_CERN", "--approve", checksum, "--reason", "x", env=env).returncode == 2
    other = run("sync", "site", NODE, "--local", "--approve", "0" * 16, "--reason", "x", env=env)
    assert other.returncode == 4
    assert "0000000000000000 was approved" in other.stdout
    assert sides.rucio.sql(MARKS) == []

    done = run(*arguments, "--local", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sides.rucio.sql(MARKS) == [(block(n),) for n in (2, 3, 4)]

    after = run("plan", NODE, env=env)
    assert after.returncode == 0
    assert f"In sync: 9 blocks at {NODE} match." in after.stdout
    assert "3 blocks marked for removal earlier." in after.stdout
    assert re.search(rf"  x {block(2)}  swept from \d{{4}}-\d\d-\d\d \d\d:\d\d UTC on", after.stdout)
