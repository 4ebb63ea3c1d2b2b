"""Deletions and subscriptions: what is read of a good reply, and what refuses one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from common.phedex import requested, trust
from common.phedex.replies import Deletions, Subscriptions
from common.sync.whereabouts import Deletion
from tests.unit.phedex import good
from tests.unit.phedex.good import FRESH, FULL, NODE, NOW, OPEN, PART, body

ALPHA, BETA = "/Alpha/Run2018A-v1/RAW", "/Alpha/Run2018B-v1/AOD"
BARI = "T2_IT_Bari"
SOON, AGES = 1_559_000_000, 1_513_000_000


def deletion(asked: Any, done: Any, complete: str | None = None, node: str = NODE) -> dict[str, Any]:
    """A row as it was recorded: `time_request` a string, `time_complete` a number or null."""
    flag = complete or ("y" if done is not None and float(done) >= float(asked) else "n")
    about = {"request": 600001, "node": node, "se": "stormfe1.pi.infn.it", "id": 46}
    return {**about, "time_request": str(asked), "time_complete": done, "complete": flag}


def dataset(*listed: tuple[str, list[dict[str, Any]]], name: str = ALPHA) -> dict[str, Any]:
    blocks = [{"id": "3970074", "name": block, "files": 1, "bytes": 10, "deletion": each} for block, each in listed]
    return {"id": "557315", "name": name, "is_open": "n", "files": 1, "bytes": 10, "block": blocks}


def deleted(*datasets: dict[str, Any], asked: Sequence[str] = (FULL, PART)) -> dict[str, dict[str, Deletion]]:
    question = good.question(Deletions)
    answer = good.answer(body(good.envelope("deletions", dataset=list(datasets))))
    return requested.deletions(question, trust.read(Deletions, question, answer, FRESH), asked)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_deletions_are_read_by_block_and_node() -> None:
    rows = [deletion(AGES, None), deletion(AGES + 0.5, SOON, node=BARI)]
    assert deleted(dataset((FULL, rows))) == {
        FULL: {NODE: Deletion(at(AGES)), BARI: Deletion(at(AGES + 0.5), at(SOON))},
        PART: {},
    }
    assert deleted() == {FULL: {}, PART: {}}


def test_all_numbers_may_be_strings_or_none_of_them() -> None:
    as_text = {**deletion(AGES, SOON), "time_complete": str(SOON), "request": "600001", "id": "46"}
    as_numbers = {**deletion(AGES, SOON), "time_request": AGES}
    expected = {NODE: Deletion(at(AGES), at(SOON))}
    assert deleted(dataset((FULL, [as_text])))[FULL] == deleted(dataset((FULL, [as_numbers])))[FULL] == expected


@pytest.mark.parametrize(
    ("rows", "newest"),
    [
        ([(1, 2), (3, 4)], Deletion(at(3), at(4))),
        ([(3, 4), (1, 2)], Deletion(at(3), at(4))),
        ([(1, 2), (3, None)], Deletion(at(3))),
        ([(3, None), (1, 9)], Deletion(at(3))),
        ([(1, None), (3, 4)], Deletion(at(3), at(4))),
        ([(3, None), (3, 4)], Deletion(at(3))),
        ([(3, 4), (3, 5)], Deletion(at(3), at(5))),
        ([(3, 2)], Deletion(at(3))),  # done, and then asked for again
    ],
)
def test_the_newest_deletion_counts(rows: list[tuple[int, int | None]], newest: Deletion) -> None:
    assert deleted(dataset((FULL, [deletion(*row) for row in rows])))[FULL] == {NODE: newest}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (deletion(AGES, SOON, "n"), trust.Contradiction),
        (deletion(AGES, None, "y"), trust.Contradiction),
        (deletion(SOON, AGES, "y"), trust.Contradiction),
        (deletion(AGES, NOW + 7200), trust.Contradiction),
        (deletion(NOW + 7200, None), trust.Contradiction),
        (deletion(AGES, "nan", "n"), trust.Malformed),
        (deletion("inf", None), trust.Malformed),
        (deletion(1e300, None), trust.Malformed),
        (deletion("", None), trust.Malformed),
        ({**deletion(AGES, None), "time_request": None}, trust.Malformed),
        ({**deletion(AGES, None), "complete": "perhaps"}, trust.Malformed),
        ({key: value for key, value in deletion(AGES, None).items() if key != "time_complete"}, trust.Malformed),
    ],
)
def test_a_deletion_with_one_thing_wrong_refuses_the_reply_by_name(row: Any, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        deleted(dataset((FULL, [deletion(AGES, SOON), row])))
    assert type(caught.value) is expected


def test_deletions_of_other_blocks_or_twice_are_refused() -> None:
    with pytest.raises(trust.OtherBlock, match=OPEN):
        deleted(dataset((FULL, []), (OPEN, [])))
    with pytest.raises(trust.Repeated, match="is listed twice"):
        deleted(dataset((FULL, [])), dataset((FULL, [])))


def subscription(node: str, level: str = "BLOCK") -> dict[str, Any]:
    about = {"level": level, "node": node, "node_id": "46", "node_files": None, "node_bytes": None, "request": None}
    return {**about, "custodial": "n", "group": "DataOps", "percent_files": None, "suspend_until": None}


def subscribed(*datasets: dict[str, Any]) -> dict[str, set[str]]:
    question = good.question(Subscriptions)
    answer = good.answer(body(good.envelope("subscriptions", dataset=list(datasets))))
    reply = trust.read(Subscriptions, question, answer, FRESH)
    return requested.subscribed(question, reply, [FULL, PART, OPEN])


def whole(name: str, *nodes: str) -> dict[str, Any]:
    return {"id": "1", "name": name, "is_open": "n", "subscription": [subscription(node, "DATASET") for node in nodes]}


def by_block(name: str, block: str, *nodes: str) -> dict[str, Any]:
    row = {"id": "1", "name": block, "files": "3", "subscription": [subscription(node) for node in nodes]}
    return {"id": "1", "name": name, "is_open": "n", "block": [row]}


def test_a_subscription_of_a_dataset_counts_for_each_of_its_blocks() -> None:
    assert subscribed(whole(ALPHA, NODE, BARI)) == {FULL: {NODE, BARI}, PART: {NODE, BARI}, OPEN: set()}


def test_a_subscription_of_a_block_counts_for_it_alone_and_both_levels_add_up() -> None:
    assert subscribed(by_block(ALPHA, FULL, NODE), by_block(BETA, OPEN, BARI)) == {
        FULL: {NODE},
        PART: set(),
        OPEN: {BARI},
    }
    both = {**whole(ALPHA, NODE), "block": by_block(ALPHA, PART, BARI, NODE)["block"]}
    assert subscribed(both) == {FULL: {NODE}, PART: {NODE, BARI}, OPEN: set()}


@pytest.mark.parametrize("row", [whole("/Other/Run2018A-v1/RAW", NODE), by_block(ALPHA, f"{ALPHA}#other", NODE)])
def test_subscriptions_of_what_was_not_asked_for_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(trust.OtherBlock):
        subscribed(row)
