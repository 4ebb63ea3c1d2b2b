"""The model of Rucio and the real server answer the same calls alike: results, errors by class, and what remains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.model.steps import ACCOUNT, Both, Step, X, Y, add, attach, attach_at, both_sides, did, file, rule, said, step
from tests.stack.rucio_server import RucioServer

BLOCK, OTHER, CONTAINER = "/A/Run-v1/AOD#1", "/A/Run-v1/AOD#2", "/A/Run-v1/AOD"
HISTORY: list[Step] = [
    step("list_rses", f"cms_type=real&pnn={X}"),
    step("list_rses", "cms_type=real&pnn=T2_NO_Where"),
    attach(BLOCK, [file(1)], X),
    step("add_dids", [{**did(CONTAINER), "type": "CONTAINER"}, {**did(BLOCK), "type": "DATASET"}]),
    add("DATASET", OTHER, BLOCK),
    add("DATASET", OTHER),
    attach(BLOCK, [file(1), file(2), file(3, adler32=None)], X),
    attach(BLOCK, [file(1), file(2), file(3, adler32=None)], X),
    attach(BLOCK, [file(1), file(2, size=11)], X),
    attach(BLOCK, [file(4), file(1, adler32="00000002")], Y),
    attach_at(BLOCK, {X: [file(4), file(5)], Y: [file(5), file(2, size=11)]}),
    attach_at(BLOCK, {X: [file(5)], Y: [file(5), file(2)]}),
    attach_at(BLOCK, {X: [file(5)], Y: [file(5), file(2)]}),
    attach(OTHER, [file(9)]),
    attach(OTHER, [file(2)]),
    attach(OTHER, [file(2)], ignore=False),
    attach(OTHER, [did(BLOCK)]),
    attach(CONTAINER, [did(BLOCK), did(OTHER)]),
    attach(CONTAINER, [did(BLOCK)]),
    attach(CONTAINER, [did(BLOCK)], ignore=False),
    attach(CONTAINER, [file(1)]),
    step("get_metadata_bulk", [did(BLOCK), did("/A/Run-v1/AOD#none"), did(CONTAINER), did("/store/data/1.root")]),
    step("bulk_list_files", [did(BLOCK), did("/A/Run-v1/AOD#none")]),
    step("list_content", "cms", CONTAINER),
    step("list_content", "cms", BLOCK),
    step("list_content", "cms", "/A/Run-v1/RAW"),
    step("list_dids", "cms", {"name": "/A*"}, did_type="dataset"),
    step("list_dids", "cms", {"name": "/A/*#1"}, did_type="dataset"),
    step("list_dids", "cms", {"name": "/A*"}, did_type="container"),
    step("list_dids", "cms", {"name": "/B*"}, did_type="dataset"),
    step("list_dids", "nobody's", {"name": "/A*"}, did_type="dataset"),
    rule([BLOCK], X),
    rule([BLOCK, OTHER], X),
    rule([OTHER, "/A/Run-v1/AOD#none"], X),
    rule([OTHER], f"rse={X}"),
    step("get_locks_for_dids", [{**did(BLOCK), "type": "dataset"}, {**did(OTHER), "type": "dataset"}]),
    step("list_account_rules", ACCOUNT),
    step("list_account_rules", "nobody"),
    step("list_did_rules", "cms", BLOCK),
    step("list_did_rules", "cms", "/A/Run-v1/AOD#none"),
    step("add_replicas", Y, [file(1), file(7)]),
    step("list_dataset_replicas", "cms", BLOCK, deep=True),
    step("list_replicas", [file(n) for n in (1, 2, 4, 5, 7)], all_states=True),
    step("get_replication_rule", "0" * 32),
    step("update_replication_rule", "0" * 32, {"lifetime": None}),
    step("delete_replication_rule", "0" * 32),
    step("list_replica_locks", "0" * 32),
]

THIRD = "/A/Run-v1/AOD#3"
SEEN = [
    step("get_metadata_bulk", [did(BLOCK), did(THIRD), did(CONTAINER), *(file(n) for n in range(1, 8))]),
    step("bulk_list_files", [did(BLOCK), did(OTHER), did(THIRD)]),
    step("list_content", "cms", CONTAINER),
    step("list_content_history", "cms", BLOCK),
    step("list_replicas", [file(n) for n in range(1, 8)], all_states=True, resolve_parents=True),
    step("list_account_rules", ACCOUNT),
    step("list_replication_rules", {"scope": "cms", "did_type": "F"}),
]
REMOVALS: list[Step] = [
    step("add_dids", [{**did(CONTAINER), "type": "CONTAINER"}, {**did(BLOCK), "type": "DATASET"}]),
    add("DATASET", OTHER, THIRD),
    attach(BLOCK, [file(1), file(2), file(3)], X),
    attach(BLOCK, [file(1), file(2)], Y),
    attach(OTHER, [file(4), file(5)], X),
    attach(THIRD, [file(2), file(6)], Y),
    attach(CONTAINER, [did(BLOCK), did(OTHER), did(THIRD)]),
    rule([BLOCK, OTHER], X),
    step("delete_replicas", X, [file(1), file(7)]),
    step("delete_replicas", Y, [file(6), file(4)]),
    step("delete_replicas", X, [file(1)]),
    step("delete_replicas", X, [file(1)]),
    step("detach_dids", "cms", BLOCK, [file(3), file(4)]),
    step("detach_dids", "cms", "/A/Run-v1/AOD#none", [file(3)]),
    step("detach_dids", "cms", BLOCK, [file(3)]),
    step("detach_dids", "cms", BLOCK, [file(3)]),
    step("delete_replicas", X, [file(3)]),
    step("delete_replicas", X, [file(4), file(5)]),
    step("update_replicas_states", X, [{**file(2), "state": "U"}]),
    step("update_replicas_states", X, [{**file(2), "state": "U"}, {**file(6), "state": "U"}]),
    step("update_replicas_states", X, [{**file(2), "state": "A"}]),
    attach(OTHER, [file(4), file(5)], X),
    attach(CONTAINER, [did(OTHER)]),
    step("detach_dids", "cms", THIRD, [file(2), file(6)]),
    step("delete_replicas", Y, [file(6)]),
]


@pytest.fixture
def both(clean_rucio: RucioServer) -> Iterator[Both]:
    with both_sides(clean_rucio) as both:
        yield both


def test_the_same_calls_get_the_same_answers(both: Both) -> None:
    both.same(*HISTORY)


def test_rules_that_end_and_meta_that_changes(both: Both) -> None:
    both.same(add("DATASET", BLOCK), attach(BLOCK, [file(1), file(2)], X), rule([BLOCK], X))
    assert _life_of_a_rule(both.client) == _life_of_a_rule(both.model)
    both.same(rule([BLOCK], X), attach(BLOCK, [file(5)], X))
    both.judge()
    both.same(step("list_account_rules", ACCOUNT), rule([BLOCK], X), step("list_account_rules", ACCOUNT))


def _life_of_a_rule(client: Any) -> list[object]:
    (number,) = (row["id"] for row in client.list_account_rules(ACCOUNT))
    seen: list[object] = []
    for options in ({"meta": '{"b":2}'}, {"meta": {"c": [3]}}, {"lifetime": 0}, {"lifetime": None}, {"lifetime": 0}):
        client.update_replication_rule(number, options)
        row = client.get_replication_rule(number)
        seen.append((row["meta"], row["expires_at"] is None, row["locks_ok_cnt"]))
    return seen


def test_what_is_taken_away_leaves_the_same_behind(both: Both) -> None:
    for one in REMOVALS:
        both.same(one, *SEEN)
    both.judge()
    both.same(*SEEN)


def test_a_model_that_differs_inside_is_found_out(both: Both) -> None:
    both.same(add("DATASET", BLOCK))
    both.model.datasets[BLOCK].add("/store/data/1.root")
    with pytest.raises(AssertionError):
        both.same(add("DATASET", OTHER))
    assert said(both.client, add("DATASET", OTHER)) == "DataIdentifierAlreadyExists"
