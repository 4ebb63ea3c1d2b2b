"""What is due now: turns, the pool, stalled cycles, deep ones."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from common.broker.roots import asked, rooted
from common.errors import System
from common.messages.commands import SyncSite
from common.messages.events import Asked, Away, Back, Closed, Event
from common.messages.meta import child_id
from common.outcome import Outcome
from common.settings.model import Dataset, Scheduled, Settings, Site
from producers import slots
from producers.agenda import Entry, Moment, Turn, _span, agenda, next_look
from producers.history import History
from producers.timetable import timetable

T0 = 1_760_000_000.0
DAY = 86_400.0


def at(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)


def entry(number: int = 1, every: float = 600, deep: float = 0) -> Entry:
    node = f"T2_IT_Site{number}"
    return Entry(node, SyncSite(node=node), every, deep)


def moment(now: float, **changes: object) -> Moment:
    usual = {"since": T0 - DAY, "pool": 10, "jitter": 60, "stalled_after": 21_600}
    return Moment(now=now, **(usual | changes))  # type: ignore[arg-type]


def begin(history: History, turn: Turn, now: float) -> str:
    event = replace(asked(rooted(turn.command, "test")), at=at(now))
    history.apply(event, now)
    return event.cycle


def close(cycle: str, now: float, children: int = 0, ident: str = "") -> Closed:
    return Closed(
        id=ident or cycle,
        cycle=cycle,
        command="sync.site",
        key="",
        run="r",
        children=children,
        outcome=Outcome.CHANGED,
        at=at(now),
    )


def due(entries: list[Entry], history: History, when: Moment) -> list[Turn]:
    return [turn for turn in agenda(entries, history, when) if not turn.waits]


def test_sixty_new_sites_are_spread_over_the_jitter_and_bounded_by_the_pool() -> None:
    entries = [entry(n) for n in range(60)]
    begun = [len(due(entries, History(), moment(T0 + s, since=T0, pool=100))) for s in (0, 15, 30, 60)]
    assert begun[0] <= 3
    assert 5 < begun[1] < begun[2] < begun[3] == 60
    assert len(due(entries, History(), moment(T0 + 60, since=T0))) == 10


def test_a_key_comes_again_at_its_own_turn_and_not_while_it_is_open() -> None:
    one, history = entry(), History()
    cycle = begin(history, due([one], history, moment(T0))[0], T0)
    assert slots.parsed(cycle) == (one.key, int(slots.at_or_before(T0, 600, one.key)))
    assert agenda([one], history, moment(T0 + 5000))[0].waits == f"{cycle} is open"
    history.apply(close(cycle, T0 + 10), T0 + 10)
    turn = agenda([one], history, moment(T0 + 11))[0]
    assert T0 + 300 <= turn.due <= T0 + 900
    assert turn.waits.startswith("due in ")
    assert next_look([turn], T0 + 11, 10_000) == turn.due - T0 - 11
    late = due([one], history, moment(T0 + 5000))
    assert len(late) == 1  # eight turns were missed: one is made up for
    assert late[0].slot == int(slots.at_or_before(T0 + 5000, 600, one.key))


def test_a_cycle_ends_with_its_last_child_in_any_order_and_doubled() -> None:
    one, history = entry(), History()
    cycle = begin(history, due([one], history, moment(T0))[0], T0)
    events: list[Event] = [close(cycle, T0, 2)]
    events += [close(cycle, T0 + n, ident=child_id(cycle, cycle, "r", n)) for n in range(2)]
    for event in [events[2], events[2], events[0], events[0]]:
        history.apply(event, T0 + 9)
        assert history.keys[one.key].is_open
    assert history.apply(events[1], T0 + 9)
    assert not history.apply(events[1], T0 + 9)
    assert not history.keys[one.key].is_open


def test_the_pool_goes_to_those_that_are_due_the_longest() -> None:
    entries, history = [entry(n) for n in range(9)], History()
    for turn in due(entries, history, moment(T0)):
        history.apply(close(begin(history, turn, T0 + len(turn.entry.key)), T0 + 30), T0 + 30)
    turns = agenda(entries, history, moment(T0 + 5000, pool=3))
    begun, waiting = [t for t in turns if not t.waits], [t for t in turns if t.waits]
    assert len(begun) == 3
    assert max(t.due for t in begun) <= min(t.due for t in waiting)
    assert {t.waits for t in waiting} == {"the pool is full (3 cycles are open)"}


def test_a_stalled_cycle_is_planned_again_once_its_queue_is_empty() -> None:
    one, history = entry(), History()
    cycle = begin(history, due([one], history, moment(T0))[0], T0)
    late = T0 + 21_601
    assert due([one], history, moment(late - 5)) == []
    held = agenda([one], history, moment(late, waiting=frozenset({"sync.site"})))[0]
    assert held.waits == f"{cycle} is stalled, and sync.site has commands that wait"
    again = due([one], history, moment(late, pool=1))
    assert [turn.stalled for turn in again] == [True]
    other = begin(history, again[0], late)
    assert other != cycle
    history.apply(close(cycle, late), late)  # the old one's word comes after all, and ends nothing
    assert history.keys[one.key].is_open


def test_while_a_system_is_away_nothing_stalls() -> None:
    one, history = entry(), History()
    cycle = begin(history, due([one], history, moment(T0))[0], T0)
    history.apply(Away(system=System.RUCIO, worker="w", since=at(T0), at=at(T0 + 9)), T0 + 9)
    assert due([one], history, moment(T0 + 30_000)) == []
    history.apply(Back(system=System.RUCIO, worker="v", since=at(T0), at=at(T0 + 30_000)), T0 + 30_000)
    assert agenda([one], history, moment(T0 + 40_000))[0].waits == f"{cycle} is open"
    assert len(due([one], history, moment(T0 + 52_000))) == 1


def test_deep_comes_once_in_its_interval_and_is_remembered() -> None:
    one, history, deep = entry(deep=10 * 600), History(), []
    for number in range(100):
        now = T0 + number * 600
        for turn in due([one], history, moment(now)):
            deep += [now] if turn.deep else []
            history.apply(close(begin(history, turn, now), now), now)
    assert 8 <= len(deep) <= 10
    assert {later - sooner for sooner, later in itertools.pairwise(deep)} <= {5400, 6000, 6600}


def test_memory_keeps_the_last_cycle_of_a_key_alone() -> None:
    one, history = entry(), History()
    for number in range(50):
        now = T0 + number * 1200
        history.apply(close(begin(history, due([one], history, moment(now))[0], now), now), now)
    assert len(history._state.by_name) == len(history.keys) == 1
    history.apply(Asked(id="20260101T000000-ab", cycle="20260101T000000-ab", command={}, at=at(T0)), T0)
    assert len(history.keys) == 1


def ended(one: Entry, history: History, now: float) -> str:
    """A cycle of an entry begins and ends at once."""
    cycle = begin(history, due([one], history, moment(now))[0], now)
    history.apply(close(cycle, now), now)
    return cycle


def test_a_site_that_is_never_due_holds_up_nobody() -> None:
    """`every: 0`: there are no turns of it, whether or not a cycle of its name is known."""
    never, other, history = Entry("T2_IT_Never", SyncSite(node="T2_IT_Never"), 0, off="every is 0"), entry(), History()
    for now in (T0, T0 + 1000):
        turns = {turn.entry.key: turn for turn in agenda([never, other], history, moment(now, since=T0 - 9))}
        assert turns[never.key].waits == "every is 0"
        assert turns[never.key].due == T0 - 9
        assert turns[never.key].slot == int(now)
        assert not turns[never.key].deep
        asked_for = Asked(id="x", cycle=slots.cycle_of(never.key, int(T0)), command={}, at=at(T0))
        history.apply(asked_for, T0)
    assert history.keys[never.key].is_open


def test_a_command_of_the_clock_that_is_never_due_is_due_at_once_where_nothing_forbids_it() -> None:
    never, history = entry(every=0), History()
    (turn,) = agenda([never], history, moment(T0 + 0.5))
    assert (turn.waits, turn.slot, turn.due) == ("", int(T0), T0 - DAY)


def test_a_key_s_next_turn_is_the_first_that_is_half_an_interval_after_the_last_start() -> None:
    one = entry()
    for start in range(0, 1200, 50):
        history = History()
        ended(one, history, T0 + start)
        (turn,) = agenda([one], history, moment(T0 + start + 1))
        assert turn.due == slots.at_or_after(T0 + start + 300, 600, one.key)


def test_what_is_due_exactly_now_begins_now() -> None:
    one, history = entry(), History()
    ended(one, history, T0)
    turn = agenda([one], history, moment(T0 + 1))[0]
    assert turn.waits
    assert agenda([one], history, moment(turn.due - 0.001))[0].waits == "due in 0 s"
    assert agenda([one], history, moment(turn.due))[0].waits == ""


def test_what_was_due_before_the_scheduler_began_is_spread_from_then_on() -> None:
    """Over the jitter, or over the interval where that is shorter; a turn at that very moment too."""
    one, history = entry(), History()
    ended(one, history, T0)
    regular = agenda([one], history, moment(T0 + 1))[0].due
    spread = slots.fraction(one.key) * 60
    assert agenda([one], history, moment(T0 + 1, since=regular - 0.001))[0].due == regular
    assert agenda([one], history, moment(T0 + 1, since=regular))[0].due == regular + spread
    assert agenda([one], history, moment(T0 + 1, since=regular + 9))[0].due == regular + 9 + spread
    often = entry(every=20)
    assert agenda([often], History(), moment(T0, since=T0))[0].due == T0 + slots.fraction(one.key) * 20


def test_two_cycles_of_a_key_never_share_a_name() -> None:
    """Where a turn's name is used up (a command by hand, a clock that was ahead), the next second's is taken."""
    one, history = entry(), History()
    cycle = ended(one, history, T0)
    _, slot = slots.parsed(cycle) or ("", 0)
    (turn,) = agenda([one], history, moment(T0 + 1))
    assert (turn.slot, turn.command.meta.id) == (slot + 1, slots.cycle_of(one.key, slot + 1))


def test_those_due_at_the_same_moment_come_by_name() -> None:
    entries = [entry(3), entry(1), entry(2)]
    turns = agenda(entries, History(), moment(T0, jitter=0))
    assert [turn.entry.key for turn in turns] == ["T2_IT_Site1", "T2_IT_Site2", "T2_IT_Site3"]
    full = agenda(entries, History(), moment(T0, jitter=0, pool=2))
    assert [turn.waits for turn in full] == ["", "", "the pool is full (2 cycles are open)"]


def test_an_open_cycle_takes_room_and_what_waits_does_not() -> None:
    first, second, off = entry(1), entry(2), Entry("T2_IT_Off", SyncSite(node="T2_IT_Off"), 600, off="switched off")
    history = History()
    begin(history, due([first], history, moment(T0))[0], T0)
    assert [t.entry.key for t in due([off, first, second], history, moment(T0 + 60, pool=2))] == [second.key]
    full = {turn.entry.key: turn.waits for turn in agenda([off, first, second], history, moment(T0 + 60, pool=1))}
    assert full[off.key] == "switched off"  # room would not help it
    assert full[first.key].endswith(" is open")
    assert full[second.key] == "the pool is full (1 cycles are open)"


def test_switched_off_is_the_reason_whatever_else_holds() -> None:
    one, history = entry(), History()
    begin(history, due([one], history, moment(T0))[0], T0)
    off = Entry(one.key, one.command, one.every, off="switched off")
    for now in (T0 + 1, T0 + 30_000):
        assert agenda([off], history, moment(now))[0].waits == "switched off"


def test_a_stalled_cycle_whose_plan_is_done_waits_for_its_batches() -> None:
    one, history = entry(), History()
    cycle = begin(history, due([one], history, moment(T0))[0], T0)
    history.apply(close(cycle, T0, children=2), T0)
    late = T0 + 21_601
    (held,) = agenda([one], history, moment(late, waiting=frozenset({"sync.blocks"})))
    assert held.waits == f"{cycle} is stalled, and sync.blocks has commands that wait"
    assert held.stalled
    (again,) = agenda([one], history, moment(late, waiting=frozenset({"sync.site", "sync.dataset"})))
    assert again.waits == ""


def test_a_deep_turn_counts_from_the_first_start_and_then_from_the_last_deep_one() -> None:
    """A turn at the very moment of a start was that start's."""
    one, history = entry(deep=6000), History()
    turn = slots.at_or_after(T0, 6000, f"deep {one.key}")
    (first,) = agenda([one], history, moment(turn))
    assert not first.deep  # it adds what is missing, and with that compares every file
    ended(one, history, turn)
    for later, deep in [(1000, False), (5999, False), (6000, True)]:
        (found,) = agenda([one], history, moment(turn + later))
        assert found.deep is deep
        assert found.command == replace(found.command, deep=deep)
    ended(one, history, turn + 6500)
    assert history.keys[one.key].deep == turn + 6500
    assert [agenda([one], history, moment(turn + n))[0].deep for n in (7500, 11_999, 12_000)] == [False, False, True]


def test_without_a_deep_interval_nothing_is_deep() -> None:
    one, history = entry(deep=0), History()
    ended(one, history, T0)
    assert not agenda([one], history, moment(T0 + 100 * DAY))[0].deep


def turn_at(due: float, waits: str = "due", off: str = "") -> Turn:
    return Turn(Entry("k", SyncSite(node="T2_IT_Pisa"), 600, off=off), due, waits, 0, deep=False, known=None)


@pytest.mark.parametrize(
    ("turns", "seconds"),
    [
        ([], 10),
        ([turn_at(T0 + 3), turn_at(T0 + 2)], 2),
        ([turn_at(T0 + 30)], 10),
        ([turn_at(T0 + 3, off="switched off")], 10),
        ([turn_at(T0), turn_at(T0 - 5)], 10),  # it waits for an event, which wakes
        ([turn_at(T0 + 3, waits="")], 10),
    ],
)
def test_the_next_look_is_when_something_becomes_due(turns: list[Turn], seconds: float) -> None:
    assert next_look(turns, T0, 10) == seconds


def test_a_span_for_people() -> None:
    spans = {
        0: "0 s",
        45: "45 s",
        89: "89 s",
        90: "2 min",
        720: "12 min",
        5399: "90 min",
        5400: "1.5 h",
        9000: "2.5 h",
        3_600_000: "1000.0 h",
    }
    assert {seconds: _span(seconds) for seconds in spans} == spans


def test_the_timetable_is_the_settings() -> None:
    settings = Settings(
        sites={
            "T2_IT_Pisa": Site(every=900),
            "T2_US_MIT": Site(run="until:2020-01-01:00:00:00"),
            "T2_DE_DESY": Site(every=0),
        },
        datasets=[Dataset(dataset="/A/*/RAW", nodes=["T2_IT_Pisa"], deep=7)],
        schedule=[Scheduled(kind="sync.site", every=60, fields={"node": "T2_CH_CERN", "adds_only": True})],
    )
    found = timetable(settings, at(T0), at(T0))
    assert [(e.key, e.every, e.deep, bool(e.off)) for e in found] == [
        ("T2_IT_Pisa", 900, 604_800, False),
        ("T2_US_MIT", 600, 604_800, True),
        ("T2_DE_DESY", 0, 604_800, True),
        ("/A/*/RAW", 86_400, 7, False),
        ("sync.site:T2_CH_CERN", 60, 0, False),
    ]
    assert found[4].command == SyncSite(node="T2_CH_CERN", adds_only=True)
