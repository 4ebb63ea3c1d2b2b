"""A mass removal from the command line: held with exit code 4, listed by `plan`, let pass by its approval alone."""

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
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, two_sides

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
        sides.snapshot.add_replica(sides.put(block(n)), OTHER)
    assert run("sync", "site", NODE, OTHER, "--local", env=env).returncode == 0
    lost(sides.snapshot, 2, 3, 4)

    held = run("sync", "site", NODE, "--local", env=env)
    assert held.returncode == 4, held.stderr
    assert f"{NODE}: Held (share): would mark 3 of 12 rules (25 %), limit 10 %." in held.stdout
    plan = run("plan", NODE, env=env)
    assert plan.returncode == 3
    assert re.search(
        rf"  - {block(2)}  moved, held: share, on record since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", plan.stdout
    )
    assert "\nmoved: complete at another node, and in Rucio there.\n" in plan.stdout
    assert "not on record" not in plan.stdout
    typed = re.search(
        r"To approve what is held and on record now, once you have looked: phedex-rucio (.+)", plan.stdout
    )
    assert typed is not None
    arguments = shlex.split(typed[1])
    code = arguments[arguments.index("--approve") + 1]
    data = json.loads(run("plan", NODE, "--json", env=env).stdout)
    assert data["ruling"]["held"] == dict.fromkeys(map(block, (2, 3, 4)), "share")
    assert {name: one["why"] for name, one in data["on_record"].items()} == dict.fromkeys(
        map(block, (2, 3, 4)), "moved"
    )

    as_json = run("sync", "site", NODE, "--local", "--json", env=env)
    assert as_json.returncode == 4
    (guard,) = json.loads(as_json.stdout)["sites"][0]["guard"]
    assert (guard["limit"], guard["number"], guard["share"], guard["most"]) == ("share", 3, 0.25, 0.1)
    assert guard["override"].startswith(f"phedex-rucio sync site {NODE} --approve 20")

    # A fourth one leaves after the person has looked.
    lost(sides.snapshot, 5)
    for wrong in (["--approve", code], ["--approve", code, "--reason", "x", "--limit", "5"]):
        refused = run("sync", "site", NODE, "--local", *wrong, env=env)
        assert refused.returncode == 2, refused.stdout
    assert run("sync", "site", NODE, OTHER, "--approve", code, "--reason", "x", env=env).returncode == 2
    elsewhere = run("sync", "site", NODE, "--local", "--dataset", DATASET, "--approve", code, "--reason", "x", env=env)
    assert elsewhere.returncode == 4
    assert f"{code} was given for another site or pattern" in elsewhere.stdout
    wrong_code = run("sync", "site", NODE, "--local", "--approve", "0" * 16, "--reason", "x", env=env)
    assert wrong_code.returncode == 4
    assert "'0000000000000000' is no approval code" in wrong_code.stdout
    assert sides.rucio.sql(MARKS) == []

    done = run(*arguments, "--local", env=env)
    assert done.returncode == 4, done.stdout + done.stderr
    assert sides.rucio.sql(MARKS) == [(block(n),) for n in (2, 3, 4)]

    after = run("plan", NODE, env=env)
    assert after.returncode == 3
    assert f"  - {block(5)}  moved, held: share, on record since" in after.stdout
    assert "3 blocks marked for removal earlier." in after.stdout
    assert re.search(rf"  x {block(2)}  swept from \d{{4}}-\d\d-\d\d \d\d:\d\d UTC on", after.stdout)


def test_a_dataset_that_is_deleted_everywhere_goes_by_one_approval(sides: TwoSides) -> None:
    env = {"PHEDEX_URL": sides.main.phedex_url, **sides.rucio.client_environment()}
    gone = [block(n, "/Gone/Processed-v1/RAW") for n in range(2)]
    for name in (*gone, *map(block, range(20))):
        sides.snapshot.add_replica(sides.put(name), OTHER)
    assert run("sync", "site", NODE, OTHER, "--local", env=env).returncode == 0
    for name in gone:
        for node in (NODE, OTHER):
            sides.snapshot.remove_replica(name, node)

    before = run("plan", NODE, env=env)
    assert "2 held blocks are not on record yet" in before.stdout
    assert "--approve" not in before.stdout
    held = run("sync", "site", NODE, OTHER, "--local", env=env)
    assert held.returncode == 4, held.stdout
    plan = run("plan", NODE, env=env)
    typed = re.search(r"The same at every node that has it: phedex-rucio (.+)", plan.stdout)
    assert typed is not None, plan.stdout
    says = run("explain", gone[0], NODE, env=env)
    assert says.returncode == 4
    assert "On record as held since" in says.stdout
    next_ = says.stdout.split("\nNext:\n")[1].splitlines()
    assert next_[0] == f"  phedex-rucio plan {NODE}"

    done = run(*shlex.split(typed[1]), "--local", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(name for (name,) in sides.rucio.sql(MARKS)) == sorted(gone * 2)
