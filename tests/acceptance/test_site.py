"""A site's switch and its hand-over from the command line, judged by Rucio's own tables."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.messages.commands import Command, SyncBlocks
from common.settings.model import Main, Site
from phedex_rucio import broker as phedex_broker
from phedex_rucio.roots import rooted
from tests.acceptance.command import ended, run, started, until, worker
from tests.stack.broker import Broker
from tests.stack.processes import wait_until
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, OTHER, TwoSides, block, two_sides

ACCOUNT = "sync_t2_it_pisa"
WHY = ("--reason", "tests of the tape")
ATTRIBUTES = "SELECT key, value FROM rse_attr_map JOIN rses ON id = rse_id WHERE rse = %s AND key LIKE 'phedex%%'"
# All that a removal would change: rules, what they lock, replicas, what is in what.
STATE = (
    "SELECT name, account, rse_expression, state, locks_ok_cnt, expires_at FROM rules ORDER BY 1, 2, 3",
    "SELECT name, account, state, count(*) FROM locks GROUP BY 1, 2, 3 ORDER BY 1, 2",
    "SELECT name, rse_id, state, tombstone, lock_cnt FROM replicas ORDER BY 1, 2",
    "SELECT name, child_name FROM contents ORDER BY 1, 2",
    "SELECT name, did_type FROM dids ORDER BY 1",
)


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


def environment(sides: TwoSides) -> dict[str, str]:
    return {"PHEDEX_URL": sides.main.phedex_url, **sides.rucio.client_environment()}


def state(sides: TwoSides) -> list[list[tuple[Any, ...]]]:
    return [sides.rucio.sql(query) for query in STATE]


def daemons(sides: TwoSides) -> None:
    for name in ("judge-evaluator", "judge-cleaner"):
        sides.rucio.run_daemon(name)


def attributes(sides: TwoSides, rse: str = NODE) -> dict[str, str]:
    return dict(sides.rucio.sql(ATTRIBUTES, (rse,)))


def at_both(sides: TwoSides, *numbers: int, groups: dict[int, str] | None = None) -> list[str]:
    names = [sides.put(block(n), group=(groups or {}).get(n)) for n in numbers]
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        sides.sync(*names, node=node)
    return names


def test_the_switch_is_turned_shown_and_explained(sides: TwoSides) -> None:
    env = environment(sides)
    for wrong, said in (
        ([NODE], "--reason"),
        ([NODE, "--reason", "  "], "say why"),
        ([NODE, "--reason", "x" * 256], "say it shorter"),
        ([*WHY], "NODE"),
    ):
        refused = run("site", "freeze", *wrong, env=env)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    dry = run("site", "freeze", NODE, *WHY, "--dry-run", env=env)
    assert dry.stdout == f"{NODE}: was on, would be frozen\ndry: nothing was written\n"
    assert attributes(sides) == {}

    done = run("site", "freeze", "T2_XX_Nowhere", NODE, *WHY, env=env)
    assert done.returncode == 1
    assert done.stdout == f"{NODE}: was on, is frozen\n"
    assert [line for line in done.stderr.splitlines() if "T2_XX_Nowhere: no RSE" in line]
    assert attributes(sides)["phedex_sync"] == "frozen"
    note = attributes(sides)["phedex_sync_note"]
    again = run("site", "freeze", NODE, "--reason", "another", env=env)
    assert again.returncode == 0
    assert again.stdout.startswith(f"{NODE}: is frozen already since 20")
    assert ": tests of the tape" in again.stdout
    assert attributes(sides)["phedex_sync_note"] == note

    config = Path(sides.snapshot.path).with_name("settings.yaml")
    config.write_text(f"{OTHER}: {{run: false, adds_only: true}}\n")
    listed = run("site", "list", "--config", str(config), env=env)
    assert listed.returncode == 0, listed.stderr
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert list(rows) == ["NODE", OTHER, NODE]
    assert "run: False, adds_only" in rows[OTHER]
    assert "tests of the tape" in rows[NODE]
    data = json.loads(run("site", "list", NODE, "--json", env=env).stdout)
    assert [(one["node"], one["switch"], one["note"]["why"]) for one in data] == [(NODE, "frozen", WHY[1])]
    assert run("site", "list", "T2_XX_Nowhere", env=env).returncode == 1

    both = json.loads(run("site", "adds-only", NODE, OTHER, *WHY, "--json", env=env).stdout)
    assert both["nodes"][NODE] == {"changed": True, "was": "frozen", "now": "adds-only"}
    assert attributes(sides, OTHER)["phedex_sync"] == "adds-only"
    sides.root.add_rse_attribute(NODE, "phedex_sync", "ON")
    assert "'ON'" in run("site", "list", NODE, env=env).stdout
    assert f"{NODE}: was frozen ('ON', unreadable), is on" in run("site", "resume", NODE, *WHY, env=env).stdout
    assert attributes(sides)["phedex_sync"] == "on"


def batches(sides: TwoSides, names: list[str]) -> list[Command]:
    """Batches that a plan permitted to remove a minute ago."""
    until_ = datetime.now(UTC) + timedelta(hours=1)
    return [rooted(SyncBlocks(node=NODE, blocks=[name], removable_until=until_)) for name in names]


def test_freezing_stops_what_waits_and_nothing_is_deleted(sides: TwoSides, amqp_url: str, broker: Broker) -> None:
    names = at_both(sides, *range(6))
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    new = sides.put(block(9))
    config = Path(sides.snapshot.path).with_name("settings.yaml")
    config.write_text("default: {removal_grace: 0, max_removal_share: 1}\n")  # the first batch that is let would sweep
    env = environment(sides) | {"AMQP_URL": amqp_url, "PHEDEX_RUCIO_CONFIG": str(config)}
    main = Main(amqp_url=amqp_url)
    phedex_broker.declare(main)
    waiting = batches(sides, [*names, new])
    phedex_broker.publish(main, waiting)
    before = state(sides)
    assert run("site", "freeze", NODE, *WHY, env=env).returncode == 0
    broker.restart()
    sides.rucio.kill()
    sides.rucio.start()
    with worker(env, "--threads", "2"):
        followed = run("wait", *(one.meta.cycle for one in waiting), "--json", env=env)
        assert followed.returncode == 0, followed.stderr
        outcomes = {site["outcome"] for site in json.loads(followed.stdout)["sites"]}
        assert outcomes == {"skipped"}
        sites = json.loads(run("sync", "site", NODE, "--wait", "--json", env=env).stdout)["sites"]
        assert [site["outcome"] for site in sites] == ["skipped"]
    daemons(sides)
    assert state(sides) == before


def test_stopping_everything_deletes_nothing(sides: TwoSides, amqp_url: str) -> None:
    names = at_both(sides, 1, 2)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    config = Path(sides.snapshot.path).with_name("settings.yaml")
    config.write_text("default: {max_removal_share: 1}\n")
    env = environment(sides) | {"AMQP_URL": amqp_url, "PHEDEX_RUCIO_CONFIG": str(config)}
    main = Main(amqp_url=amqp_url)
    phedex_broker.declare(main)
    before = state(sides)
    with started("worker", env=env) as process:
        until(process, 'event="worker ready"')
        phedex_broker.publish(main, batches(sides, names))
        marked = "SELECT count(*) FROM rules WHERE meta LIKE '%phedex_gone_since%'"
        wait_until(lambda: sides.rucio.sql(marked) == [(2,)], "nothing is marked", 60)
        assert ended(process, signal.SIGKILL)[0] == -signal.SIGKILL
    daemons(sides)
    assert state(sides) == before


# --- hand-over ---------------------------------------------------------------------------------------------------

OWNERS = "SELECT name, account FROM rules JOIN rses ON rse = rse_expression WHERE rse = %s ORDER BY 1, 2"


def account(sides: TwoSides, name: str, limit: int | None = -1) -> None:
    sides.root.add_account(name, "USER", "ops@example.org")
    if limit is not None:
        sides.root.set_local_account_limit(name, NODE, limit)


def handover(sides: TwoSides, *arguments: str, code: int) -> dict[str, Any]:
    done = run("site", "handover", NODE, "--json", *arguments, env=environment(sides))
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_site_is_handed_over(sides: TwoSides) -> None:
    groups = {1: "Higgs", 2: "Higgs", 3: "Top", 4: "Top"}
    names = at_both(sides, 1, 2, 3, 4, 5, groups=groups)
    account(sides, "higgs")
    account(sides, "ops")
    account(sides, "poor", 10)
    account(sides, "none", None)
    env = environment(sides)
    before = state(sides)
    for to, said in (
        ("", "neither ACCOUNT"),
        ("Higgs=", "neither ACCOUNT"),
        ("Higgs=higgs,Higgs=ops", "twice"),
        ("ops,*=higgs", "twice"),
        ("Higgs=nobody", "no account nobody"),
        (ACCOUNT, "account of the sync"),
        ("sync_t2_ch_cern", "account of the sync"),
    ):
        refused = run("site", "handover", NODE, "--to", to, "--yes", env=env)
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert run("site", "handover", NODE, env=env).returncode == 2
    assert run("site", "handover", "T2_XX_Nowhere", "--to", "ops", env=env).returncode == 1

    assert "its switch says on" in handover(sides, "--to", "ops", "--yes", code=4)["not_now"][0]
    sides.snapshot.remove_replica(names[4], NODE)
    made = sides.world(site=Site(max_removal_share=1))
    sides.sync(names[4], world=made, removable_until=datetime.now(UTC) + timedelta(hours=1))
    assert run("site", "freeze", NODE, *WHY, env=env).returncode == 0
    assert "undo" in handover(sides, "--to", "ops", "--yes", code=4)["not_now"][0]
    assert run("undo", names[4], "--node", NODE, env=env).returncode == 0
    before = state(sides)
    for poor in ("poor", "none"):
        assert "raise its limit" in handover(sides, "--to", f"ops,Higgs={poor}", "--yes", code=4)["not_now"][0]
    assert state(sides) == before

    shown = handover(sides, "--to", "Higgs=higgs,Top=ops", code=3)
    assert shown["to_give"] == {"higgs": {"rules": 2, "bytes": 6006}, "ops": {"rules": 2, "bytes": 6006}}
    assert shown["stay"] == {"": {"rules": 1, "bytes": 3003}}
    assert state(sides) == before
    assert "phedex_handed_over" not in attributes(sides)

    sides.root.add_replication_rule([{"scope": "cms", "name": names[3]}], 1, NODE, account="ops")
    metas = sides.rucio.sql("SELECT id, meta FROM rules ORDER BY 1")
    done = handover(sides, "--to", "Higgs=higgs,Top=ops", "--yes", code=3)
    assert done["given"] == {"higgs": 2, "ops": 1}
    assert "ops has such a rule already" in done["conflicts"][0]
    assert sides.rucio.sql("SELECT id, meta FROM rules ORDER BY 1") == metas
    owners = ["higgs", "higgs", "ops", "ops", ACCOUNT, ACCOUNT]
    assert [owner for _, owner in sides.rucio.sql(OWNERS, (NODE,))] == owners
    assert sides.rucio.sql(OWNERS, (OTHER,)) == [(name, "sync_t2_ch_cern") for name in names]
    assert attributes(sides)["phedex_handed_over"] == "higgs,ops"
    (conflict,) = [rule for rule in sides.rules(names[3]) if rule["account"] == ACCOUNT]
    sides.root.update_replication_rule(conflict["id"], {"lifetime": -1})
    daemons(sides)
    text = run("site", "handover", NODE, "--to", "ops", "--yes", env=env)
    assert (text.returncode, text.stdout) == (0, f"{NODE}: 1 rule handed over to ops\n")
    assert "nothing of ours is left" in run("site", "handover", NODE, "--to", "ops", "--yes", env=env).stdout

    daemons(sides)
    taken = "SELECT name, account FROM locks WHERE rse_id = (SELECT id FROM rses WHERE rse = %s)"
    assert {owner for _, owner in sides.rucio.sql(taken, (NODE,))} == {"higgs", "ops"}
    usage = (
        "SELECT account, sum(bytes) FROM updated_account_counters JOIN rses ON rses.id = rse_id WHERE rse = %s"
        " GROUP BY account HAVING sum(bytes) <> 0 ORDER BY 1"
    )
    assert sides.rucio.sql(usage, (NODE,)) == [("higgs", 6006), ("ops", 9009)]
    assert sides.transfers() == 0

    after = state(sides)
    assert "skipped" in run("sync", "site", NODE, "--local", env=env).stdout
    for arguments in (("resume",), ("adds-only",)):
        refused = run("site", *arguments, NODE, *WHY, env=env)
        assert (refused.returncode, "handed over to higgs,ops: --force would" in refused.stderr) == (1, True)
    assert "is frozen already" in run("site", "freeze", NODE, *WHY, env=env).stdout
    sides.root.add_rse_attribute(NODE, "phedex_sync", "on")  # by hand: the mark holds all the same
    assert "skipped" in run("sync", "site", NODE, "--local", env=env).stdout
    assert state(sides) == after
    forced = run("site", "resume", NODE, "--force", *WHY, env=env)
    assert (forced.returncode, "beside those" in forced.stdout) == (0, True)
    assert run("sync", "site", NODE, "--local", env=env).returncode == 0
    assert sum(owner == ACCOUNT for _, owner in sides.rucio.sql(OWNERS, (NODE,))) == 4


def test_a_hand_over_that_is_killed_goes_on(sides: TwoSides) -> None:
    names = at_both(sides, *range(40))
    account(sides, "ops")
    env = environment(sides)
    assert run("site", "freeze", NODE, *WHY, env=env).returncode == 0
    mine = "SELECT count(*) FROM rules WHERE account = 'ops'"
    with started("site", "handover", NODE, "--to", "ops", "--yes", env=env) as process:
        wait_until(lambda: sides.rucio.sql(mine) > [(0,)], "nothing is handed over", 60)
        ended(process, signal.SIGKILL)
    assert run("site", "resume", NODE, *WHY, env=env).returncode == 1
    assert run("site", "handover", NODE, "--to", "ops", "--yes", env=env).returncode == 0
    assert sides.rucio.sql(OWNERS, (NODE,)) == [(name, "ops") for name in names]
    daemons(sides)
    assert sides.transfers() == 0
