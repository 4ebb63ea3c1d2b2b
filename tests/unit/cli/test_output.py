"""What the command line says, and its exit codes: pure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common import errors
from common.cycles import Cycle, Cycles, apply
from common.errors import System
from common.messages.events import Away, Closed, Retrying
from common.messages.meta import Failure, child_id, now
from common.outcome import Outcome
from common.sync.catalogue import RuleAtRse
from common.sync.guard import Ruling
from common.sync.limits import Limit, Stop
from common.sync.marks import Removal
from common.sync.one_block import Sweeping
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


AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
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
        "kept": {},
        "unmark": [],
        "removals": "",
        "ruling": None,
        "sweep": [],
        "unswept": [],
        "approve": [],
        "files": "",
        "files_held": False,
    }
    return Plan(**{**nothing, **fields})  # type: ignore[arg-type]


def test_a_plan_in_sync_is_one_sentence() -> None:
    assert as_lines(plan(), now=AT) == ["In sync: 12,431 blocks at T2_US_MIT match."]
    assert as_lines(plan(same=1), now=AT) == ["In sync: 1 block at T2_US_MIT matches."]
    assert as_data(plan())["in_sync"] is True


def test_a_plan_shows_each_part_and_hides_no_number() -> None:
    names = [f"/A/B/C#{number:02}" for number in range(30)]
    lines = as_lines(
        plan(
            missing=names,
            update={"/A/B/D#1": "meta"},
            remove={"/A/B/E#1": "moved"},
            adds=Sizes(30, 214, 1_200_000_000_000),
            left=3,
        ),
        now=AT,
    )
    assert lines[1] == "30 blocks to add (214 files, 1.2 TB), 1 to update, 1 to remove, 12,431 unchanged"
    assert "  … and 10 more to add (--json lists all)" in lines
    assert "  ~ /A/B/D#1  meta" in lines
    assert "  - /A/B/E#1  moved" in lines
    assert lines[lines.index("  - /A/B/E#1  moved") + 1] == "moved: complete at another node, and in Rucio there."
    assert len([line for line in lines if ": " in line and "moved" in line]) == 1


HELD, NEW, LOCKED, MARKED = (f"/A/B/E#{n}" for n in range(4))
SINCE = int(datetime(2026, 1, 31, 9, tzinfo=UTC).timestamp())
COMMAND = "phedex-rucio sync site T2_US_MIT --approve 20260131T120000000-0a1b2c --reason '…'"


def rule(name: str, **others: object) -> RuleAtRse:
    return RuleAtRse(f"rule-of-{name[-1]}", 3, **others)  # type: ignore[arg-type]


def ruling(**others: object) -> Ruling:
    usual: dict[str, object] = {
        "allowed": [],
        "held": {HELD: Limit.NOWHERE, NEW: Limit.NOWHERE, LOCKED: Limit.LOCKED},
        "stops": [Stop(Limit.LOCKED, "1 block whose rule"), Stop(Limit.NOWHERE, "2 blocks deleted everywhere")],
        "share": 0.1,
        "number": 3,
        "marked": 0,
        "bytes": 0,
        "checksum": "0123456789abcdef",
        "command": COMMAND,
        "everywhere": "phedex-rucio sync dataset /A/B/E --approve",
        "approved": [],
        "approval": "",
        "sweep": True,
        "kept": [],
        "record": [HELD, NEW],
    }
    return Ruling(**{**usual, **others})  # type: ignore[arg-type]


def guarded(rules: dict[str, RuleAtRse], **others: object) -> list[str]:
    removals = {HELD: "nowhere", NEW: "nowhere", LOCKED: "moved"}
    return as_lines(plan(remove=removals, ruling=ruling(**others)), rules, now=AT)


def test_a_plan_says_since_when_a_block_is_held_and_how_what_is_on_record_is_approved() -> None:
    known = {
        HELD: rule(HELD, held_since=SINCE, held_why=Removal.NOWHERE),
        NEW: rule(NEW),
        LOCKED: rule(LOCKED, locked=True),
    }
    lines = guarded(known)
    assert f"  - {HELD}  nowhere, held: nowhere, on record since 2026-01-31 09:00 UTC" in lines
    assert f"  - {NEW}  nowhere, held: nowhere" in lines
    assert "nowhere: deleted everywhere in PhEDEx: this is the last copy." in lines
    assert f"  {LOCKED}: who locked it types: rucio rule update rule-of-2 --locked False" in lines
    (early,) = [line for line in lines if "not on record yet" in line]
    assert early.startswith("1 held block is not on record yet: the next sync puts it")
    approval = lines.index(f"To approve what is held and on record now, once you have looked: {COMMAND}")
    assert (
        approval
        > lines.index(early)
        > lines.index(f"  - {HELD}  nowhere, held: nowhere, on record since 2026-01-31 09:00 UTC")
    )
    assert lines[approval + 1].startswith("The same at every node that has it: phedex-rucio sync dataset /A/B/E")
    assert "lapses" in lines[approval + 2]
    assert not any("0123456789abcdef" in line for line in lines)


def test_no_approval_is_offered_that_would_cover_nothing() -> None:
    milder = rule(HELD, held_since=SINCE, held_why=Removal.INCOMPLETE)
    lines = guarded({HELD: milder, NEW: rule(NEW)})
    assert "2 held blocks are not on record yet: the next sync puts them there, and only an approval" in " ".join(lines)
    assert not any("--approve" in line for line in lines)
    assert any("--approve" in line for line in guarded({}, kept=[MARKED]))
    assert not any("--approve" in line or "record" in line for line in guarded({}, command=""))


def test_at_tape_a_lock_is_rucios_own() -> None:
    lines = guarded({MARKED: rule(MARKED, locked=True)}, kept=[MARKED], stops=[Stop(Limit.MARKED, "x")], held={})
    assert not any("--locked" in line for line in lines)


def test_what_is_kept_for_its_last_copy_is_a_part_of_its_own() -> None:
    due = datetime(2026, 1, 31, 13, tzinfo=UTC)
    lines = as_lines(
        plan(kept={HELD: "partly", NEW: "waiting (no node that has it can have it in Rucio)"}, pending={HELD: due}),
        now=AT,
    )
    assert lines[1].endswith(", 0 to remove, 2 kept, 12,431 unchanged")
    at = lines.index("2 blocks should not be there and stay, marked or not:")
    assert lines[at + 1].startswith(f"  = {HELD}  partly: complete at no node, and some node has files")
    assert lines[at + 2].startswith(f"  = {NEW}  waiting: complete at another node, and no node that has it can")
    assert lines[at + 2].endswith("until a person has helped")
    assert f"  x {HELD}  due from 2026-01-31 13:00 UTC on, and stays for now" in lines


def test_files_that_are_listed_no_more_wait_or_stay_with_the_reason() -> None:
    rules = {HELD: rule(HELD, left=True), NEW: rule(NEW)}
    found = plan(update={HELD: "files", NEW: "files"})
    assert any(
        line.startswith("1 block with files that PhEDEx lists no more: they leave when it says so again")
        for line in as_lines(found, rules, now=AT)
    )
    held = plan(update={HELD: "files"}, files="the list is not believed")
    assert "they stay: the list is not believed." in as_lines(held, rules, now=AT)[-1]
    many = plan(update={HELD: "files"}, files="20 files of 40", files_held=True)
    assert "Files that PhEDEx lists no more stay in their blocks: 20 files of 40." in as_lines(many, {}, now=AT)
    assert not any("lists no more" in line for line in as_lines(plan(update={NEW: "files"}), rules, now=AT))


def test_a_sweep_that_is_announced_is_told_with_who_and_since_when() -> None:
    since, until = datetime(2026, 1, 31, 11, 30, tzinfo=UTC), datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    one = Sweeping(key="phedex_sweeping.a", by="host:17", cycle="c", since=since, until=until, blocks=10)
    says = "A sweep is announced at T2_US_MIT since 2026-01-31 11:30 UTC by host:17, cycle c: it runs, or its end is"
    (line,) = [line for line in as_lines(plan(), {}, [one], now=AT) if "sweep" in line]
    assert line.startswith(says)
    assert line.endswith("It is of 10 blocks.")
    (line,) = [line for line in as_lines(plan(), {}, [one], now=until) if "sweep" in line]
    assert "its end was never told: over since 2026-01-31 12:30 UTC" in line
    (line,) = [line for line in as_lines(plan(), {}, [Sweeping(key="phedex_sweeping.b")], now=AT) if "sweep" in line]
    assert "phedex_sweeping.b, which nobody can read" in line
    data = as_data(
        plan(ruling=ruling(), remove={HELD: "nowhere"}),
        {HELD: rule(HELD, held_since=SINCE, held_why=Removal.NOWHERE), LOCKED: rule(LOCKED, locked=True)},
        [one],
    )
    assert data["on_record"] == {HELD: {"since": SINCE, "why": "nowhere"}}
    assert data["locked"] == {LOCKED: "rule-of-2"}
    assert data["sweeping"][0]["by"] == "host:17"


def test_a_doubt_is_never_in_sync() -> None:
    lines = as_lines(plan(doubts=["/A/*/*: too old"]), now=AT)
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
