"""Why should a block leave a node? Every branch of the decision, from what both sides say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from common.sync.marks import Removal
from common.sync.reasons import Beyond, Reason, reason_of
from common.sync.whereabouts import Deletion, Whereabouts

NODE, OTHER, THIRD = "T2_IT_Pisa", "T2_DE_DESY", "T2_CH_CERN"
MADE = 1_600_000_000
BEFORE, AFTER = (datetime.fromtimestamp(MADE + n, UTC) for n in (-1, 0))


def where(*, controlled: bool = True, **nodes: str | tuple[str, ...]) -> Whereabouts:
    sets: dict[str, Any] = {key: frozenset({one} if isinstance(one, str) else one) for key, one in nodes.items()}
    return Whereabouts(as_of=AFTER, controlled=controlled, **sets)


def beyond(at: Whereabouts, **fields: Any) -> Beyond:
    return Beyond(where=at, own=frozenset({NODE, "T2_IT_Pisa_Buffer"}), **fields)


@dataclass
class Row:
    """One reading, and the reason that it gives."""

    beyond: Beyond
    reason: Reason


MOVED, PARTLY = Reason(Removal.MOVED), Reason(Removal.PARTLY)
WAITING, STUCK = Reason(Removal.WAITING), Reason(Removal.WAITING, stuck=True)
UNPROVEN, UNKNOWN = Reason(Removal.UNPROVEN), Reason(Removal.UNKNOWN)


@pytest.mark.parametrize(
    "row",
    [
        Row(beyond(where(partial=NODE), here=True), Reason(Removal.INCOMPLETE)),
        Row(beyond(where(complete=OTHER), here=True, places=frozenset({OTHER})), Reason(Removal.INCOMPLETE)),
        Row(beyond(where(), here=True, known=False), Reason(Removal.INCOMPLETE)),
        Row(beyond(where(complete=OTHER), places=frozenset({OTHER})), MOVED),
        Row(beyond(where(complete=OTHER), places=frozenset({OTHER}), takers=(OTHER,), known=False), MOVED),
        Row(beyond(where(complete=OTHER), takers=(OTHER,)), WAITING),
        Row(beyond(where(complete=OTHER)), STUCK),
        Row(beyond(where(complete=(OTHER, NODE))), STUCK),
        Row(beyond(where(complete=NODE), places=frozenset({OTHER})), PARTLY),  # here after all: no proof of anything
        Row(beyond(where(complete="T2_IT_Pisa_Buffer"), places=frozenset({OTHER})), PARTLY),
        Row(beyond(where(partial=OTHER)), PARTLY),
        Row(beyond(where(partial=OTHER), places=frozenset({OTHER}), takers=(OTHER,)), PARTLY),
        Row(beyond(where(partial="X2_Retired")), PARTLY),
        Row(beyond(where(meant=OTHER)), PARTLY),
        Row(beyond(where(), meant=frozenset({OTHER})), PARTLY),
        Row(beyond(where(), meant=frozenset({OTHER}), known=False), PARTLY),
        Row(beyond(where(), known=False), UNKNOWN),
        Row(beyond(where()), UNPROVEN),
    ],
)
def test_the_reason_from_the_mildest_to_the_worst(row: Row) -> None:
    assert reason_of(row.beyond) == row.reason


def done(at: datetime = AFTER) -> Deletion:
    return Deletion(requested=BEFORE, completed=at)


def gone(**fields: Any) -> Reason:
    usual: dict[str, Any] = {"ruled": {NODE: MADE}, "deletions": {NODE: done()}}
    return reason_of(beyond(fields.pop("where", where()), **(usual | fields)))


def test_a_block_is_nowhere_only_by_positive_word_of_each_node_that_had_it() -> None:
    assert gone() == Reason(Removal.NOWHERE)
    assert gone(ruled={NODE: MADE + 0.9}) == Reason(Removal.NOWHERE)  # a rule's time has no fractions
    two = {NODE: float(MADE), OTHER: float(MADE)}
    assert gone(ruled=two, deletions={NODE: done(), OTHER: done()}) == Reason(Removal.NOWHERE)
    assert gone(deletions={NODE: done(), THIRD: done(BEFORE)}) == Reason(Removal.NOWHERE)  # it never had a rule there


@pytest.mark.parametrize(
    "fields",
    [
        {"where": where(controlled=False)},
        {"ruled": {}},
        {"deletions": {}},
        {"deletions": {OTHER: done()}},
        {"deletions": {NODE: done(BEFORE)}},
        {"deletions": {NODE: Deletion(requested=AFTER)}},
        {"deletions": {NODE: done(), THIRD: Deletion(requested=AFTER)}},
        {"ruled": {NODE: MADE, OTHER: MADE}},
        {"ruled": {NODE: MADE, OTHER: MADE}, "deletions": {NODE: done(), OTHER: done(BEFORE)}},
        {"ruled": {NODE: MADE + 1}},
    ],
)
def test_without_that_word_a_person_is_asked(fields: dict[str, Any]) -> None:
    assert gone(**fields) == UNPROVEN


def test_what_is_somewhere_is_never_nowhere_whatever_was_deleted() -> None:
    assert gone(where=where(partial=OTHER)) == PARTLY
    assert gone(where=where(meant=NODE)) == PARTLY
    assert gone(meant=frozenset({OTHER})) == PARTLY
    assert gone(filed=frozenset({OTHER})) == PARTLY
    assert gone(where=where(complete=OTHER)) == STUCK
    assert gone(known=False) == UNKNOWN
