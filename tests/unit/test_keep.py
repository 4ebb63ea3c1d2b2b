"""Whom does `undo` mean, and what does it write?"""

from __future__ import annotations

from typing import Any

import pytest

from common.sync.keep import Undone, is_meant, kept
from common.sync.marks import COMMENT, GONE_CYCLE, GONE_SINCE, KEEP, Keep, cleared_text, keep_text

NAME = "/A/B-v1/RAW#1"
MARK = {GONE_SINCE: 100, GONE_CYCLE: "c1"}
KEPT = keep_text(Keep("op", "2026-11-28", "c1"))


@pytest.mark.parametrize("clear", [False, True])
def test_a_block_that_was_named_is_meant_whatever_its_rule_says(clear: bool) -> None:
    assert is_meant({}, COMMENT, NAME, [NAME], clear=clear)
    assert is_meant(MARK, KEPT, NAME, ["c2", NAME], clear=clear)
    assert not is_meant({}, None, NAME, [], clear=clear)


@pytest.mark.parametrize(
    ("meta", "comment", "asked", "meant"),
    [
        (MARK, COMMENT, ["c1"], True),
        (MARK, COMMENT, ["c2", "c1"], True),
        (MARK, COMMENT, ["c2"], False),
        ({GONE_CYCLE: "c1"}, COMMENT, ["c1"], False),  # no mark any more
        ({GONE_SINCE: 100}, COMMENT, ["c1"], False),
        ({}, KEPT, ["c1"], False),  # kept already
    ],
)
def test_a_cycle_means_the_marks_that_it_made(
    meta: dict[str, Any], comment: str, asked: list[str], meant: bool
) -> None:
    assert is_meant(meta, comment, NAME, asked, clear=False) is meant


@pytest.mark.parametrize(
    ("meta", "comment", "asked", "meant"),
    [
        ({}, KEPT, ["c1"], True),
        ({}, KEPT, ["c2"], False),  # another cycle's
        (MARK, KEPT, ["c1"], True),
        (MARK | {GONE_CYCLE: "c2"}, KEPT, ["c2"], False),  # the keep's cycle counts, not the mark's
        (MARK, COMMENT, ["c1"], False),  # nobody keeps it
        ({}, cleared_text(5), ["c1"], False),
        ({KEEP: {"by": "op", "cycle": "c1"}}, COMMENT, ["c1"], True),
        ({KEEP: {"by": "op", "cycle": "c1"}}, COMMENT, ["c2"], False),
        ({KEEP: "op"}, COMMENT, ["c1", ""], False),  # of no cycle
        ({}, "phedex-rucio: kept by hand", ["c1", ""], False),
    ],
)
def test_to_clear_a_cycle_means_the_keeps_of_its_marks_alone(
    meta: dict[str, Any], comment: str, asked: list[str], meant: bool
) -> None:
    assert is_meant(meta, comment, NAME, asked, clear=True) is meant


def test_the_notes_of_two_cycles_are_cleared_one_by_one() -> None:
    comments = {f"/A/B-v1/RAW#{n}": keep_text(Keep("op", "2026-11-28", f"c{n}")) for n in (1, 2)}
    for number in (1, 2):
        meant = [name for name, text in comments.items() if is_meant({}, text, name, {f"c{number}"}, clear=True)]
        assert meant == [f"/A/B-v1/RAW#{number}"]


def test_a_keep_has_the_cycle_of_the_mark_and_none_is_written_without_one() -> None:
    assert kept(MARK, "op", "2026-11-28") == Keep("op", "2026-11-28", "c1")
    assert kept({GONE_SINCE: 100}, "op", "2026-11-28") == Keep("op", "2026-11-28", "")
    assert kept({GONE_CYCLE: "c1"}, "op", "2026-11-28") is None
    assert kept({}, "op", "2026-11-28") is None


def test_the_words_for_what_became_of_a_block() -> None:
    assert [str(one) for one in Undone] == ["kept", "cleared", "swept", "unsure", "not_marked", "no_rule"]
