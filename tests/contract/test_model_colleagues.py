"""What others do with our files: rules of any account on anything, datasets of other scopes, rules on several RSEs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.rucio_model import BEGINNING
from tests.model.steps import (
    ACCOUNT,
    COLLEAGUE,
    THEIRS,
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

BLOCK, OTHER, CONTAINER = "/A/Run-v1/AOD#1", "/A/Run-v1/AOD#2", "/A/Run-v1/AOD"
MINE, BOX, BOXES = "/Jdoe/Run-v1/USER#1", "/Jdoe/Run-v1/USER", "/Jdoe/All-v1/USER"
BEFORE = "/A/Abc-v1/USER#1"  # Rucio goes through a container's datasets by name, and this comes before ours
FILES = range(1, 8)
COLLECTIONS = [did(BLOCK), did(OTHER), did(CONTAINER), did(MINE, THEIRS), did(BOX, THEIRS), did(BOXES, THEIRS)]

LOOKS = [
    step("get_locks_for_dids", [{**did(name), "type": "dataset"} for name in (BLOCK, OTHER)]),
    *(step("get_locks_for_dids", [{**one, "type": "container"}]) for one in (COLLECTIONS[2], *COLLECTIONS[4:])),
    *(step("list_did_rules", one["scope"], one["name"]) for one in COLLECTIONS),
    *(step("list_content", one["scope"], one["name"]) for one in COLLECTIONS),
    *(step("list_parent_dids", one["scope"], one["name"]) for one in (*COLLECTIONS, *map(file, FILES))),
    *(step("list_associated_rules_for_file", "cms", file(n)["name"]) for n in FILES),
    step("list_replication_rules", {"scope": "cms", "did_type": "F"}),
    step("list_replication_rules", {"account": COLLEAGUE, "rse_expression": X}),
    step("list_account_rules", COLLEAGUE),
    step("list_replicas", [file(n) for n in FILES], all_states=True, resolve_parents=True),
    step("list_replicas", [file(n) for n in FILES]),
    step("list_dids", THEIRS, {"name": "/J*"}, did_type="dataset"),
]
WORLD = [
    add("CONTAINER", CONTAINER),
    add("DATASET", BLOCK, OTHER),
    attach(BLOCK, [file(1), file(2)], X),
    attach(BLOCK, [file(1), file(2)], Y),
    attach(OTHER, [file(3), file(4)], X),
    attach(CONTAINER, [did(BLOCK), did(OTHER)]),
    rule([BLOCK, OTHER], X),
    add("CONTAINER", BOX, BOXES, scope=THEIRS),
    step("add_dataset", THEIRS, MINE),
    step("add_dataset", THEIRS, MINE),
    step("attach_dids", THEIRS, MINE, [did(file(n)["name"]) for n in (1, 3)]),
    step("attach_dids", THEIRS, MINE, [did(file(n)["name"]) for n in (1, 3)]),
    attach(BOX, [did(BLOCK), did(MINE, THEIRS)], scope=THEIRS),
    attach(BOXES, [did(BOX, THEIRS), did(CONTAINER)], scope=THEIRS),
]


@pytest.fixture
def both(clean_rucio: RucioServer) -> Iterator[Both]:
    with both_sides(clean_rucio) as both:
        yield both


def locks(name: str, scope: str = "cms", account: str = COLLEAGUE) -> Step:
    return step("list_replica_locks", RuleOf(account, name, scope))


def test_rules_of_others_on_all_that_leads_to_a_file(both: Both) -> None:
    both.same(*WORLD, *LOOKS)
    for one in (
        rule([MINE], X, COLLEAGUE, THEIRS),
        rule([BLOCK], Y, COLLEAGUE),
        rule([CONTAINER], X, COLLEAGUE),
        rule([BOXES], X, COLLEAGUE, THEIRS, locked=True, comment="mine"),
        rule([file(3)["name"]], X, COLLEAGUE),
        rule([file(9)["name"]], X, COLLEAGUE),
    ):
        both.same(one, *LOOKS)
    both.same(locks(MINE, THEIRS), locks(BOXES, THEIRS), locks(file(3)["name"]), locks(BLOCK, account=ACCOUNT))
    both.judge()
    for one in (
        step("detach_dids", "cms", BLOCK, [file(1)]),
        step("detach_dids", THEIRS, BOX, [did(BLOCK)]),
        step("detach_dids", THEIRS, MINE, [file(3)]),
        attach(OTHER, [file(5)], X),
    ):
        both.same(one, *LOOKS)
        both.judge()
        both.same(*LOOKS)
    assert both.model.transfers == both.transfers() == 0


def test_the_locks_of_a_rule_on_two_sites_are_where_most_is(both: Both) -> None:
    """The dataset lock of our block is at Y, the lock of a file of it at X: another dataset had it first."""
    both.same(
        add("CONTAINER", BOX, scope=THEIRS),
        add("DATASET", BLOCK, BEFORE),
        attach(BEFORE, [file(1), file(6, size=100)], X),
        attach(BLOCK, [file(1), file(2), file(3)], Y),
        attach(BLOCK, [file(2)], X),
        attach(BOX, [did(BLOCK), did(BEFORE)], scope=THEIRS),
        rule([BOX], f"{X}|{Y}", COLLEAGUE, THEIRS),
        locks(BOX, THEIRS),
    )
    found = {row["rse"] for row in both.model.get_locks_for_dids([did(BLOCK)])}
    (held,) = both.model.rules.values()
    assert (found, held.held[file(1)["name"]], held.held[file(2)["name"]]) == ({Y}, {X: "O"}, {Y: "O"})
    both.same(*LOOKS[:1], *LOOKS[2:3])
    # What joins goes where the oldest file of the dataset is held: that of our block is at X now.
    both.same(attach(BLOCK, [file(4)], X), attach(BLOCK, [file(4)], Y), attach(BEFORE, [file(7)], X))
    both.judge()
    both.same(*LOOKS[:1], locks(BOX, THEIRS), rule([BLOCK], f"{Y}|rse={X}", COLLEAGUE), locks(BLOCK))
    both.same(step("delete_replicas", X, [file(1), file(7)]), *LOOKS[:1])
    assert {(rse, name) for _, rse, name in both.model.locks_without_replica()} == {
        (X, file(1)["name"]),
        (X, file(7)["name"]),
    }


# Rules that place each file by itself, by when they were made.
BY_FILE = {"scope": "cms", "did_type": "D", "grouping": "N"}
END = "Thu, 31 Dec 2099 23:00:00 UTC"


def test_grouping_none_and_two_copies(both: Both) -> None:
    both.same(
        add("DATASET", BLOCK, OTHER),
        attach(BLOCK, [file(1), file(2)], X),
        attach(BLOCK, [file(3)], Y),
        attach(OTHER, [file(4)], X),
        attach(OTHER, [file(4)], Y),
        rule([BLOCK], f"{X}|{Y}", COLLEAGUE, grouping="NONE"),
        locks(BLOCK),
        step("add_replication_rule", [did(OTHER)], 3, f"{X}|{Y}", account=COLLEAGUE),
        step("add_replication_rule", [did(OTHER)], 2, f"{X}|{Y}", account=COLLEAGUE),
        *(step("list_replication_rules", BY_FILE | {"created_after": since}) for since in (BEGINNING, END)),
        step("add_replication_rule", [did(OTHER)], 1, "T2_NO_Where", account=COLLEAGUE),
        locks(OTHER),
        *LOOKS[:1],
        attach(BLOCK, [file(5)], X),
        attach(BLOCK, [file(6)], Y),
        attach(OTHER, [file(5)], X),
    )
    both.judge()
    both.same(locks(BLOCK), locks(OTHER), *LOOKS[:1])
    assert both.model.transfers == both.transfers() == 1


def test_a_transfer_is_queued_and_withdrawn(both: Both) -> None:
    both.same(
        add("DATASET", BLOCK),
        attach(BLOCK, [file(1), file(2)], X),
        attach(BLOCK, [file(3)], Y),
        rule([BLOCK], X),
        rule([BLOCK], X, COLLEAGUE),
        *LOOKS[-3:],
    )
    assert both.model.transfers == both.transfers() == 1
    queued = [step("list_request_by_did", file(n)["name"], X, scope="cms") for n in (1, 3)]
    both.same(*queued)
    both.same(change(RuleOf(ACCOUNT, BLOCK), state="STUCK", cancel_requests=True), locks(BLOCK), *LOOKS[-3:], *queued)
    assert both.transfers() == 0
    both.same(
        step("update_replicas_states", X, [{**file(3), "state": "A"}]),
        locks(BLOCK),
        change(RuleOf(ACCOUNT, BLOCK), state="SUSPENDED"),
        attach(BLOCK, [file(4)], X),
    )
    both.judge()
    both.same(change(RuleOf(ACCOUNT, BLOCK), state="STUCK"))
    both.judge()
    assert both.model.replicas_without_lock_under_rule() == {
        (RuleOf(ACCOUNT, BLOCK).id(both.model), X, file(4)["name"])
    }
