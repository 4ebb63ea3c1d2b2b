"""What is wrong, in words: each situation alone, on top of a deployment that is well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from common.errors import System
from common.messages.beats import InHand
from common.messages.events import Away
from common.messages.meta import Failure
from common.outcome import Outcome
from common.rucio.rses import Switch
from common.rucio.switch import Note, State
from common.settings.model import Settings, Site
from phedex_rucio import status, status_shown
from phedex_rucio.overview.facts import Answer, Due, Facts
from phedex_rucio.overview.wrong import problems
from tests.unit.overview.facts_made import (
    NODE,
    NOW,
    ago,
    asked,
    batch,
    beat,
    closed,
    facts,
    guard,
    notes,
    retrying,
    standing,
    wrong,
)

SCHEDULER = beat(role="scheduler", name="host-3", state="active", queues=[])
HAND = InHand(kind="sync.site", key=NODE, cycle="c", since=ago(minutes=30), step_at=ago(minutes=29))


def answers(system: System, **changes: Any) -> list[Answer]:
    return [Answer(one, **(changes if one is system else {})) for one in System]


def test_a_deployment_that_is_well() -> None:
    found = facts(asked(), closed(as_of=ago(minutes=10)))
    assert (wrong(found), notes(found), status.exit_of(found)) == ({}, {}, 0)
    assert ("Nothing is wrong.", "bold green") in status_shown.lines(found, 80)


def away(worker: str) -> Away:
    return Away(
        system=System.RUCIO, worker=worker, since=ago(hours=2), reason="RucioError: whoami: refused", at=ago(hours=2)
    )


WRONG: list[tuple[str, Facts, list[str]]] = [
    (
        "rucio_away",
        facts(away("host-17"), beats=[beat(state="held_up", away=[System.RUCIO]), beat(name="host-18"), SCHEDULER]),
        ["Rucio is away for 1 of 2 workers since 01:12 (2 h): RucioError: whoami: refused", "It answers here"],
    ),
    (
        "phedex_away",
        facts(answers=answers(System.PHEDEX, error="status 200: <html>Sign in", is_other=True)),
        ["PhEDEx answers, but not as PhEDEx does: status 200: <html>Sign in"],
    ),
    (
        "rucio_away",
        facts(answers=answers(System.RUCIO, error="no answer within 2.5 s")),
        ["Rucio does not answer here: no answer within 2.5 s", "The workers (1) have not met that"],
    ),
    ("broker_away", facts(broker=None, answers=answers(System.BROKER, error="no connection to broker x")), ["no conn"]),
    (
        "broker_blocked",
        facts(broker=standing(blocked="it is low on memory or disk"), beats=[beat(at=ago(minutes=5)), SCHEDULER]),
        ["takes no messages: it is low on memory"],
    ),
    ("queues_missing", facts(broker=standing(missing=["sync.beats"])), ["sync.beats", "phedex-rucio setup"]),
    (
        "process_silent",
        facts(beats=[beat(at=ago(minutes=4), in_hand=[HAND]), beat(name="host-18"), SCHEDULER]),
        ["Worker host-17 has said nothing since 03:08 (4 min)", f"sync.site {NODE} (30 min) in hand", "kill -9 17"],
    ),
    (
        "worker_hangs",
        facts(beats=[beat(in_hand=[HAND]), SCHEDULER]),
        [f"hangs: sync.site {NODE} is in hand since 02:42 (30 min)", "may take 10 min"],
    ),
    (
        "not_served",
        facts(broker=standing({"sync.blocks": 1200}, consumers=0), beats=[beat(queues=["sync.site"]), SCHEDULER]),
        ["No worker serves 1,200 in sync.blocks", "phedex-rucio worker --queue sync.blocks"],
    ),
    ("no_worker", facts(beats=[SCHEDULER]), ["No worker runs", "phedex-rucio worker"]),
    (
        "no_scheduler",
        facts(broker=standing(lease="free"), due={NODE: Due(ago(hours=3))}),
        [
            "nothing is looked at by the clock",
            f"1 site overdue, {NODE} since 00:12 (3 h)",
            "phedex-rucio scheduler",
        ],
    ),
    (
        "scheduler_stopped",
        facts(beats=[beat()], due={NODE: Due(ago(hours=3))}),
        ["holds the lease and starts nothing", "overdue"],
    ),
    (
        "process_note",
        facts(beats=[beat(notes=["the settings file is wrong, the last good one stays in force: x"]), SCHEDULER]),
        ["host-17: the settings file is wrong", "config check"],
    ),
    ("killed", facts(broker=standing({"sync.killed": 2})), ["2 commands in sync.killed", "dead list"]),
    (
        "dead_letters",
        facts(
            closed(error=Failure(class_="UnknownNode", message="T2_X: unknown", at=NOW), outcome=Outcome.DEAD),
            asked("d"),
            closed("d", as_of=ago(minutes=5)),
            broker=standing({"sync.site.dead": 3}),
        ),
        [f"3 dead letters of sync.site; 1 × UnknownNode: T2_X: unknown ({NODE})", "dead list --queue sync.site"],
    ),
    (
        "retries",
        facts(asked(), retrying(attempt=3)),
        ["Waiting for another try: 1 command, after 3 at most: FileConflict: no good", "history c"],
    ),
    ("held", facts(asked(), closed(outcome=Outcome.HELD, guard=guard())), ["25 %", f"→ phedex-rucio plan {NODE}"]),
    (
        "held",
        facts(asked(dataset="/A/B*/*"), closed(key=f"{NODE} /A/B*/*", outcome=Outcome.HELD, guard=guard())),
        [f"→ phedex-rucio plan {NODE} --dataset '/A/B*/*'"],
    ),
    (
        "hit",
        facts(
            asked(at=ago(hours=2)),
            closed(children=1, at=ago(hours=2)),
            batch(outcome=Outcome.HELD, counts={"hit": 2}, at=ago(hours=1)),
            asked("d"),
            closed("d", as_of=ago(minutes=5)),
        ),
        ["2 blocks got a rule of somebody else while their replicas went", "→ phedex-rucio history c"],
    ),
    (
        "no_rse",
        facts(asked(), closed(outcome=Outcome.SKIPPED, notes=[f"{NODE}: no RSE with pnn"])),
        [f"{NODE}: no RSE with pnn: nothing is synced there", f"phedex-rucio setup {NODE}"],
    ),
    ("stalled", facts(asked(at=ago(hours=8))), ["stands still since Mar 13 19:12 (8 h): 0 of 1 commands are closed"]),
    (
        "not_in_sync",
        facts(asked(), closed(outcome=Outcome.HELD)),
        ["not in sync once in the last 1 d; its last cycle: held", f"history {NODE}"],
    ),
]


@pytest.mark.parametrize(("code", "found", "words"), WRONG, ids=[f"{code}-{n}" for n, (code, *_) in enumerate(WRONG)])
def test_it_is_said_alone_and_with_what_to_type(code: str, found: Facts, words: list[str]) -> None:
    said = wrong(found)
    assert list(said) == [code]
    assert [word for word in words if word not in said[code]] == []
    assert status.exit_of(found) == (5 if code == "broker_away" else 3)
    page = "\n".join(text for text, _ in status_shown.lines(found, 80))
    assert "1 thing is wrong" in page
    assert [line for line in page.splitlines() if len(line) > 80 and "→" not in line] == []
    assert msgspec.json.encode(status_shown.as_data(found), enc_hook=str)


def test_what_is_only_to_be_known_is_no_failure() -> None:
    frozen = {NODE: State(NODE, Switch.FROZEN, Note("2026-03-13T20:00:00Z", "me@host", "disk is full"))}
    for code, found, words in (
        (
            "switched",
            facts(asked(), closed(as_of=NOW), switches=frozen),
            f"{NODE} is frozen since 2026-03-13T20:00:00Z",
        ),
        (
            "process_gone",
            facts(beats=[beat(name="old-1", at=ago(minutes=40)), beat(), SCHEDULER]),
            "1 worker ended without a word, killed or lost (last heard 02:32, 40 min ago): old-1",
        ),
        (
            "kept",
            facts(asked(), closed(as_of=NOW, counts={"kept": 2})),
            f"2 blocks that should not be there stay, for they may be the last copy → phedex-rucio plan {NODE}",
        ),
        ("no_scheduler", facts(broker=standing(lease="free"), beats=[beat()], settings=Settings()), "No scheduler"),
    ):
        assert wrong(found) == {}, code
        assert words in notes(found)[code]


def test_those_that_were_killed_a_while_ago_are_one_line_and_no_rows() -> None:
    hand = [InHand(kind="upload", key="k", cycle="c", since=ago(hours=1), step_at=ago(hours=1))]
    old = [beat(name=f"old-{n}", at=ago(minutes=20 + n), in_hand=hand) for n in range(8)]
    old.append(beat(role="scheduler", name="plans-1", state="standby", queues=[], at=ago(minutes=50)))
    found = facts(beats=[*old, beat(), SCHEDULER])
    assert [p.code for p in problems(found)] == ["process_gone"]
    assert "8 workers and 1 scheduler ended without a word" in notes(found)["process_gone"]
    assert "old-0, old-1, old-2 and 6 more. What was in hand there, others got" in notes(found)["process_gone"]
    page = "\n".join(text for text, _ in status_shown.lines(found, 200))
    assert "worker old-" not in page
    assert "9 queues are empty" in page
    assert "within the last 15 minutes" in "\n".join(text for text, _ in status_shown.lines(facts(beats=old), 200))
    assert len(status_shown.as_data(found)["processes"]) == 11


def test_what_a_worker_lets_go_of_for_a_moment_is_served() -> None:
    """A worker that waits for a system has no consumers; the system is what is wrong."""
    held_up = facts(
        broker=standing({"sync.blocks": 5}, consumers=0), beats=[beat(state="held_up", away=[System.RUCIO]), SCHEDULER]
    )
    assert list(wrong(held_up)) == ["rucio_away"]


def test_a_site_with_a_reason_is_not_also_late_and_one_that_is_off_never() -> None:
    held = facts(asked(), closed(outcome=Outcome.HELD, guard=guard()))
    assert list(wrong(held)) == ["held"]
    off = facts(asked(), closed(outcome=Outcome.HELD), due={NODE: Due(NOW, "off", "`run: False`")})
    assert wrong(off) == {}
    unscheduled = facts(asked(), closed(outcome=Outcome.HELD), settings=Settings(sites={"T2_US_MIT": Site()}), due={})
    assert wrong(unscheduled) == {}


def test_ten_retries_are_no_accident() -> None:
    few, many = ([retrying(ident=str(n)) for n in range(number)] for number in (9, 10))
    assert wrong(facts(asked(), *few)) == {}
    assert "10 commands, after 1 at most" in wrong(facts(asked(), *many))["retries"]


def test_a_worker_that_ended_is_forgotten_and_steps_keep_a_command_alive() -> None:
    ended = facts(beats=[beat(state="ended", name="old-1", at=ago(minutes=5)), beat(), SCHEDULER])
    assert wrong(ended) == {}
    slow = msgspec.structs.replace(HAND, since=NOW - timedelta(minutes=9), step_at=NOW)
    assert wrong(facts(beats=[beat(in_hand=[slow]), SCHEDULER])) == {}


def test_the_page_shows_how_far_an_open_cycle_is() -> None:
    found = facts(asked(at=ago(minutes=5)), closed(outcome=Outcome.CHANGED, children=3, at=ago(minutes=4)), batch())
    page = "\n".join(text for text, _ in status_shown.lines(found, 120))
    assert f"{NODE} runs since 03:07 (5 min), 2 of 4 commands closed: c" in page
