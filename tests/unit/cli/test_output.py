"""What the command line says, and its exit codes: pure."""

from __future__ import annotations

import pytest

from common import errors
from common.cycles import Cycle, Cycles, apply
from common.errors import System
from common.messages.events import Away, Closed, Retrying
from common.messages.meta import Failure, child_id, now
from common.outcome import Outcome
from common.sync.plan import Plan, Sizes
from common.sync.render import as_data, as_lines
from common.sync.words import size
from phedex_rucio import output, progress, summary


def closed(ident: str, key: str, outcome: Outcome, **fields: object) -> Closed:
    return Closed(id=ident, cycle="c", command="sync.site", key=key, run="r", outcome=outcome, at=now(), **fields)  # type: ignore[arg-type]


def folded(*events: object) -> Cycles:
    state = Cycles()
    for event in events:
        apply(state, event)  # type: ignore[arg-type]
    return state


FAILURE = Failure(class_="FileConflict", message="/store/x: other size", at=now())
CHILD = child_id("c", "c", "r", 0)
AWAY = Away(system=System.RUCIO, worker="w", since=now(), at=now())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.InvalidMessage("x"), 2),
        (errors.NotAuthenticated("x"), 6),
        (errors.BrokerAway("x"), 5),
        (errors.PhedexUnreachable("x"), 5),
        (errors.PhedexStatus("x"), 5),
        (errors.RucioError("x"), 5),
        (errors.Unroutable("x"), 1),
        (errors.RucioConflict("x"), 1),
        (errors.UnknownNode("x"), 2),
        (errors.RucioRefused("x"), 1),
    ],
)
def test_exit_code_of_an_error(error: errors.PhedexRucioError, code: int) -> None:
    assert output.exit_code_of(error) == code


def test_an_error_is_one_line_without_secrets() -> None:
    assert output.error_line(errors.BrokerAway("amqp://u:geheim@h/v: refused")) == (
        "phedex-rucio: amqp://u:***@h/v: refused"
    )
    assert output.error_line(errors.BrokerAway()) == "phedex-rucio: BrokerAway"


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.IN_SYNC], 0),
        ([Outcome.SKIPPED], 0),
        ([Outcome.CHANGED, Outcome.SKIPPED], 0),
        ([Outcome.CHANGED, Outcome.HELD], 4),
        ([Outcome.DEAD, Outcome.HELD, Outcome.IN_SYNC], 1),
    ],
)
def test_of_many_parts_the_worst_counts(outcomes: list[Outcome], code: int) -> None:
    root = closed("c", "T2_US_MIT", Outcome.IN_SYNC, children=len(outcomes))
    parts = [closed(child_id("c", "c", "r", i), f"T2_US_MIT {i}", o) for i, o in enumerate(outcomes)]
    state = folded(root, *parts)
    assert summary.finished(state, ["c"])
    assert summary.exit_of(state, ["c"]) == code


def test_not_finished_is_a_failure_and_temporary_while_a_system_is_away() -> None:
    root = closed("c", "T2_US_MIT", Outcome.CHANGED, children=1)
    assert summary.exit_of(folded(root), ["c"]) == 1
    assert summary.exit_of(folded(root, AWAY), ["c"]) == 5
    assert summary.exit_of(Cycles(), ["unknown"]) == 1


def test_rows_are_sites_with_counts_errors_and_notes_together() -> None:
    state = folded(
        closed("c", "/A/B/C", Outcome.IN_SYNC, children=2),
        closed("c/1", "T2_US_MIT", Outcome.CHANGED, counts={"to_add": 3, "same": 4}, notes=["a note"]),
        closed("c/2", "T2_US_MIT /A/B/C#1", Outcome.CHANGED, counts={"added": 2}, notes=["a note"]),
        closed("c/3", "T2_US_MIT /A/B/C#2", Outcome.DEAD, error=FAILURE),
        closed("c/4", "T1_US_FNAL", Outcome.SKIPPED, notes=["no RSE"]),
    )
    first, second = summary.rows(state.by_name.values())
    assert (first.about, first.outcome, first.notes) == ("T1_US_FNAL", Outcome.SKIPPED, ["no RSE"])
    assert (second.about, second.outcome, second.notes) == ("T2_US_MIT", Outcome.DEAD, ["a note"])
    assert second.counts == {"to_add": 3, "same": 4, "added": 2}
    assert second.errors == ["T2_US_MIT /A/B/C#2: FileConflict: /store/x: other size"]


def test_progress_says_what_keeps_the_rest_waiting() -> None:
    retry = Retrying(id=CHILD, cycle="c", attempt=1, next_at=now(), error=FAILURE, at=now())
    state = folded(closed("c", "T2_US_MIT", Outcome.CHANGED, children=2, counts={"to_add": 7}), retry, AWAY)
    now_at = summary.progress(state, ["c"])
    assert (now_at.closed, now_at.announced, now_at.to_do) == (1, 3, 7)
    at = f"{retry.next_at:%H:%M:%S} UTC"
    assert progress.words(now_at) == f"0 of 7 blocks, 1 of 3 commands, 1 wait for try 2 at {at}"
    assert now_at.waiting == [f"try 2 at {at}: /store/x: other size"]
    assert now_at.away == [f"rucio is away for w since {AWAY.since:%H:%M:%S} UTC"]
    assert progress.words(summary.progress(Cycles(), ["c"])) == "waiting for a worker"


def test_columns_are_aligned_and_numbers_stand_right() -> None:
    rows = [["SITE", "ADDED"], ["T2_US_MIT", "7"], ["T1", "12,431"]]
    assert output.aligned(rows) == ["SITE        ADDED", "T2_US_MIT       7", "T1         12,431"]


def plan(**fields: object) -> Plan:
    nothing: dict[str, object] = {
        "node": "T2_US_MIT",
        "rse": "T2_US_MIT",
        "account": "sync_t2_us_mit",
        "dataset": "*",
        "missing": [],
        "update": {},
        "remove": {},
        "pending": {},
        "empty": [],
        "same": 12431,
        "existing": 12431,
        "present": 12431,
        "work": [],
        "after": "",
        "left": 0,
        "adds": Sizes(),
        "as_of": None,
        "ignored": [],
        "doubts": [],
    }
    return Plan(**{**nothing, **fields})  # type: ignore[arg-type]


def test_a_plan_in_sync_is_one_sentence() -> None:
    assert as_lines(plan()) == ["In sync: 12,431 blocks at T2_US_MIT match."]
    assert as_lines(plan(same=1)) == ["In sync: 1 block at T2_US_MIT matches."]
    assert as_data(plan())["in_sync"] is True


def test_a_plan_shows_each_part_and_hides_no_number() -> None:
    names = [f"/A/B/C#{number:02}" for number in range(30)]
    lines = as_lines(
        plan(
            missing=names, update={"/A/B/D#1": "meta"}, remove={"/A/B/E#1": "gone"}, adds=Sizes(30, 214, 1.2e12), left=3
        )  # type: ignore[arg-type]
    )
    assert lines[1] == "30 blocks to add (214 files, 1.2 TB), 1 to update, 1 to remove, 12,431 to keep"
    assert "  … and 10 more to add (--json lists all)" in lines
    assert "  ~ /A/B/D#1  meta" in lines
    assert "  - /A/B/E#1  gone" in lines


def test_a_doubt_is_never_in_sync() -> None:
    lines = as_lines(plan(doubts=["/A/*/*: too old"]))
    assert not any("In sync" in line for line in lines)
    assert any("not trusted" in line and "too old" in line for line in lines)


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e18, "2,500.0 PB")])
def test_sizes(number: float, text: str) -> None:
    assert size(number) == text


def test_a_cycle_never_heard_of_has_no_outcome() -> None:
    data = summary.as_data(Cycles(), ["c"])
    assert data["cycles"][0]["outcome"] is None
    assert data["finished"] is False
    assert Cycle(root="c").open == {"c"}
