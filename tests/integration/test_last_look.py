"""The last look on a real Rucio: what others do between the look and the delete is seen, or told.

Each test meddles at a known moment of a sweep: at its announcement, or right before its delete is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import RucioConflict, RucioError
from common.messages.meta import Meta
from common.outcome import Outcome
from common.rucio import session
from common.rucio.inventory import rule_of
from common.rucio.rses import find_site
from common.rucio.session import Rucio, TooLate
from common.rucio.undo import Order, undo
from common.settings.model import Settings, Site
from common.sync import approvals
from consumers.apply import last_look, rules, sweep
from consumers.engine.result import Result
from consumers.engine.world import World
from datasvc.serve import running
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account, make_site
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, files_of, two_sides

AT_ONCE = Site(removal_grace=0, max_removal_share=1)
FREE = Site(removal_grace=0, max_removal_share=1, hold_nowhere=False)


WAITS = Site(removal_grace=3600, max_removal_share=1)
THIRD = "T2_DE_DESY"
ANCHOR = "/Anchor/Processed-v1/RAW#0"
Action = Callable[[], None]


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path, nowhere_apart=0) as sides:
        sides.put(ANCHOR)
        make_account(sides.root, "jdoe", NODE)
        make_account(sides.root, "jdoe", OTHER)
        yield sides


def dids(*names: str) -> list[dict[str, str]]:
    return [{"scope": "cms", "name": name} for name in sorted(names)]


def lfns(*names: str) -> set[str]:
    return {lfn for name in names for lfn, *_ in files_of(name)}


def at_both(sides: TwoSides, *numbers: int) -> list[str]:
    names = [sides.put(block(n)) for n in numbers]
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        assert sides.sync(*names, node=node).counts["added"] == len(names)
    return names


class Meddled:
    """Rucio, where `when` happens before the n-th call of a verb (after the first of another one). Once."""

    def __init__(self, rucio: Rucio, verb: str, action: Action, number: int = 1, after: str = "") -> None:
        self._rucio, self._verb, self._action, self._left, self._after = rucio, verb, action, number, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rucio, name)

    def _meddle(self, verb: str) -> None:
        if verb == self._after:
            self._after = ""
        elif verb == self._verb and not self._after:
            self._left -= 1
            if self._left == 0:
                self._action()

    def call(self, verb: str, *args: Any, **options: Any) -> Any:
        self._meddle(verb)
        return self._rucio.call(verb, *args, **options)

    def rows(self, verb: str, *args: Any, **options: Any) -> Any:
        self._meddle(verb)
        return self._rucio.rows(verb, *args, **options)

    def call_by(self, limit: float, verb: str, *args: Any, **options: Any) -> Any:
        self._meddle(verb)
        return self._rucio.call_by(limit, verb, *args, **options)


def sweeping(
    sides: TwoSides,
    *names: str,
    meddle: tuple[str, Action] | None = None,
    node: str = NODE,
    site: Site = AT_ONCE,
    after: str = "",
    **main: Any,
) -> Result:
    made: World = sides.world(site=site)
    if main:
        changed = msgspec.structs.replace(sides.main, **main)
        made = replace(made, settings=Settings(main=changed, default=site))
        made.rucio.main = changed
    if meddle:
        rucio: Any = Meddled(made.rucio, *meddle, after=after)
        made = replace(made, rucio=rucio)
    fields: dict[str, Any] = {"removable_until": datetime.now(UTC) + timedelta(minutes=30), "controls": [ANCHOR]}
    return sides.sync(*names, node=node, world=made, meta=Meta(cycle="c-1", by="me"), **fields)


def announced(sides: TwoSides) -> list[Any]:
    return sides.rucio.sql("SELECT key FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%'")


def undone(sides: TwoSides, name: str, wait: float = 0.5) -> str:
    door = Rucio(sides.main)
    site = find_site(door, NODE, Site())
    assert site is not None
    try:
        (one,) = undo(door, site, Order(asked=frozenset([name]), by="me", at="now", wait=wait))
    finally:
        door.close()
    return one.state


@pytest.mark.parametrize("moment", ["add_rse_attribute", "list_did_rules", "delete_replicas"])
def test_undo_says_kept_only_where_it_is_in_time(sides: TwoSides, moment: str) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)
    said: list[str] = []
    sweeping(sides, name, meddle=(moment, lambda: said.append(undone(sides, name))))
    kept = lfns(name) <= set(sides.replicas())
    assert kept == (moment != "delete_replicas")
    assert said == (["unsure"] if moment != "add_rse_attribute" else ["kept"])
    assert undone(sides, name) == ("not_marked" if kept else "swept")
    assert announced(sides) == []


@pytest.mark.parametrize("kind", ["custodial", "tape"])
def test_what_only_a_person_removes_by_now_stays(sides: TwoSides, kind: str) -> None:
    """It became so after it was marked, while its sweep was announced."""
    (name,) = at_both(sides, 1)
    left = [lfn for lfn, *_ in files_of(name)[:2]]
    sides.snapshot.set_replica_files(name, NODE, left)

    def change() -> None:
        if kind == "custodial":
            sides.snapshot.add_replica(name, NODE, left, custodial=True)
        else:
            sides.root.update_rse(NODE, {"rse_type": "TAPE"})

    result = sweeping(sides, name, meddle=("add_rse_attribute", change))
    assert result.notes == [f"{name}: incomplete, {kind}: not swept before a person approves it"]
    assert set(sides.replicas()) == lfns(name)
    assert announced(sides) == []


def test_a_rule_made_before_the_rules_are_read_keeps_the_replicas(sides: TwoSides) -> None:
    names = at_both(sides, 1, 2)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    rule: list[str] = []
    action = lambda: rule.extend(sides.root.add_replication_rule(dids(names[1]), 1, NODE, account="jdoe"))  # noqa: E731
    result = sweeping(sides, *names, meddle=("list_did_rules", action))
    assert set(sides.replicas()) == lfns(names[1])
    assert result.counts["foreign"] == 3
    assert sides.root.get_replication_rule(rule[0])["locks_ok_cnt"] == 3


def test_a_rule_made_right_before_the_delete_is_told_loudly(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)
    action = lambda: sides.root.add_replication_rule(dids(name), 1, NODE, account="jdoe")  # noqa: E731
    result = sweeping(sides, name, meddle=("delete_replicas", action))
    assert (result.outcome, result.counts["hit"]) == (Outcome.HELD, 1)
    assert any("jdoe" in note and "they are gone" in note for note in result.notes)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Action:
    """The process was stopped for an hour, as its clock tells it when it goes on."""
    real, hours = session.clock, [0]
    for module in (session, rules, sweep, last_look):
        monkeypatch.setattr(module, "clock", lambda: real() + 3600 * hours[0])

    def stop() -> None:
        hours[0] += 1

    return stop


def test_a_process_that_was_paused_before_the_delete_looks_again(sides: TwoSides, stopped: Action) -> None:
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)

    def pause() -> None:
        stopped()  # meanwhile a colleague takes hold of the block
        sides.root.add_replication_rule(dids(name), 1, NODE, account="jdoe")

    result = sweeping(sides, name, meddle=("delete_replicas", pause), sweep_within=300)
    assert set(sides.replicas()) == lfns(name)
    assert result.counts["foreign"] == 3
    assert announced(sides) == []


def test_locks_of_a_rule_over_several_rses_are_seen_file_by_file(sides: TwoSides) -> None:
    """His one copy of the block is at the other site, and that of a file of it, in another dataset, is here."""
    (name,) = at_both(sides, 1)
    first = files_of(name)[0][0]
    sides.root.add_scope("jdoe", "user.jdoe")
    sides.root.add_dataset("user.jdoe", "/Mine/Mine-v1/USER#1")
    mine = {"scope": "user.jdoe", "name": "/Mine/Mine-v1/USER#1"}
    box = {"scope": "user.jdoe", "name": "/Mine/Mine-v1/USER"}
    sides.root.attach_dids(**mine, dids=dids(first))
    sides.root.add_container(**box)
    sides.root.attach_dids(**box, dids=[mine, *dids(name)])
    (rule,) = sides.root.add_replication_rule([box], 1, f"{NODE}|{OTHER}", account="jdoe", grouping="DATASET")
    held = {lock["name"] for lock in sides.root.list_replica_locks(rule) if lock["rse"] == NODE}
    sides.snapshot.remove_replica(name, NODE)
    result = sweeping(sides, name)
    assert set(sides.replicas()) == held
    assert result.counts.get("foreign", 0) == len(held)


def test_a_file_of_two_blocks_stays_while_one_of_them_does(sides: TwoSides) -> None:
    shared = ("/store/data/shared.root", 77, "0000000a")
    one, two = block(1), block(2)
    sides.put(one, [*files_of(one), shared])
    sides.snapshot.add_block(two, files_of(two))
    sides.snapshot.add_replica(two, NODE)
    sides.snapshot.add_replica(one, OTHER)
    for node in (NODE, OTHER):
        sides.sync(one, two, node=node)
    sides.root.attach_dids("cms", two, dids(shared[0]))
    sides.rucio.run_daemon("judge-evaluator")
    for name in (one, two):
        sides.snapshot.remove_replica(name, NODE)
    result = sweeping(sides, one, two)  # the first is elsewhere, the second nowhere: held for a person
    assert result.names.get("swept") == [one]
    assert shared[0] in sides.replicas()
    assert lfns(two) <= set(sides.replicas())


def test_two_sites_that_rely_on_each_other_keep_one_copy(sides: TwoSides) -> None:
    """One has looked and is paused; PhEDEx moves the block to it meanwhile, and the other site sweeps."""
    (name,) = at_both(sides, 1)
    sides.snapshot.remove_replica(name, NODE)
    others: list[Result] = []

    def meanwhile() -> None:
        sides.snapshot.add_replica(name, NODE)
        sides.snapshot.remove_replica(name, OTHER)
        others.append(sweeping(sides, name, node=OTHER))

    sweeping(sides, name, meddle=("delete_replicas", meanwhile))
    assert "swept" not in others[0].names  # it saw the announcement here
    assert lfns(name) <= set(sides.replicas(OTHER))
    assert sides.inside(name.partition("#")[0]) == {name}
    assert announced(sides) == []


def test_a_delete_without_an_answer_stays_announced_until_rucio_shows_its_end(sides: TwoSides) -> None:
    names = at_both(sides, 1, 2)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)

    for carried_out in (True, False):
        name = names[0] if carried_out else names[1]

        def gone(name: str = name, carried_out: bool = carried_out) -> None:
            if carried_out:
                sides.root.delete_replicas(NODE, dids(*lfns(name)))
            raise RucioError("Rucio: delete_replicas: no answer")

        with pytest.raises(RucioError, match="no answer"):
            sweeping(sides, name, meddle=("delete_replicas", gone))
        assert len(announced(sides)) == 1
        again = sweeping(sides, name)
        if carried_out:
            assert again.names == {"swept": [name]}
            sides.rucio.sql("DELETE FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%' RETURNING 1")
        else:
            assert again.counts["pending"] == 1
            assert lfns(name) <= set(sides.replicas())
            ((key,),) = announced(sides)
            value = json.loads(sides.root.list_rse_attributes(NODE)[key])
            sides.root.add_rse_attribute(NODE, key, json.dumps(value | {"at": 1}))  # an hour later
            assert sweeping(sides, name).names == {"swept": [name]}
            assert announced(sides) == []


def test_a_frozen_site_is_a_place_to_rely_on(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    sides.root.add_rse_attribute(OTHER, "phedex_sync", "frozen")
    sides.snapshot.remove_replica(name, NODE)
    assert sweeping(sides, name).names == {"swept": [name]}
    assert lfns(name) <= set(sides.replicas(OTHER))


def test_a_large_block_goes_in_parts_each_looked_at_by_itself(sides: TwoSides) -> None:
    name = sides.put(block(1), files_of(block(1), 45))
    sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        sides.sync(name, node=node)
    sides.snapshot.remove_replica(name, NODE)
    result = sweeping(sides, name, sweep_files=20)
    assert (result.names, result.counts["files_removed"], sides.replicas()) == ({"swept": [name]}, 45, {})
    assert len(sides.replicas(OTHER)) == 45


def test_a_replica_that_went_by_another_hand_is_no_sweep(sides: TwoSides) -> None:
    """A kept block, and one that came back, stay under their rules though a replica is missing."""
    names = at_both(sides, 1, 2)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    waits = Site(removal_grace=3600, max_removal_share=1)
    until = datetime.now(UTC) + timedelta(minutes=30)
    assert sides.sync(*names, world=sides.world(site=waits), removable_until=until).counts["marked"] == 2
    for name in names:
        sides.root.delete_replicas(NODE, dids(files_of(name)[0][0]))
    assert undone(sides, names[0]) == "kept"
    sides.snapshot.add_replica(names[1], NODE)
    sweeping(sides, *names)
    rules = [rule for name in names for rule in sides.rules(name) if rule["rse_expression"] == NODE]
    assert [rule["expires_at"] for rule in rules] == [None, None]
    assert "phedex_gone_since" not in "".join(str(rule["meta"]) for rule in rules)


class Slow(Meddled):
    """Rucio, where no request that is to be sent in time is."""

    def call_by(self, limit: float, verb: str, *args: Any, **options: Any) -> Any:
        raise TooLate(sent=False)


def stepping_back(sides: TwoSides, name: str) -> Result:
    """A sweep that has said what it is about to do, and finds each time that it is too late for that."""
    world = sides.world(site=AT_ONCE)
    rucio: Any = Slow(world.rucio, "", lambda: None)
    until = datetime.now(UTC) + timedelta(minutes=30)
    return sides.sync(name, world=replace(world, rucio=rucio), removable_until=until, controls=[ANCHOR])


class Killed(BaseException):
    """In place of the end of a process."""


def killed() -> None:
    raise Killed


def marked(sides: TwoSides, number: int) -> str:
    """A block at two sites that has left the first, and is marked there."""
    (name,) = at_both(sides, number)
    sides.snapshot.remove_replica(name, NODE)
    until = datetime.now(UTC) + timedelta(minutes=30)
    assert sides.sync(name, world=sides.world(site=WAITS), removable_until=until).counts["marked"] == 1
    return name


def rule_here(sides: TwoSides, name: str) -> dict[str, Any]:
    return next(rule for rule in sides.rules(name) if rule["rse_expression"] == NODE)


def join(sides: TwoSides, name: str) -> None:
    """A file joins the block that has no replica at the first site."""
    file = "/store/data/joined.root"
    sides.root.add_replicas(OTHER, [{"scope": "cms", "name": file, "bytes": 5, "adler32": "00000005"}])
    sides.root.attach_dids("cms", name, dids(file))


@pytest.mark.parametrize("how", ["slow", "killed"])
@pytest.mark.parametrize("lost", ["before", "after", "joined"])
def test_a_sweep_that_sent_nothing_has_not_begun(sides: TwoSides, how: str, lost: str) -> None:
    """Whatever is missing here for another reason: the block is kept, and its rule stays where PhEDEx has it back."""
    names = [marked(sides, 1), marked(sides, 2)]
    for name in names:
        one, other = files_of(name)[0][0], files_of(name)[1][0]
        if lost == "before":
            sides.root.delete_replicas(NODE, dids(one))
        if how == "slow":
            assert stepping_back(sides, name).counts["pending"] == 1
            assert "phedex_sweeping" not in str(rule_here(sides, name)["meta"])
        else:
            with pytest.raises(Killed):
                sweeping(sides, name, meddle=("delete_replicas", killed))
            assert "phedex_sweeping" in str(rule_here(sides, name)["meta"])
        if lost == "after":
            sides.root.delete_replicas(NODE, dids(other))
        if lost == "joined" and name == names[0]:
            join(sides, name)
    there = set(sides.replicas())
    assert undone(sides, names[0]) == "kept"
    sides.snapshot.add_replica(names[1], NODE)
    sweeping(sides, *names)
    assert [rule_here(sides, name)["expires_at"] for name in names] == [None, None]
    assert set(sides.replicas()) >= there


def test_a_sweep_that_was_killed_is_done_by_the_next(sides: TwoSides) -> None:
    """Also where the file that it named first is somebody else's by then, and that one dies after its delete."""
    name = marked(sides, 1)
    with pytest.raises(Killed):
        sweeping(sides, name, meddle=("delete_replicas", killed))
    first = min(lfns(name))
    sides.root.add_replication_rule(dids(first), 1, NODE, account="jdoe")
    with pytest.raises(Killed):
        sweeping(sides, name, meddle=("update_replication_rule", killed), after="delete_replicas")
    assert set(sides.replicas()) == {first}
    assert undone(sides, name) == "swept"
    assert sweeping(sides, name).names == {"swept": [name]}


def test_after_a_detach_there_is_only_forward(sides: TwoSides) -> None:
    """A block that is nowhere: its files left it before their replicas go, so a keep would keep nothing."""
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.remove_replica(name, NODE)
    site = Site(removal_grace=0, max_removal_share=1, hold_nowhere=False)
    until = datetime.now(UTC) + timedelta(minutes=30)
    world = sides.world(site=site)
    rucio: Any = Meddled(world.rucio, "delete_replicas", killed)
    with pytest.raises(Killed):
        sides.sync(name, world=replace(world, rucio=rucio), removable_until=until, controls=[ANCHOR])
    assert (sides.inside(name), set(sides.replicas())) == (set(), lfns(name))
    assert undone(sides, name) == "swept"


def test_a_detach_that_comes_too_late_is_not_sent(sides: TwoSides, stopped: Action) -> None:
    """What is gone everywhere is detached first: not after a pause in which somebody took hold of it."""
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.remove_replica(name, NODE)
    site = Site(removal_grace=0, max_removal_share=1, hold_nowhere=False)
    made = sides.world(site=site)
    changed = msgspec.structs.replace(sides.main, sweep_within=300)
    made.rucio.main = changed

    def pause() -> None:
        stopped()
        sides.root.add_replication_rule(dids(name), 1, NODE, account="jdoe")

    rucio: Any = Meddled(made.rucio, "detach_dids", pause)
    world = replace(made, rucio=rucio, settings=Settings(main=changed, default=site))
    until = datetime.now(UTC) + timedelta(minutes=30)
    result = sides.sync(name, world=world, removable_until=until, controls=[ANCHOR])
    assert (sides.inside(name), set(sides.replicas())) == (lfns(name), lfns(name))
    assert result.counts["foreign"] == 3


def test_a_file_of_somebody_elses_scope_in_our_block_is_his(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    sides.root.add_scope("jdoe", "user.jdoe")
    his = {"scope": "user.jdoe", "name": "/store/user/jdoe/x.root"}
    for rse in (NODE, OTHER):
        sides.root.add_replicas(rse, [{**his, "bytes": 7, "adler32": "00000007"}])
    sides.root.add_replication_rule([his], 1, NODE, account="jdoe")
    sides.root.attach_dids("cms", name, [his])
    sides.rucio.run_daemon("judge-evaluator")
    sides.snapshot.remove_replica(name, NODE)
    sweeping(sides, name)
    assert his["name"] in sides.replicas()
    assert not lfns(name) & sides.replicas().keys()


def test_where_rucio_is_slow_fewer_files_are_looked_at_at_once(sides: TwoSides) -> None:
    """A look at much grows too old before its delete is sent; one at little does not."""
    names = at_both(sides, *range(8))
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    made = sides.world(site=AT_ONCE)
    rucio, looked = made.rucio, []

    class Slow:
        def __getattr__(self, verb: str) -> Any:
            return getattr(rucio, verb)

        def call_by(self, limit: float, verb: str, *args: Any, **options: Any) -> Any:
            files = len(args[1])
            looked.append(files)
            if files > 12:
                raise TooLate(sent=False)
            return rucio.call_by(limit, verb, *args, **options)

    door: Any = Slow()
    until = datetime.now(UTC) + timedelta(minutes=30)
    result = sides.sync(*names, world=replace(made, rucio=door), removable_until=until)
    assert (result.names, sides.replicas()) == ({"swept": names}, {})
    assert max(looked) == 24


@pytest.mark.parametrize("on", ["the block, file by file", "the dataset, file by file", "a dataset of his", "a file"])
def test_whoever_makes_a_rule_while_a_block_goes_is_told(sides: TwoSides, on: str) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    sides.root.add_scope("jdoe", "user.jdoe")
    his = {"scope": "user.jdoe", "name": "/His/His-v1/USER"}
    sides.root.add_dataset(**his)
    sides.root.attach_dids(*his.values(), dids(file))
    what, grouping = {
        "the block, file by file": (dids(name), "NONE"),
        "the dataset, file by file": (dids(DATASET), "NONE"),
        "a dataset of his": ([his], "DATASET"),
        "a file": (dids(file), "DATASET"),
    }[on]
    sides.snapshot.remove_replica(name, NODE)

    def rule() -> None:
        sides.root.add_replication_rule(what, 1, NODE, account="jdoe", grouping=grouping)

    result = sweeping(sides, name, meddle=("delete_replicas", rule))
    assert (result.counts["swept"], result.counts["hit"]) == (1, 1)
    assert any("of jdoe was made while its replicas went" in note for note in result.notes)


def test_what_is_gone_everywhere_stays_for_whoever_waits_for_it(sides: TwoSides) -> None:
    """The one source of a colleague's transfer: his rule is at another RSE, where it has no replica yet."""
    name = sides.put(block(1))
    sides.sync(name)
    (rule,) = sides.root.add_replication_rule(dids(name), 1, OTHER, account="jdoe", ignore_availability=True)
    time.sleep(1.1)  # a rule's time has no fractions, and the deletion is to be later
    sides.snapshot.remove_replica(name, NODE)
    kept = sweeping(sides, name, site=FREE)
    assert kept.counts["kept_last_copy"] == 1
    assert any(f"rule {rule} of jdoe ({OTHER}) wants it" in note for note in kept.notes)
    assert set(sides.replicas()) == lfns(name)
    sides.root.delete_replication_rule(rule, purge_replicas=False)
    sides.rucio.sql("UPDATE rules SET expires_at = created_at WHERE account = 'jdoe' RETURNING id")
    sides.rucio.run_daemon("judge-cleaner")
    assert sweeping(sides, name, site=FREE).counts["swept"] == 1


def test_block_replicas_that_lack_a_block_are_no_proof_while_its_files_are_listed(
    sides: TwoSides, tmp_path: Path
) -> None:
    """There is even word of a deletion: of before the block was back, which nobody has seen."""
    name = sides.put(block(1))
    sides.sync(name)
    time.sleep(1.1)  # as above
    sides.snapshot.remove_replica(name, NODE)
    sides.snapshot.add_replica(name, NODE, subscribed=False)
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"call": "blockreplicas", "kind": "missing_block", "value": "Primary"}]))
    with running(sides.snapshot.path, faults) as url:
        lied_to = replace(sides, main=msgspec.structs.replace(sides.main, phedex_url=url))
        results = [sweeping(lied_to, name, site=FREE) for _ in range(2)]
    assert set(sides.replicas()) == lfns(name)
    assert [result.counts.get("swept") for result in results] == [None, None]
    sides.snapshot.remove_replica(name, NODE)
    assert sweeping(sides, name, site=FREE).counts["swept"] == 1


def test_a_block_whose_files_are_listed_is_known_whatever_the_catalogue_says(sides: TwoSides, tmp_path: Path) -> None:
    """`blockreplicas` and `data` leave it out alike, and the settings let go what PhEDEx does not know."""
    name = sides.put(block(1))
    sides.sync(name)
    faults = tmp_path / "faults.json"
    lies = [{"call": call, "kind": "missing_block", "value": "Primary"} for call in ("blockreplicas", "data")]
    faults.write_text(json.dumps(lies))
    unknown = Site(removal_grace=0, max_removal_share=1, hold_unknown=False)
    with running(sides.snapshot.path, faults) as url:
        lied_to = replace(sides, main=msgspec.structs.replace(sides.main, phedex_url=url))
        results = [sweeping(lied_to, name, site=unknown) for _ in range(2)]
    assert set(sides.replicas()) == lfns(name)
    assert [result.counts.get("kept_last_copy") for result in results] == [1, 1]
    sides.snapshot.remove_block(name)
    assert [sweeping(sides, name, site=unknown).counts.get("swept") for _ in range(2)] == [1, None]


def test_a_node_on_tape_is_one_whatever_its_rse_is_called(sides: TwoSides) -> None:
    """The plan holds what would leave it; a batch of another moment asks for itself."""
    node = "T1_IT_CNAF_Buffer"
    make_site(sides.rucio, node)
    sides.snapshot.add_node(node)
    name = sides.put(block(1), node=node)
    sides.snapshot.add_replica(name, OTHER)
    for each in (node, OTHER):
        sides.sync(name, node=each)
    sides.snapshot.remove_replica(name, node)
    result = sweeping(sides, name, node=node)
    assert set(sides.replicas(node)) == lfns(name)
    assert result.notes == [f"{name}: moved: not marked before a person approves it"]


# --- what somebody else needs -----------------------------------------------------------------------------------------

HIS = {"scope": "user.jdoe", "name": "/His/His-v1/USER"}


def made_his(sides: TwoSides, *files: str) -> None:
    """The files are in a dataset of his too."""
    sides.root.add_scope("jdoe", HIS["scope"])
    sides.root.add_dataset(**HIS)
    sides.root.attach_dids(*HIS.values(), dids=dids(*files))


def at_state(sides: TwoSides, file: str, node: str, state: str) -> None:
    sides.rucio.sql(
        "UPDATE replicas SET state = %s WHERE name = %s AND rse_id = (SELECT id FROM rses WHERE rse = %s) RETURNING 1",
        (state, file, node),
    )


def deleted_everywhere(sides: TwoSides, name: str, *nodes: str) -> None:
    time.sleep(1.1)  # PhEDEx tells whole seconds: the deletion is later than the rules
    for node in nodes:
        sides.snapshot.remove_replica(name, node)


@pytest.mark.parametrize("state", ["B", "T", "U"])
@pytest.mark.parametrize("whose", ["his", "ours"])
def test_a_replica_that_nobody_can_read_is_no_copy_for_whoever_needs_the_file(
    sides: TwoSides, state: str, whose: str
) -> None:
    """A colleague's dataset, or another block of this sync, whose one other replica is bad."""
    name = sides.put(block(1))
    sides.sync(name)
    file, size, adler = files_of(name)[0]
    sides.root.add_replicas(OTHER, [{"scope": "cms", "name": file, "bytes": size, "adler32": adler}])
    if whose == "his":
        made_his(sides, file)
    else:
        sides.root.add_dataset("cms", block(2))
        sides.root.attach_dids("cms", block(2), dids(file))
    at_state(sides, file, OTHER, state)
    deleted_everywhere(sides, name, NODE)
    result = sweeping(sides, name, site=FREE)
    assert set(sides.replicas()) == lfns(name)
    assert result.counts["kept_last_copy"] == 1
    at_state(sides, file, OTHER, "A")
    assert sweeping(sides, name, site=FREE).counts["swept"] == 1


@pytest.mark.parametrize("need", ["a dataset", "a transfer"])
def test_two_sites_at_once_leave_one_copy_of_what_somebody_needs(sides: TwoSides, need: str) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    if need == "a dataset":
        made_his(sides, file)
    else:
        make_site(sides.rucio, THIRD)
        sides.root.set_local_account_limit("jdoe", THIRD, -1)
        sides.root.add_replication_rule(dids(file), 1, THIRD, account="jdoe", ignore_availability=True)
    deleted_everywhere(sides, name, NODE, OTHER)
    meanwhile: list[Result] = []
    sweeping(
        sides,
        name,
        site=FREE,
        meddle=("delete_replicas", lambda: meanwhile.append(sweeping(sides, name, node=OTHER, site=FREE))),
    )
    assert file in {*sides.replicas(), *sides.replicas(OTHER)}
    assert meanwhile
    for node in (NODE, OTHER):
        sweeping(sides, name, node=node, site=FREE)
    assert file in {*sides.replicas(), *sides.replicas(OTHER)}


def test_two_sites_in_two_threads_leave_one_copy_of_what_somebody_needs(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    made_his(sides, *sorted(lfns(name)))
    deleted_everywhere(sides, name, NODE, OTHER)
    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda node: sweeping(sides, name, node=node, site=FREE), (NODE, OTHER)))
    assert lfns(name) <= {*sides.replicas(), *sides.replicas(OTHER)}


@pytest.mark.parametrize("what", [{"availability_read": False}, {"volatile": True}])
def test_a_place_that_cannot_be_relied_on_is_none(sides: TwoSides, what: dict[str, bool]) -> None:
    (name,) = at_both(sides, 1)
    sides.root.update_rse(OTHER, what)
    sides.snapshot.remove_replica(name, NODE)
    assert sweeping(sides, name).counts["kept_last_copy"] == 1
    assert set(sides.replicas()) == lfns(name)


def test_a_second_rule_of_ours_that_ends_later_holds_the_files_until_then(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    (rule,) = sides.root.add_replication_rule(
        dids(name), 1, f"rse={NODE}", account="sync_t2_it_pisa", lifetime=86_400 * 3
    )
    sides.snapshot.remove_replica(name, NODE)
    result = sweeping(sides, name)
    assert set(sides.replicas()) == lfns(name)
    assert any(f"had its rule {rule} end at" in note for note in result.notes)


@pytest.mark.parametrize("then", ["undo", "back"])
def test_one_named_file_that_went_by_another_hand_is_no_sweep(sides: TwoSides, then: str) -> None:
    """A worker died between the note and the delete; then an operator lost one of the files that the rule names."""
    name = marked(sides, 1)
    with pytest.raises(Killed):
        sweeping(sides, name, meddle=("delete_replicas", killed))
    sides.root.delete_replicas(NODE, dids(min(lfns(name))))
    if then == "undo":
        sides.rucio.sql("DELETE FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%' RETURNING 1")
        assert undone(sides, name) == "kept"
        return
    sides.rucio.sql("DELETE FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%' RETURNING 1")
    sides.snapshot.add_replica(name, NODE)
    sides.sync(name)
    assert rule_here(sides, name)["expires_at"] is None
    assert "phedex_gone_since" not in str(rule_here(sides, name)["meta"])


def test_a_block_that_is_custodial_since_its_mark_was_approved_is_asked_again(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    left = [lfn for lfn, *_ in files_of(name)[:2]]
    sides.snapshot.set_replica_files(name, NODE, left)
    asked: dict[str, Any] = {"removable_until": datetime.now(UTC) + timedelta(minutes=30), "controls": [ANCHOR]}
    sides.sync(name, world=sides.world(site=WAITS), **asked)
    time.sleep(0.01)  # a code tells milliseconds
    code = approvals.code_of(datetime.now(UTC), approvals.scope_of(NODE, "*"))
    sides.sync(name, world=sides.world(site=WAITS), approved=code, approved_for="*", **asked)
    assert code in str(rule_here(sides, name)["meta"])
    sides.snapshot.add_replica(name, NODE, left, custodial=True)
    result = sweeping(sides, name)
    assert result.notes == [f"{name}: incomplete, custodial: not swept before a person approves it"]
    sides.sync(name, held_since=datetime.now(UTC), held_why="incomplete", **asked)  # as a plan has it put on record
    assert code not in str(rule_here(sides, name)["meta"])
    sides.sync(name, world=sides.world(site=AT_ONCE), approved=code, approved_for="*", **asked)  # it is of before
    assert set(sides.replicas()) == lfns(name)
    time.sleep(0.01)
    code = approvals.code_of(datetime.now(UTC), approvals.scope_of(NODE, "*"))
    swept = sides.sync(name, world=sides.world(site=AT_ONCE), approved=code, approved_for="*", **asked)
    assert swept.counts["swept"] == 1


def test_a_process_that_was_stopped_before_it_wrote_into_a_rule_writes_nothing(
    sides: TwoSides, stopped: Action
) -> None:
    """Meanwhile the block was back, its mark forgotten, and a person keeps it: nothing of that may be erased."""
    name = marked(sides, 1)
    kept: list[str] = []

    def pause() -> None:
        sides.snapshot.add_replica(name, NODE)
        sides.sync(name)
        sides.snapshot.remove_replica(name, NODE)
        sweeping(sides, name, site=WAITS)  # marked anew
        kept.append(undone(sides, name))
        stopped()

    sides.snapshot.add_replica(name, NODE)
    world = sides.world(site=WAITS)
    with pytest.raises(RucioConflict, match="it took too long between reading the rule and writing it: read again"):
        sides.sync(name, world=replace(world, rucio=Meddled(world.rucio, "update_replication_rule", pause)))
    assert kept == ["kept"]
    assert "kept" in str(rule_here(sides, name)["comments"])
    assert sweeping(sides, name).counts.get("swept", 0) == 0


def test_a_mark_whose_sweep_came_to_begin_since_it_was_read_is_not_forgotten(sides: TwoSides) -> None:
    name = marked(sides, 1)
    with pytest.raises(Killed):
        sweeping(sides, name, meddle=("delete_replicas", killed))
    rucio, row = sides.world().rucio, rule_here(sides, name)
    site = find_site(rucio, NODE, Site())
    assert site is not None
    rule = rule_of(row, site)
    assert rule.begun
    assert not rules.unmark(rucio, msgspec.structs.replace(rule, begun=False))
    assert not rules.unmark(rucio, msgspec.structs.replace(rule, gone_since=5))  # marked anew since it was read
    assert rule_here(sides, name)["meta"] == row["meta"]
    assert rules.unmark(rucio, rule)
    rucio.close()
