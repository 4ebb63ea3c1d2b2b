"""The watcher of the chaos runs sees each fault that it is for, on a real Rucio, and says nothing of a clean run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rucio.client import Client

from common.names import dataset_of, sync_account
from scripts.watching import ANNOUNCED, Watcher, at_rest
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import NODE, OTHER, TwoSides, block, two_sides

COLLEAGUE = "colleague"
NAME = block(1)
HIS = {"scope": "user.colleague", "name": "/his/files/USER"}


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    """A block at the first node, in Rucio as well, and a colleague with a dataset of his own."""
    with two_sides(clean_rucio, tmp_path) as sides:
        sides.put(NAME)
        sides.sync(NAME)
        for node in (NODE, OTHER):
            make_account(sides.root, COLLEAGUE, node)
        sides.root.add_scope(COLLEAGUE, HIS["scope"])
        sides.root.add_dataset(**HIS)
        yield sides


@pytest.fixture
def watcher(sides: TwoSides) -> Iterator[Watcher]:
    with Watcher(sides.rucio.postgres.folder, sides.snapshot.path, within=5) as watcher:
        yield watcher


def dids(sides: TwoSides, name: str = NAME) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": file} for file in sorted(sides.inside(name))]


def delete(sides: TwoSides, node: str = NODE) -> None:
    """The replicas of the block are gone at the node, by whomever."""
    sides.root.delete_replicas(node, dids(sides), ignore_availability=False)


def rule(client: Client, expression: str = NODE, name: str = NAME, scope: str = "cms") -> str:
    (number,) = client.add_replication_rule(
        [{"scope": scope, "name": name}], 1, expression, account=COLLEAGUE, ignore_availability=True
    )
    return str(number)


def ours(sides: TwoSides, node: str = NODE) -> str:
    return next(str(rule["id"]) for rule in sides.rules(NAME) if rule["account"] == sync_account(node))


def said(watcher: Watcher) -> list[str]:
    watcher.caught_up()
    return [fault.says for fault in watcher.faults]


def nowhere(sides: TwoSides) -> None:
    sides.snapshot.remove_replica(NAME, NODE)


def later(watcher: Watcher, seconds: float) -> None:
    """What was noted so far was so many seconds earlier: nobody has to wait until a thing has lasted."""
    watcher.caught_up()
    past = timedelta(seconds=seconds)
    tables = watcher._tables
    for key, locks in tables.locks.items():
        tables.locks[key] = {number: (account, since_before(since, past)) for number, (account, since) in locks.items()}
    for standing in tables.rules.values():
        standing.since = since_before(standing.since, past)
        standing.locked = standing.locked and since_before(standing.locked, past)
    for child, parents in tables.parents.items():
        tables.parents[child] = {parent: since_before(since, past) for parent, since in parents.items()}


def since_before(since: datetime, past: timedelta) -> datetime:
    return since if since == datetime.min.replace(tzinfo=UTC) else since - past


def test_a_block_that_comes_and_goes_is_no_fault(sides: TwoSides, watcher: Watcher) -> None:
    sides.snapshot.add_replica(NAME, OTHER)
    sides.sync(NAME, node=OTHER)
    sides.snapshot.remove_replica(NAME, NODE)
    delete(sides)
    number = rule(sides.root, OTHER)
    watcher.theirs(number)
    sides.root.update_replication_rule(number, {"lifetime": 0, "comment": "it was mine"})
    sides.rucio.run_daemon("judge-cleaner")
    assert said(watcher) == []
    assert (watcher.deleted, dict(watcher.apart)) == (3, {})
    assert not sides.rucio.sql("SELECT 1 FROM rules WHERE id = %s", (number,))


def test_the_last_copy_of_what_phedex_has(sides: TwoSides, watcher: Watcher) -> None:
    delete(sides)
    faults = said(watcher)
    assert len(faults) == 3
    assert "its last available replica was deleted, at T2_IT_Pisa; PhEDEx has it" in faults[0]
    assert "delete replicas cms:/store/data/" in "\n".join(watcher.faults[0].history)


def test_the_last_copy_of_what_phedex_has_nowhere_is_no_fault(sides: TwoSides, watcher: Watcher) -> None:
    nowhere(sides)
    delete(sides)
    assert said(watcher) == []


def test_what_came_to_phedex_a_moment_ago_is_counted_apart(sides: TwoSides, watcher: Watcher) -> None:
    nowhere(sides)
    watcher.caught_up()
    sides.snapshot.add_replica(NAME, OTHER)
    watcher.caught_up()
    delete(sides)
    assert said(watcher) == []
    assert dict(watcher.apart) == {"the last copy": 3}


def test_two_sites_delete_what_each_has(sides: TwoSides, watcher: Watcher) -> None:
    sides.snapshot.add_replica(NAME, OTHER)
    sides.sync(NAME, node=OTHER)
    delete(sides)
    assert said(watcher) == []
    delete(sides, OTHER)
    assert len(said(watcher)) == 3


def on_the_block(sides: TwoSides) -> None:
    rule(sides.root)


def on_either_site(sides: TwoSides) -> None:
    """Over his container, which holds our block: by its locks alone it is known where it holds the files."""
    container = {"scope": HIS["scope"], "name": "/his/container/USER"}
    sides.root.add_container(**container)
    sides.root.attach_dids(**container, dids=[{"scope": "cms", "name": NAME}])
    rule(sides.root, f"{NODE}|{OTHER}", container["name"], HIS["scope"])


def on_his_dataset(sides: TwoSides) -> None:
    """A file of ours joined it after his rule was made: there is no lock before Rucio's evaluator has run."""
    rule(sides.root, NODE, HIS["name"], HIS["scope"])
    sides.root.attach_dids(**HIS, dids=dids(sides)[:1])


def on_our_container(sides: TwoSides) -> None:
    rule(sides.root, NODE, dataset_of(NAME))


def locked_by_a_person(sides: TwoSides) -> None:
    sides.root.update_replication_rule(ours(sides), {"locked": True})


HOLDS = {
    on_the_block: (3, "a lock of others"),
    on_either_site: (3, "a lock of others"),
    on_his_dataset: (1, "a rule of others"),
    on_our_container: (3, "a lock of others"),
    locked_by_a_person: (3, "a locked rule"),
}


@pytest.mark.parametrize("hold", HOLDS)
def test_what_others_hold(sides: TwoSides, watcher: Watcher, hold: Callable[[TwoSides], None]) -> None:
    number, _ = HOLDS[hold]
    nowhere(sides)
    hold(sides)
    later(watcher, 6)
    delete(sides)
    under = [fault for fault in said(watcher) if " under " in fault]
    assert len(under) == number, watcher.faults


@pytest.mark.parametrize("hold", HOLDS)
def test_what_others_hold_since_a_moment_is_counted_apart(
    sides: TwoSides, watcher: Watcher, hold: Callable[[TwoSides], None]
) -> None:
    number, kind = HOLDS[hold]
    nowhere(sides)
    hold(sides)
    delete(sides)
    assert not [fault for fault in said(watcher) if " under " in fault]
    assert watcher.apart[kind] == number


def test_seconds_in_which_rucio_was_held_up_do_not_count(sides: TwoSides) -> None:
    nowhere(sides)
    with Watcher(sides.rucio.postgres.folder, sides.snapshot.path, held_up=lambda _since, _until: 30) as watcher:
        on_the_block(sides)
        later(watcher, 30)
        delete(sides)
        assert said(watcher) == []


def test_a_rule_of_others_is_changed_or_deleted(sides: TwoSides, watcher: Watcher) -> None:
    number = rule(sides.root)
    sides.root.update_replication_rule(number, {"lifetime": 0})
    assert [number in fault and "expires_at" in fault for fault in said(watcher)] == [True]
    sides.rucio.run_daemon("judge-cleaner")
    assert "was deleted" in said(watcher)[-1]


def test_a_dataset_of_others_loses_a_file(sides: TwoSides, watcher: Watcher) -> None:
    nowhere(sides)
    sides.root.attach_dids(**HIS, dids=dids(sides)[:2])
    later(watcher, 6)
    mine, other = dids(sides)[:2]
    watcher.theirs(f"{HIS['scope']}:{HIS['name']} cms:{mine['name']}")
    sides.root.detach_dids(**HIS, dids=[mine])
    assert said(watcher) == []
    sides.root.detach_dids(**HIS, dids=[other])
    assert [other["name"] in fault and "which is not ours" in fault for fault in said(watcher)] == [True]


def test_a_rule_of_ours_is_unlocked_by_somebody_else(sides: TwoSides, watcher: Watcher) -> None:
    locked_by_a_person(sides)
    sides.root.update_replication_rule(ours(sides), {"locked": False})
    assert ["was unlocked by somebody else" in fault for fault in said(watcher)] == [True]


def test_a_block_goes_that_a_person_was_told_is_kept(sides: TwoSides, watcher: Watcher) -> None:
    nowhere(sides)
    watcher.caught_up()
    watcher.kept(NAME, NODE)
    delete(sides)
    assert len([fault for fault in said(watcher) if "is kept" in fault]) == 3


@pytest.mark.parametrize("how", ["phedex had it back", "the keep was cleared"])
def test_a_kept_block_may_go_again(sides: TwoSides, watcher: Watcher, how: str) -> None:
    nowhere(sides)
    watcher.caught_up()
    watcher.kept(NAME, NODE)
    if how == "the keep was cleared":
        watcher.not_kept(NAME, NODE)
    else:
        sides.snapshot.add_replica(NAME, NODE)
        watcher.caught_up()
        nowhere(sides)
    delete(sides)
    assert "is kept" not in "".join(said(watcher))


def test_it_goes_on_when_postgresql_was_killed(sides: TwoSides, watcher: Watcher) -> None:
    rule(sides.root)
    watcher.caught_up()
    sides.rucio.postgres.kill()
    sides.rucio.postgres.start()
    sides.rucio.sql("UPDATE rules SET comments = 'not by me' WHERE account = %s", (COLLEAGUE,))
    assert ["comments" in fault for fault in said(watcher)] == [True]
    sides.rucio.postgres.kill()
    sides.rucio.postgres.start()
    sides.rucio.sql("DELETE FROM replicas")
    assert len([fault for fault in said(watcher) if "last available" in fault]) == 3


def test_an_announcement_is_told_at_once_and_stands_in_the_history(sides: TwoSides, watcher: Watcher) -> None:
    sides.root.add_rse_attribute(NODE, f"{ANNOUNCED}abc", "worker-1 c-1")
    assert watcher.announcement(timeout=0.0) is None  # only what comes while somebody waits
    delete(sides)
    said(watcher)
    assert "worker-1 c-1" in str(watcher.faults[0])


def test_nothing_of_it_is_left_in_the_database(sides: TwoSides) -> None:
    with Watcher(sides.rucio.postgres.folder):
        assert sides.rucio.sql("SELECT count(*) > 5 FROM pg_trigger WHERE tgname LIKE 'watching%%'") == [(True,)]
    assert sides.rucio.sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'watching%%'") == [(0,)]
    assert sides.rucio.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'watching'") == [(0,)]


# --- at rest ------------------------------------------------------------------------------------------------------

UNREST = {
    "a lock of ours without a replica": "DELETE FROM replicas",
    "a replica under a rule of ours without a lock": "DELETE FROM locks",
    "a rule of ours for a file that has no replica there": "DELETE FROM replicas",
    "a transfer is queued": "INSERT INTO requests (id, dest_rse_id, name, created_at, updated_at, request_type, state,"
    " did_type, scope) SELECT r.id, r.id, 'x', now(), now(), 'T', 'Q', 'F', 'cms' FROM rses r LIMIT 1",
    "a tombstone on a replica under a rule of ours": "UPDATE replicas SET tombstone = now()",
    "a dataset of ours outside its container": "DELETE FROM contents WHERE child_type = 'D'",
    "an announcement that nobody took away": "INSERT INTO rse_attr_map (rse_id, key, value, created_at, updated_at)"
    f" SELECT id, '{ANNOUNCED}abc', 'x', now(), now() FROM rses LIMIT 1",
}


@pytest.mark.parametrize("what", UNREST)
def test_at_rest_each_kind_of_unrest_is_told(sides: TwoSides, what: str) -> None:
    assert at_rest(sides.rucio.sql) == []
    sides.rucio.sql("SET session_replication_role = replica; " + UNREST[what])
    assert {line.partition(": ")[0] for line in at_rest(sides.rucio.sql)} >= {what}
