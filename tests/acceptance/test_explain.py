"""`explain` on real servers: what it says of one block in many situations, and the exit code that goes with each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from rucio.client import Client

from common.settings.model import Settings
from phedex_rucio.explained import Look, facts_about
from tests.acceptance.command import run
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import NODE, OTHER, TwoSides, block, files_of, two_sides

ADD, CONFLICT, GONE, BACK, FOREIGN = (block(n) for n in range(5))
STANDING = [block(n) for n in range(10, 30)]
WITHOUT_RSE = "T2_US_MIT"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


@pytest.fixture
def env(sides: TwoSides, amqp_url: str) -> dict[str, str]:
    return {"PHEDEX_URL": sides.main.phedex_url, "AMQP_URL": amqp_url, **sides.rucio.client_environment()}


def told(code: int, *arguments: str, env: dict[str, str]) -> str:
    """What `explain` says, having ended with this code."""
    done = run("explain", *arguments, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_lacks_and_what_is_in_the_way(sides: TwoSides, env: dict[str, str]) -> None:
    sides.put(ADD)
    says = told(3, ADD, NODE, env=env)
    assert "\nWould add: 3 files and the rule. PhEDEx has it complete since 20" in says
    assert "; Rucio has no container." in says
    assert f"\n  phedex-rucio sync block '{ADD}' --node {NODE} --wait\n" in says
    assert "\nFiles: all 3: not in Rucio's dataset (--files lists them)\n" in says
    assert "there is no stream of events yet" in says

    assert run("sync", "site", NODE, "--local", env=env).returncode == 0
    says = told(0, ADD, NODE, "--files", env=env)
    assert "\nNothing: it is as it should be." in says
    assert "\nFiles: 0 of 3 differ\n" in says
    assert files_of(ADD)[2][0] in says

    look = Look(ADD, Settings(main=sides.main))
    facts_about(look, NODE)
    assert look.doors.phedex.requests == 3
    assert look.doors.rucio.requests <= 13

    client: Client = sides.root
    # Another size at another site.
    sides.put(CONFLICT, node=OTHER)
    wrong = [{"scope": "cms", "name": files_of(CONFLICT)[1][0], "bytes": 77, "adler32": "00000001"}]
    client.add_replicas(OTHER, wrong)
    says = told(3, CONFLICT, OTHER, env=env)
    assert "\nStopped: conflict: Rucio has 1 file of it with another size or checksum." in says
    assert "in PhEDEx 1,001 bytes, adler32 00000001; in Rucio 77 bytes" in says

    sides.snapshot.add_node(WITHOUT_RSE)
    sides.snapshot.add_replica(ADD, WITHOUT_RSE)
    says = told(3, ADD, WITHOUT_RSE, env=env)
    assert f"\nSkipped: {WITHOUT_RSE}: no RSE has the attributes cms_type=real and pnn={WITHOUT_RSE}.\n" in says
    assert f"\n  phedex-rucio send rse --field node={WITHOUT_RSE}\n" in says

    table = told(3, ADD, env=env)
    lines = [line.split() for line in table.splitlines()]
    assert [NODE, "complete", "3", "files,", "rule", "OK", "nothing"] in lines
    assert [WITHOUT_RSE, "complete", "no", "RSE", "skipped", "(no", "RSE)"] in lines
    assert f"phedex-rucio explain '{ADD}' {WITHOUT_RSE}" in table

    unselected = env | {"PHEDEX_RUCIO_DEFAULT_IGNORE": "Processed"}
    says = told(0, ADD, NODE, env=unselected)
    assert "\nSkipped: `ignore: Processed` in the settings leaves this block out" in says

    lfn = files_of(ADD)[0][0]
    client.update_replicas_states(NODE, [{"scope": "cms", "name": lfn, "state": "U"}])
    says = told(3, ADD, NODE, env=env)
    assert "\nWould update: its rule has 2 good locks of 3 files; 1 file to bring." in says
    assert f"\n  phedex-rucio sync block '{ADD}' --node {NODE} --deep --wait\n" in says
    assert f"{lfn}  replica is UNAVAILABLE" in says


def test_what_leaves_and_what_holds_it(sides: TwoSides, env: dict[str, str]) -> None:
    for name in (GONE, BACK, FOREIGN, *STANDING):
        sides.snapshot.add_replica(sides.put(name), OTHER)
    assert run("sync", "site", NODE, OTHER, "--local", env=env).returncode == 0
    make_account(sides.root, "alice", NODE)
    sides.root.add_replication_rule([{"scope": "cms", "name": FOREIGN}], 1, NODE, account="alice")

    sides.snapshot.remove_replica(GONE, NODE)
    says = told(3, GONE, NODE, env=env)
    assert "\nWould mark for removal: PhEDEx does not have it at" in says
    assert "The guard lets it pass: 1 of 23 rules would be marked then (4.35 %)." in says

    sides.snapshot.remove_replica(STANDING[0], NODE)
    sides.snapshot.remove_replica(FOREIGN, NODE)
    held = run("explain", GONE, NODE, "--json", env=env)
    assert held.returncode == 4
    data = json.loads(held.stdout)
    assert "The guard holds it (share): would mark 3 of 23 rules (13 %), limit 10 %." in data["answer"]["says"][0]
    assert data["answer"]["word"] == "held"
    assert data["guard"]["held_by"] == "share"
    assert any("It is not on record yet: the next sync puts it there" in text for text in data["answer"]["says"])
    assert data["answer"]["next"] == [
        f"phedex-rucio plan {NODE}",
        f"phedex-rucio sync block '{GONE}' --node {NODE} --wait",
    ]

    assert run("sync", "site", NODE, "--local", env=env).returncode == 4
    data = json.loads(run("explain", GONE, NODE, "--json", env=env).stdout)
    assert any("On record as held since 20" in text for text in data["answer"]["says"])
    assert data["answer"]["next"] == [f"phedex-rucio plan {NODE}", data["guard"]["command"]]
    approve = shlex.split(data["guard"]["command"])[1:]
    assert run(*approve, "--local", env=env).returncode == 0
    says = told(0, GONE, NODE, env=env)
    assert "\nNothing: it is marked for removal, and may be swept from 20" in says
    assert "\nMarked at 20" in says
    assert f"\n  phedex-rucio undo '{GONE}' --node {NODE}\n" in says

    # Due at once, and a file of it is not available at the other site any more: its last copy.
    lfn = files_of(STANDING[0])[0][0]
    sides.root.update_replicas_states(OTHER, [{"scope": "cms", "name": lfn, "state": "U"}])
    at_once = env | {"PHEDEX_RUCIO_DEFAULT_REMOVAL_GRACE": "0"}
    says = told(4, STANDING[0], NODE, env=at_once)
    assert "\nHeld: it would be the last copy of /store/data/" in says
    assert f"\n{OTHER} has it in PhEDEx and is asked to have it in Rucio; then it goes here.\n" in says
    locked = sides.rules(STANDING[0])
    (mine,) = [rule["id"] for rule in locked if rule["rse_expression"] == NODE]
    sides.root.update_replication_rule(mine, {"locked": True})
    says = told(4, STANDING[0], NODE, env=at_once)
    assert f"\nHeld: a person locked its rule {mine}: it stays until that person unlocks it" in says
    assert f"\n  rucio rule update {mine} --locked False\n" in says
    says = told(0, FOREIGN, NODE, env=at_once)
    assert "\nWould sweep: its replicas go and its rule ends (0 replicas to delete, 3 stay for others)." in says
    assert "alice holds it here, 1 rule" in says

    assert run("site", "freeze", NODE, "--reason", "it is moved", env=env).returncode == 0
    says = told(0, BACK, NODE, env=env)
    assert f"\nSkipped: {NODE} is frozen by " in says
    assert "because: it is moved" in says
    assert f"\n  phedex-rucio site resume {NODE} --reason '…'\n" in says
