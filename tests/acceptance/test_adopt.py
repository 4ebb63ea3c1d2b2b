"""What older tools left at a tape site, found and repaired from the command line on a real Rucio."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.command import run
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account, make_site
from tests.two_sides import DATASET, TwoSides, block, files_of, two_sides

NODE, RSE = "T1_US_FNAL_Buffer", "T1_US_FNAL_Tape"
OURS, FORMER = "sync_t1_us_fnal_tape", "sync_t1_us_fnal_buffer"
REPLICAS = "SELECT name, bytes FROM replicas ORDER BY 1"


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        make_site(sides.rucio, NODE, RSE, "TAPE")
        make_account(sides.root, FORMER, RSE)
        sides.snapshot.add_node(NODE)
        yield sides


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in names]


def adopt(sides: TwoSides, *arguments: str, code: int) -> dict[str, Any]:
    env = {"PHEDEX_URL": sides.main.phedex_url, **sides.rucio.client_environment()}
    done = run("adopt", NODE, "--json", *arguments, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout or "{}").get("nodes", {}).get(NODE, {})
    return found


def left_by_older_tools(sides: TwoSides) -> list[str]:
    """Blocks in sync but for one harm each; the last is not in PhEDEx."""
    names = [sides.put(block(n), node=NODE) for n in range(10)]
    sides.sync(*names, node=NODE)
    rule = {name: sides.rules(name)[0]["id"] for name in names}
    root = sides.root
    root.update_replication_rule(rule[names[0]], {"account": FORMER})
    root.add_replication_rule(dids(names[1]), 1, f"rse={RSE}", account=FORMER)
    root.update_replication_rule(rule[names[2]], {"meta": {}})
    root.update_replication_rule(rule[names[3]], {"lifetime": 31_536_000})
    root.update_replicas_states(RSE, [{**dids(files_of(names[4])[0][0])[0], "state": "U"}])
    root.detach_dids("cms", DATASET, dids(names[5]))
    root.update_replication_rule(rule[names[6]], {"lifetime": -1, "locked": False})
    sides.rucio.run_daemon("judge-cleaner")
    for table, column in (("dids", "name"), ("contents", "child_name"), ("replicas", "name")):
        sides.rucio.sql(f"UPDATE {table} SET bytes = 7 WHERE {column} = %s", (files_of(names[7])[0][0],))
    sides.snapshot.remove_replica(names[8], NODE)
    root.update_replication_rule(rule[names[9]], {"account": FORMER, "lifetime": None})
    root.add_replication_rule(dids(names[9]), 1, RSE, account=OURS)
    orphan = "/Primary/Forgotten-v1/RAW#1"
    root.add_did("cms", orphan, "DATASET", dids=[{**dids("/store/lost")[0], "bytes": 5, "adler32": "0" * 8}], rse=RSE)
    return [*names, orphan]


def test_what_was_left_is_found_and_repaired(sides: TwoSides) -> None:
    assert adopt(sides, code=0)["counts"] == {}
    names = left_by_older_tools(sides)
    replicas = sides.rucio.sql(REPLICAS)
    rules_only = {
        "former_owner": 3,
        "rule_doubled": 2,
        "old_expression": 1,
        "no_meta": 2,
        "expiring": 1,
    }
    quick = adopt(sides, "--rules-only", code=3)
    assert quick["counts"] == rules_only | {"no_meta": 3}, quick["examples"]
    found = adopt(sides, "--orphans", code=3)
    assert found["counts"] == rules_only | {
        "no_meta": 3,
        "replica_unavailable": 1,
        "rule_differs": 1,
        "not_in_container": 1,
        "replica_no_rule": 3,
        "conflict": 1,
        "rule_surplus": 1,
        "orphan_block": 1,
    }
    assert found["examples"]["former_owner"][0] == f"{names[0]} ({FORMER})"
    assert found["examples"]["orphan_block"] == [f"{names[10]}: 1 files"]
    assert (found["rules"], found["blocks"], found["files"]) == (11, 9, 27)

    assert sides.rucio.sql(REPLICAS) == replicas
    sides.root.add_rse_attribute(RSE, "phedex_sync", "frozen")
    assert adopt(sides, code=3)["counts"]["former_owner"] == 3
    adopt(sides, "--repair", code=4)
    adopt(sides, "--repair", "--rules-only", code=2)
    sides.root.add_rse_attribute(RSE, "phedex_sync", "adds-only")
    repair = adopt(sides, "--repair", "--orphans", code=3)["repair"]
    assert (repair["given"], repair["failed"]) == (2, 0)
    for daemon in ("judge-evaluator", "judge-repairer"):
        sides.rucio.run_daemon(daemon)
    for _ in range(10):  # the cleaner takes what ended before this second
        sides.rucio.run_daemon("judge-cleaner")
        if sides.rucio.sql("SELECT count(*) FROM rules") == [(10,)]:
            break
    after = adopt(sides, "--orphans", code=3)
    assert after["counts"] == {"conflict": 1, "rule_surplus": 1, "orphan_block": 1}
    assert after["rules"] == 10
    assert sides.rucio.sql(REPLICAS) == replicas
    assert sides.rucio.sql("SELECT name FROM replicas WHERE tombstone IS NOT NULL") == []
    owned = sides.rucio.sql("SELECT name, account, rse_expression FROM rules ORDER BY 1")
    assert owned == [(name, OURS, RSE) for name in names[:10]]
    assert sides.transfers() == 0
