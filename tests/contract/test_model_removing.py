"""How things go: locks without replicas, tombstones, rules that end, replicas in other states, blocks that return."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.model.steps import (
    ACCOUNT,
    COLLEAGUE,
    Both,
    RuleOf,
    Step,
    X,
    Y,
    add,
    attach,
    both_sides,
    change,
    did,
    file,
    rule,
    step,
)
from tests.stack.rucio_server import RucioServer

BLOCK, OTHER, CONTAINER, SUPER = "/A/Run-v1/AOD#1", "/A/Run-v1/AOD#2", "/A/Run-v1/AOD", "/A/All-v1/AOD"
OURS, HIS = RuleOf(ACCOUNT, BLOCK), RuleOf(COLLEAGUE, BLOCK)


@pytest.fixture
def both(clean_rucio: RucioServer) -> Iterator[Both]:
    with both_sides(clean_rucio) as both:
        yield both


def block(*at: str) -> list[Step]:
    """Two files, in a block, in its container, in a container of that."""
    return [
        add("CONTAINER", CONTAINER, SUPER),
        add("DATASET", BLOCK, OTHER),
        *(attach(BLOCK, [file(1), file(2)], rse) for rse in at),
        attach(OTHER, [file(3)], X),
        attach(CONTAINER, [did(BLOCK), did(OTHER)]),
        attach(SUPER, [did(CONTAINER)]),
    ]


def delete(rse: str, *numbers: int) -> Step:
    return step("delete_replicas", rse, [file(n) for n in numbers])


def test_one_last_file_tears_its_block_out_of_all_containers(both: Both) -> None:
    """Also a block that has other files, and a container that has other blocks; locks on the file stay."""
    both.same(*block(X), rule([BLOCK], X), rule([SUPER], X, COLLEAGUE), delete(X, 1))
    assert (both.model.datasets[BLOCK], both.model.containers) == (
        {file(2)["name"]},
        {CONTAINER: {OTHER}, SUPER: set()},
    )
    both.judge()
    assert {name for _, _, name in both.model.locks_without_replica()} == {file(1)["name"]}
    both.same(attach(BLOCK, [file(1)], X), attach(CONTAINER, [did(BLOCK)]), attach(SUPER, [did(CONTAINER)]))
    both.judge()
    assert both.model.miscounted_replicas() == {(X, file(1)["name"])}
    both.same(step("detach_dids", "cms", BLOCK, [file(1)]))
    both.judge()
    both.same(step("detach_dids", "cms", SUPER, [did(CONTAINER)]))
    both.judge()
    assert both.model.miscounted_replicas() == {(X, file(1)["name"])}


def test_a_file_with_a_rule_of_its_own_cannot_lose_its_last_replica(both: Both) -> None:
    both.same(*block(X, Y), rule([file(1)["name"]], X, COLLEAGUE), delete(X, 1), delete(Y, 1, 2))
    both.same(delete(Y, 2), step("list_content", "cms", BLOCK))


def test_a_swept_block_that_returns(both: Both) -> None:
    """Under the old rule, by which it is counted wrongly for good, and after the cleaner."""
    both.same(*block(X, Y), rule([BLOCK], X), rule([BLOCK], Y), delete(X, 1, 2), change(OURS_AT_X, lifetime=0))
    both.same(attach(BLOCK, [file(1)], X))
    assert both.model.miscounted_replicas() == {(X, file(1)["name"])}
    both.judge()
    both.same(attach(BLOCK, [file(1), file(2)], X), rule([BLOCK], X))
    both.same(change(OURS_AT_X, lifetime=0))
    both.judge()
    assert both.model.tombstones == {(X, file(2)["name"])}  # the other one has counted none where it had one
    both.same(rule([BLOCK], X))
    assert both.model.tombstones == set()


class _AtX(RuleOf):
    def id(self, client: object) -> str:
        rows = client.list_did_rules("cms", BLOCK)  # type: ignore[attr-defined]
        return str(next(row["id"] for row in rows if row["rse_expression"] == X))


OURS_AT_X = _AtX(ACCOUNT, BLOCK)


def test_the_last_lock_leaves_a_tombstone_and_a_new_rule_clears_it(both: Both) -> None:
    both.same(*block(X), rule([BLOCK], X), rule([BLOCK], X, COLLEAGUE), change(OURS, lifetime=0))
    both.judge()
    assert both.model.tombstones == set()
    both.same(change(HIS, lifetime=0))
    both.judge()
    assert both.model.tombstones == {(X, file(1)["name"]), (X, file(2)["name"])}
    both.same(attach(BLOCK, [file(1)], X), step("add_replicas", X, [file(1)]), rule([file(1)["name"]], X))
    assert both.model.tombstones == {(X, file(2)["name"])}
    both.same(step("detach_dids", "cms", BLOCK, [file(2)]), delete(X, 2))
    both.judge()


def test_ends_locks_and_notes_of_a_rule(both: Both) -> None:
    look = step("get_replication_rule", OURS)
    gone = step("list_did_rules", "cms", BLOCK)
    both.same(*block(X), rule([BLOCK], X))
    for options in (
        {"comment": "y" * 250},
        {"comment": "y" * 256},
        {"comment": None},
        {"meta": '{"b": 2}'},
        {"meta": {"b": 2}},
        {"locked": True},
        {"nonsense": 1},
        {"lifetime": 0},
    ):
        both.same(change(OURS, **options), look)
    both.same(step("delete_replication_rule", OURS))
    both.judge()
    both.same(look, change(OURS, locked=False, lifetime=None), step("delete_replication_rule", OURS), look)
    both.judge()
    both.same(look)
    both.server.sql("UPDATE rules SET expires_at = expires_at - interval '1 hour'")
    both.model.ahead += both.model.rules[OURS.id(both.model)].expires_at - both.model.now()  # type: ignore[operator]
    both.judge()
    both.same(gone)


def test_tape_locks_by_itself(both: Both) -> None:
    both.same(*block(X), step("update_rse", X, {"rse_type": "TAPE"}), rule([BLOCK], X), change(OURS, lifetime=0))
    both.judge()
    both.same(change(OURS, locked=False))
    both.judge()
    both.same(step("list_did_rules", "cms", BLOCK), rule([BLOCK], X, lifetime=0))
    both.judge()
    assert both.model.rules == {}


def test_replicas_in_other_states(both: Both) -> None:
    look = step("list_replicas", [file(1), file(2), file(3)], all_states=True)
    some = step("list_replicas", [file(1), file(2), file(3)])
    both.same(*block(X, Y), rule([BLOCK], X))
    for state in ("U", "U", "A", "D", "A", "T", "A"):
        both.same(step("update_replicas_states", X, [{**file(1), "state": state}]), look, some, *WHOLE)
    both.same(step("update_replicas_states", Y, [{**file(n), "state": s} for n, s in ((1, "D"), (2, "U"))]), look)
    both.same(rule([BLOCK], Y, COLLEAGUE), look)
    assert both.model.transfers == both.transfers() == 1
    both.same(attach(BLOCK, [file(1), file(2)], Y), look)
    both.same(step("update_replicas_states", Y, [{**file(n), "state": "A"} for n in (1, 2)]), *WHOLE)
    both.same(step("update_replicas_states", X, [{**file(3), "state": "B"}]), look, some)
    assert both.model.available_copies(file(1)["name"]) == {X, Y}


WHOLE = [step("list_dataset_replicas", "cms", BLOCK, deep=True), step("list_did_rules", "cms", BLOCK)]


@pytest.mark.parametrize("seed", range(2))
def test_any_steps_leave_the_same(both: Both, seed: int) -> None:
    rng = random.Random(seed)
    both.same(add("CONTAINER", CONTAINER, SUPER), add("DATASET", BLOCK, OTHER))
    for _ in range(60):
        if rng.random() < 0.12:
            both.judge()
        else:
            both.same(_any_step(rng))


def _any_step(rng: random.Random) -> Step:
    some = [file(n, size=2**n) for n in rng.sample(range(1, 6), rng.randint(1, 2))]
    rse, dataset, account = rng.choice((X, Y)), rng.choice((BLOCK, OTHER)), rng.choice((ACCOUNT, COLLEAGUE))
    of = RuleOrNone(account, rng.choice((BLOCK, OTHER, CONTAINER, SUPER, some[0]["name"])))
    kinds = {
        "attach": attach(dataset, some, rse),
        "attach again": attach(dataset, some, rse),
        "join": attach(*rng.choice(((CONTAINER, [did(dataset)]), (SUPER, [did(CONTAINER)])))),
        "rule": rule([of.name], rse, account),
        "delete": step("delete_replicas", rse, some),
        "detach": step("detach_dids", "cms", dataset, some[:1]),
        "leave": step("detach_dids", "cms", CONTAINER, [did(dataset)]),
        "states": step("update_replicas_states", rse, [{**some[0], "state": rng.choice("AAUT")}]),
        "end": change(of, lifetime=0),
        "locked": change(of, locked=rng.random() < 0.3),
        "state": change(of, state=rng.choice(("STUCK", "SUSPENDED")), cancel_requests=rng.random() < 0.5),
    }
    return kinds[rng.choice(list(kinds))]


class RuleOrNone(RuleOf):
    """The first of the account's rules by RSE, or the id of none."""

    def id(self, client: object) -> str:
        rows = client.list_account_rules(self.account)  # type: ignore[attr-defined]
        found = sorted((row["rse_expression"], row["id"]) for row in rows if row["name"] == self.name)
        return found[0][1] if found else "0" * 32
