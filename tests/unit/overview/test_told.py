"""What was done at a site, with a dataset or block, or in a cycle: chapters and deeds."""

from __future__ import annotations

import pytest

from common.cycles import Cycle
from common.messages.meta import Failure
from common.outcome import Outcome
from phedex_rucio import history
from phedex_rucio.overview import told
from phedex_rucio.overview.told import Subject, subject_of
from tests.unit.overview.facts_made import NODE, NOW, ago, asked, batch, closed, folded, guard

BLOCK, OTHER = "/A/B-v1/RAW#1", "/A/B-v1/RAW#11"


def story() -> list[Cycle]:
    events = [
        asked("c", ago(hours=2), meta={"by": "me@host"}, reason="a canary"),
        closed("c", Outcome.CHANGED, at=ago(hours=2), as_of=ago(hours=3), children=1),
        batch("c", at=ago(minutes=110), names={"added": [BLOCK]}, counts={"added": 1}),
        asked("d@20260314T030000", ago(hours=1)),
        closed("d@20260314T030000", Outcome.HELD, at=ago(hours=1), guard=guard(), names={"held": [BLOCK]}),
        asked("e", ago(minutes=9), node="T2_US_MIT"),
        batch("e", key=f"T2_US_MIT {OTHER}", names={"marked": [OTHER]}),
    ]
    return list(folded(*events).by_name.values())


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (NODE, Subject("node", NODE)),
        (BLOCK, Subject("block", BLOCK)),
        ("/A/B-v1/*", Subject("dataset", "/A/B-v1/")),
        ("20260314T031200-ab", Subject("cycle", "20260314T031200-ab")),
        (f"{NODE}@20260314T030000/0123456789abcdef", Subject("cycle", f"{NODE}@20260314T030000")),
    ],
)
def test_a_name_says_what_is_meant(text: str, subject: Subject) -> None:
    assert subject_of(text) == subject


def test_a_block_is_told_by_what_became_of_it_everywhere() -> None:
    first, second = told.deeds(story(), BLOCK)
    assert (first.at, first.node, first.what, first.by) == (ago(minutes=110), NODE, "added, with its rule", "me@host")
    assert (second.what, second.by) == ("held back by the guard, or kept for its last copy", "the clock")
    (other,) = told.deeds(story(), OTHER)
    assert other.what.startswith("marked")
    died = batch(outcome=Outcome.DEAD, key=f"{NODE} {BLOCK}", error=Failure(class_="X", message="no", at=NOW))
    (dead,) = told.deeds(folded(died).by_name.values(), BLOCK)
    assert dead.what == "dead: X: no"
    conflict = batch(names={"conflicts": [BLOCK]}, notes=[f"{BLOCK}: conflict, left as it is: 3 bytes", "else"])
    (deed,) = told.deeds(folded(conflict).by_name.values(), BLOCK)
    assert (deed.what[:8], deed.note) == ("conflict", "conflict, left as it is: 3 bytes")


def test_chapters_of_a_site_a_dataset_and_a_cycle() -> None:
    first, second = told.chapters(story(), Subject("node", NODE))
    assert (first.command, first.outcome, first.counts) == (
        f"sync.site {NODE} reason=a canary",
        Outcome.CHANGED,
        {"added": 1},
    )
    assert (first.ended, first.as_of) == (ago(minutes=110), ago(hours=3))
    assert second.guards == [guard()]
    assert [one.cycle for one in told.chapters(story(), Subject("dataset", "/A/B-v1/"))] == ["c", second.cycle, "e"]
    (one,) = told.chapters(story(), Subject("cycle", "e"))
    assert (one.ended, one.closed, one.announced) == (None, 1, 2)
    assert told.chapters(story(), Subject("cycle", "x")) == []
    said = "\n".join(line for chapter in (first, second, one) for line in history._lines(chapter))
    for words in (
        "changed, took 10 min",
        "by me@host, PhEDEx as of",
        "1 added",
        "guard: would mark",
        f"→ phedex-rucio plan {NODE}",
    ):
        assert words in said
    assert "open: 1 of 2 commands closed" in said
    assert "--approve" not in said
