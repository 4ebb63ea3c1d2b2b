"""What is kept of a rule as Rucio gives it?"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from common.rucio.inventory import NEVER_DUE, made_at, preferred, rule_of, rules_at
from common.rucio.rses import Site, Switch
from common.sync.catalogue import RuleAtRse
from common.sync.marks import (
    COMMENT,
    CUSTODIAL,
    GONE_APPROVED,
    GONE_SINCE,
    GONE_WHY,
    GROUP,
    HOLD,
    KEEP,
    LEFT,
    SEEN,
    SWEEPING,
    Hold,
    Keep,
    Removal,
    cleared_text,
    keep_text,
)

RSE = "T2_IT_Pisa"
SITE = Site(RSE, "sync", ("sync",), Switch.ON, RSE)
PLAIN = RuleAtRse("r", 2)


def read(**row: Any) -> RuleAtRse:
    return rule_of({"id": "r", "locks_ok_cnt": 2, "rse_expression": RSE, "meta": None} | row, SITE)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        ({}, {}),
        ({"locks_ok_cnt": None}, {"files": 0}),
        ({"expires_at": "Sat, 28 Nov 2026 00:00:00 UTC"}, {"ending": True}),
        ({"rse_expression": f"rse={RSE}"}, {"plain": False}),
        ({"locked": True}, {"locked": True}),
        ({"locked": None}, {}),
        ({"state": "REPLICATING", "locks_replicating_cnt": 1}, {"ordering": True}),
        ({"state": "STUCK", "locks_replicating_cnt": 1}, {}),
        ({"state": "REPLICATING", "locks_replicating_cnt": 0}, {}),
        ({"created_at": "2026-11-28 00:45:10"}, {"made": "2026-11-28 00:45:10"}),
        ({"comments": COMMENT}, {}),
        ({"comments": keep_text(Keep("op"))}, {"keep": True}),
        ({"comments": cleared_text(77)}, {"cleared": 77}),
    ],
)
def test_what_a_row_says(row: dict[str, Any], changes: dict[str, Any]) -> None:
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__}
    assert read(**row) == RuleAtRse(**(fields | changes))


@pytest.mark.parametrize(
    ("meta", "changes"),
    [
        ({GROUP: "DataOps", CUSTODIAL: True}, {"group": "DataOps", "custodial": True}),
        ({CUSTODIAL: "yes"}, {"custodial": True}),
        ({CUSTODIAL: False}, {}),
        ({GONE_SINCE: True}, {"gone_since": NEVER_DUE}),
        ({SEEN: 70}, {"seen": 70}),
        ({SWEEPING: 70}, {"begun": True}),
        ({GONE_SINCE: 100, GONE_WHY: "nowhere"}, {"gone_since": 100, "why": Removal.NOWHERE}),
        ({GONE_SINCE: 100, GONE_WHY: "incomplete (1 of 2 files left)"}, {"gone_since": 100, "why": Removal.INCOMPLETE}),
        ({GONE_SINCE: 100, GONE_APPROVED: "code"}, {"gone_since": 100, "approved": True}),
        ({GONE_SINCE: "soon"}, {"gone_since": NEVER_DUE}),
        ({HOLD: {"since": 50, "why": "unproven"}}, {"held_since": 50, "held_why": Removal.UNPROVEN}),
        ({HOLD: "yes"}, {}),
        ({KEEP: {"by": "op"}}, {"keep": True}),
        ({LEFT: {"5": "aaaaaaaa"}}, {"left": True}),
    ],
)
def test_what_a_meta_says_however_it_comes(meta: dict[str, Any], changes: dict[str, Any]) -> None:
    fields = {name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__}
    for text in (meta, json.dumps(meta), json.dumps(json.dumps(meta))):
        assert read(meta=text) == RuleAtRse(**(fields | changes))


def test_a_keep_of_before_stands_beside_any_comment() -> None:
    assert read(meta={KEEP: "op"}, comments=cleared_text(77)).keep


@pytest.mark.parametrize("text", ["Sat, 28 Nov 2026 00:45:10 UTC", "2026-11-28 00:45:10"])
def test_when_a_rule_was_made(text: str) -> None:
    assert made_at(RuleAtRse("r", 2, made=text)) == 1_795_826_710


@pytest.mark.parametrize("text", ["", "yesterday"])
def test_a_rule_whose_making_nobody_can_read_was_made_now(text: str) -> None:
    before = time.time()
    assert before <= made_at(RuleAtRse("r", 2, made=text)) <= time.time()


def test_of_two_rules_the_live_one_then_the_plain_one_then_the_first() -> None:
    ending, old, first = RuleAtRse("e", 2, ending=True), RuleAtRse("o", 2, plain=False), RuleAtRse("f", 2)
    assert preferred(None, ending) is ending
    assert preferred(ending, old) is preferred(old, ending) is old
    assert preferred(old, first) is preferred(first, old) is first
    assert preferred(first, RuleAtRse("s", 2)) is first


NOWHERE = {"since": 5, "why": "nowhere"}


@pytest.mark.parametrize(
    ("rules", "hold"),
    [
        ([{}], None),
        ([{}, {}], None),
        ([{HOLD: NOWHERE}], Hold(5, Removal.NOWHERE)),
        ([{HOLD: NOWHERE}, {}], None),
        ([{}, {HOLD: NOWHERE}], None),
        ([{HOLD: NOWHERE}, {HOLD: {"since": 6, "why": "nowhere"}}], Hold(5, Removal.NOWHERE)),
        ([{HOLD: NOWHERE}, {HOLD: {"since": 6, "why": "unknown"}}], None),
        ([{HOLD: NOWHERE}, {HOLD: {"since": 6, "why": "moved"}}], None),
        ([{HOLD: NOWHERE}, {}, {HOLD: NOWHERE}], None),
        ([{HOLD: NOWHERE}, {HOLD: NOWHERE}, {}], None),
        ([{HOLD: NOWHERE}, {"ending": True}], Hold(5, Removal.NOWHERE)),
        ([{"ending": True}, {HOLD: NOWHERE}], Hold(5, Removal.NOWHERE)),
    ],
)
@pytest.mark.parametrize("accounts", [("sync",), ("sync", "former")])
def test_a_hold_is_the_blocks_where_each_rule_that_stands_has_it(
    rules: list[dict[str, Any]], hold: Hold | None, accounts: tuple[str, ...]
) -> None:
    """The first is the RSE itself, the others are of the form of older tools."""
    rows = [
        {
            "id": str(number),
            "name": "/A/B/RAW#1",
            "scope": "cms",
            "did_type": "DATASET",
            "account": accounts[number % len(accounts)],
            "rse_expression": f"rse={RSE}" if number else RSE,
            "expires_at": "some day" if meta.get("ending") else None,
            "meta": json.dumps(meta),
        }
        for number, meta in enumerate(rules)
    ]

    class Streams:
        def rows(self, verb: str, account: str, **_: Any) -> list[dict[str, Any]]:
            return [row for row in rows if row["account"] == account]

    found: Any = Streams()
    (rule,) = rules_at(found, Site(RSE, "sync", accounts, Switch.ON, RSE)).values()
    assert rule.hold == hold
