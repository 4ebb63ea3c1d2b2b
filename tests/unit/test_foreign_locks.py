"""Which files of a block does somebody else hold at an RSE? Over the model that the real server holds to its word."""

from __future__ import annotations

from typing import Any

import pytest

from common.rucio import replicas, rules
from common.rucio.rses import Site, Switch
from common.rucio.session import Rucio
from common.settings.model import Main
from consumers.apply import foreign_locks
from tests.model.rucio_model import RucioModel

A, B, C = "T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY"
DATASET = "/Primary/Run2018A-v1/AOD"
BLOCK, OTHER = f"{DATASET}#1", f"{DATASET}#2"
ONE, TWO, THREE = (f"/store/{n}.root" for n in (1, 2, 3))
OURS, FORMER, COLLEAGUE = "sync_t2_it_pisa", "transfer_ops", "jdoe"
SITE = Site(A, OURS, (OURS, FORMER), Switch.ON, A)


class World:
    """A block of two files and one of one file, at two RSEs, each under our rule at the first."""

    def __init__(self) -> None:
        self.model = RucioModel(rses={rse: {"pnn": rse} for rse in (A, B, C)})
        self.rucio = Rucio(Main())
        self.rucio._client = self.model
        self.model.add_container("cms", DATASET)
        for block, files in ((BLOCK, (ONE, TWO)), (OTHER, (THREE,))):
            self.model.add_dataset("cms", block)
            self.attach(DATASET, block)
            for rse in (A, B):
                self.model.add_replicas(rse, [self.did(file) | {"bytes": 1, "adler32": "1" * 8} for file in files])
            self.attach(block, *files)
            self.rule(block, A, account=OURS)
        self.model.judge()

    @staticmethod
    def did(name: str, scope: str = "cms") -> dict[str, Any]:
        return {"scope": scope, "name": name}

    def attach(self, parent: str, *names: str, scope: str = "cms") -> None:
        self.model.attach_dids(scope, parent, [self.did(name) for name in names])

    def rule(self, name: str, rse: str, *, account: str = COLLEAGUE, scope: str = "cms", **fields: Any) -> str:
        (made,) = self.model.add_replication_rule([self.did(name, scope)], 1, rse, account=account, **fields)
        return made

    def held(self, *blocks: str) -> dict[str, set[str]]:
        """The files that others hold, of blocks that are looked at together."""
        files = {
            block: replicas.standing(self.rucio, [one["name"] for one in self.model.list_content("cms", block)])
            for block in blocks
        }
        rows = {block: list(rules.of_dataset(self.rucio, block)) for block in blocks}
        return foreign_locks.held(self.rucio, SITE, files, rows, rules.locks(self.rucio, blocks))

    def mine(self, *files: str, name: str = "/Mine/Mine-v1/USER", scope: str = "user.jdoe") -> str:
        """A dataset of the colleague's with some files."""
        self.model.add_dataset(scope, name)
        self.attach(name, *files, scope=scope)
        return name


@pytest.fixture
def world() -> World:
    return World()


def test_nobody_else_holds_anything(world: World) -> None:
    assert world.held(BLOCK, OTHER) == {BLOCK: set(), OTHER: set()}


@pytest.mark.parametrize("name", [BLOCK, DATASET])
@pytest.mark.parametrize("expression", [A, f"rse={A}", f"pnn={A}", f"{A}|{C}"])
def test_a_rule_on_the_block_or_what_it_is_in_holds_all_of_it(world: World, name: str, expression: str) -> None:
    world.rule(name, expression)
    assert world.held(BLOCK)[BLOCK] == {ONE, TWO}


@pytest.mark.parametrize("name", [BLOCK, DATASET, ONE])
@pytest.mark.parametrize("expression", [B, f"rse={B}", f"{B}|{C}"])
def test_a_rule_elsewhere_holds_nothing_here(world: World, name: str, expression: str) -> None:
    world.rule(name, expression)
    assert world.held(BLOCK, OTHER) == {BLOCK: set(), OTHER: set()}


@pytest.mark.parametrize("expression", [A, f"{A}|{C}"])
def test_a_rule_on_a_file_holds_that_file(world: World, expression: str) -> None:
    world.rule(TWO, expression)
    assert world.held(BLOCK, OTHER) == {BLOCK: {TWO}, OTHER: set()}


@pytest.mark.parametrize("scope", ["cms", "user.jdoe"])
@pytest.mark.parametrize("expression", [A, f"pnn={A}"])
def test_a_rule_on_a_dataset_of_his_holds_the_files_that_it_shares(world: World, scope: str, expression: str) -> None:
    name = world.mine(ONE, THREE, scope=scope)
    assert world.held(BLOCK, OTHER) == {BLOCK: set(), OTHER: set()}  # a dataset without a rule holds nothing
    world.rule(name, expression, scope=scope)
    assert world.held(BLOCK, OTHER) == {BLOCK: {ONE}, OTHER: {THREE}}


def test_a_dataset_is_asked_for_in_its_own_scope(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.mine(ONE)
    asked: list[tuple[str, str]] = []
    rules_of = world.model.list_did_rules

    def noted(scope: str, name: str) -> Any:
        asked.append((scope, name))
        return rules_of(scope, name)

    monkeypatch.setattr(world.model, "list_did_rules", noted)
    world.held(BLOCK)
    assert sorted(asked) == [("cms", DATASET), ("cms", BLOCK), ("user.jdoe", "/Mine/Mine-v1/USER")]


def test_a_rule_on_a_container_of_his_dataset_holds_the_files_too(world: World) -> None:
    mine = world.mine(TWO)
    world.model.add_container("user.jdoe", "/His/Box-v1/USER")
    world.model.attach_dids("user.jdoe", "/His/Box-v1/USER", [world.did(mine, "user.jdoe")])
    world.rule("/His/Box-v1/USER", A, scope="user.jdoe")
    assert world.held(BLOCK) == {BLOCK: {TWO}}


def test_one_rule_may_have_the_block_and_a_file_of_it_at_different_rses(world: World) -> None:
    """The dataset's lock is elsewhere, and a file of it is locked here by way of another dataset."""
    shared = world.mine(ONE, scope="cms", name="/Mine/Mine-v1/USER#1")
    world.model.add_container("cms", "/His/Box-v1/USER")
    world.attach("/His/Box-v1/USER", BLOCK, shared)
    rule = world.model.rules[world.rule("/His/Box-v1/USER", f"{A}|{B}")]
    rule.datasets = {(B, BLOCK), (A, shared)}
    rule.held = {ONE: {A: "O"}, TWO: {B: "O"}}
    assert world.held(BLOCK) == {BLOCK: {ONE}}


@pytest.mark.parametrize("most", [foreign_locks.MANY_LOCKS, 2, 1, 0])
def test_a_rule_with_many_locks_is_asked_file_by_file(world: World, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_locks, "MANY_LOCKS", most)
    world.mine(ONE, TWO)
    rule = world.model.rules[world.rule("/Mine/Mine-v1/USER", f"{A}|{B}", scope="user.jdoe")]
    rule.held = {ONE: {A: "O"}}
    asked: list[str] = []
    for verb in ("list_replica_locks", "list_associated_rules_for_file"):
        monkeypatch.setattr(world.model, verb, _noted(asked, verb, getattr(world.model, verb)))
    assert world.held(BLOCK) == {BLOCK: {ONE}}
    assert asked == (["list_replica_locks"] if most >= 2 else ["list_associated_rules_for_file"] * 2)


def _noted(asked: list[str], verb: str, call: Any) -> Any:
    def noted(*args: Any) -> Any:
        asked.append(verb)
        return call(*args)

    return noted


@pytest.mark.parametrize("state", ["O", "R", "S"])
def test_a_lock_counts_whatever_its_state(world: World, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are counted: a rule of three locks, one of each, is one of more than two."""
    monkeypatch.setattr(foreign_locks, "MANY_LOCKS", 1)
    world.mine(ONE, TWO)
    rule = world.model.rules[world.rule("/Mine/Mine-v1/USER", f"{A}|{B}", scope="user.jdoe")]
    rule.counts.clear()
    rule.counts[state] = 2
    rule.held = {TWO: {A: state}}
    asked: list[str] = []
    verb = "list_associated_rules_for_file"
    monkeypatch.setattr(world.model, verb, _noted(asked, verb, getattr(world.model, verb)))
    assert world.held(BLOCK) == {BLOCK: {TWO}}
    assert asked


def test_our_own_rule_on_another_block_holds_a_file_that_both_have(world: World) -> None:
    world.attach(OTHER, ONE)
    world.model.judge()
    assert world.held(BLOCK) == {BLOCK: {ONE}}
    assert world.held(BLOCK, OTHER) == {BLOCK: {ONE}, OTHER: {ONE}}


@pytest.mark.parametrize("account", [OURS, FORMER])
@pytest.mark.parametrize(
    ("begun", "seconds", "held"),
    [(True, 0, False), (True, 3600, True), (True, None, True), (False, 0, True), (False, 3600, True)],
)
def test_our_own_rule_that_a_sweep_ended_holds_nothing(
    world: World, account: str, begun: bool, seconds: int | None, held: bool
) -> None:
    """One that somebody gave an end does, until then: PhEDEx has that block still."""
    world.attach(OTHER, ONE)
    world.model.judge()
    (rule,) = (rule for rule in world.model.rules.values() if rule.name == OTHER)
    rule.account, rule.meta = account, {"phedex_sweeping": 1} if begun else None
    world.model.update_replication_rule(rule.id, {"lifetime": seconds})
    assert world.held(BLOCK) == {BLOCK: {ONE} if held else set()}


@pytest.mark.parametrize("ending", [False, True])
def test_his_rule_that_ends_still_holds_what_it_holds(world: World, ending: bool) -> None:
    rule = world.rule(ONE, A, lifetime=3600 if ending else None)
    assert (world.model.rules[rule].ends, world.held(BLOCK)[BLOCK]) == (ending, {ONE})


def test_all_our_rules_on_the_block_are_ours_those_of_before_too(world: World) -> None:
    world.rule(BLOCK, f"rse={A}", account=FORMER)
    assert world.held(BLOCK) == {BLOCK: set()}


def test_a_rule_under_the_former_name_of_the_rse_counts_by_its_locks(world: World) -> None:
    rule = world.model.rules[world.rule(TWO, A)]
    rule.expression = "T2_IT_Pisa_Old"  # Rucio knows no such RSE any more; the lock moved with it
    assert world.held(BLOCK) == {BLOCK: {TWO}}
    rule.expression = "rse=T2_IT_Pisa_Old"
    assert world.held(BLOCK) == {BLOCK: {TWO}}


@pytest.mark.parametrize(
    ("expression", "may"),
    [
        (A, True),
        (f"rse={A}", True),
        (B, False),
        (f"rse={B}", False),
        (f"{B}|{C}", True),
        (f"{B}\\{C}", True),
        ("*", True),
        ("tier=2", True),
        (f"{B} ", True),
        (f"{B}\n", True),
        ("T2_US_MIT-x", True),
        ("", True),
    ],
)
def test_what_is_plainly_one_other_rse(expression: str, may: bool) -> None:
    assert foreign_locks.may_be_at(A, expression) is may


def test_a_rule_of_somebody_elses_that_says_it_was_swept_is_his_all_the_same(world: World) -> None:
    rule = world.rule(ONE, A, meta='{"phedex_sweeping": 1}', lifetime=0)
    assert world.model.rules[rule].ends
    assert world.held(BLOCK) == {BLOCK: {ONE}}


def test_a_rule_that_places_each_file_by_itself_has_no_lock_on_the_block(world: World) -> None:
    world.rule(BLOCK, A, grouping="NONE")
    assert [lock.account for lock in rules.locks(world.rucio, [BLOCK])] == [OURS]
    assert world.held(BLOCK) == {BLOCK: {ONE, TWO}}


def test_a_file_that_joined_counts_before_it_has_its_lock(world: World) -> None:
    """A rule that is plainly for this RSE is to have all of the files, and Rucio's evaluator may be behind."""
    rule = world.rule(DATASET, A, grouping="NONE")
    world.model.add_replicas(A, [world.did("/store/9.root") | {"bytes": 1, "adler32": "1" * 8}])
    world.attach(BLOCK, "/store/9.root")
    assert "/store/9.root" not in world.model.rules[rule].held
    assert world.held(BLOCK) == {BLOCK: {ONE, TWO, "/store/9.root"}}


def test_a_lock_counts_though_its_rule_came_after_the_rules_were_read(world: World) -> None:
    files = {BLOCK: replicas.standing(world.rucio, [ONE, TWO])}
    rows = {BLOCK: list(rules.of_dataset(world.rucio, BLOCK))}
    world.rule(BLOCK, A)
    locks = rules.locks(world.rucio, [BLOCK])
    assert foreign_locks.held(world.rucio, SITE, files, rows, locks) == {BLOCK: {ONE, TWO}}


def test_a_rule_on_the_block_counts_where_nobody_says_what_a_file_is_in(world: World) -> None:
    world.rule(BLOCK, A, grouping="NONE")
    files = {BLOCK: {ONE: replicas.Standing({A: "AVAILABLE"})}}
    rows = {BLOCK: list(rules.of_dataset(world.rucio, BLOCK))}
    assert foreign_locks.held(world.rucio, SITE, files, rows, []) == {BLOCK: {ONE}}


def test_a_rule_that_waits_for_approval_has_no_number_of_locks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_locks, "MANY_LOCKS", 0)
    monkeypatch.setattr(world.model, "list_associated_rules_for_file", lambda *_: pytest.fail("there is none"))
    row = {"id": world.rule(ONE, f"{A}|{B}"), "rse_expression": f"{A}|{B}", "locks_ok_cnt": None}
    assert foreign_locks.locked(world.rucio, A, row, {ONE}) == {ONE}


# --- whom the last copy would be missing to -------------------------------------------------------------------------


def wished(world: World) -> list[tuple[str, str, str]]:
    """Each block and file with who wants it."""
    files = {block: replicas.standing(world.rucio, some) for block, some in {BLOCK: [ONE, TWO], OTHER: [THREE]}.items()}
    rows = {block: list(rules.of_dataset(world.rucio, block)) for block in files}
    found = foreign_locks.wishes(world.rucio, files, rows, lambda row: row["account"] == OURS)
    return sorted((block, file, row["account"]) for block, file, row in found)


@pytest.mark.parametrize("rse", [A, B, C, f"{B}|{C}"])
def test_somebody_elses_rule_wants_its_files_wherever_it_is_for(world: World, rse: str) -> None:
    assert wished(world) == []
    world.rule(ONE, rse)
    assert wished(world) == [(BLOCK, ONE, COLLEAGUE)]


def test_a_rule_on_the_block_its_container_or_a_dataset_of_his_wants_what_is_in_it(world: World) -> None:
    world.rule(BLOCK, C)
    assert wished(world) == [(BLOCK, ONE, COLLEAGUE), (BLOCK, TWO, COLLEAGUE)]
    world.rule(DATASET, C, account="else")
    assert [one for one in wished(world) if one[2] == "else"] == [
        (BLOCK, ONE, "else"),
        (BLOCK, TWO, "else"),
        (OTHER, THREE, "else"),
    ]
    world.rule(world.mine(THREE), C, scope="user.jdoe", account="third")
    assert [one for one in wished(world) if one[2] == "third"] == [(OTHER, THREE, "third")]


def test_a_rule_on_the_block_wants_a_file_of_which_nobody_says_what_it_is_in(world: World) -> None:
    world.rule(BLOCK, C)
    files = {BLOCK: {ONE: replicas.Standing({A: "AVAILABLE"})}}
    rows = {BLOCK: list(rules.of_dataset(world.rucio, BLOCK))}
    found = foreign_locks.wishes(world.rucio, files, rows, lambda row: row["account"] == OURS)
    assert [(block, file, row["account"]) for block, file, row in found] == [(BLOCK, ONE, COLLEAGUE)]
