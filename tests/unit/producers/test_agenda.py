"""What is due now: turns, the pool, stalled cycles, deep ones."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from msgspec.structs import replace

from common.broker.roots import asked, rooted
from common.errors import System
from common.messages.commands import SyncSite
from common.messages.events import Asked, Away, Back, Closed, Event
from common.messages.meta import child_id
from common.outcome import Outcome
from common.settings.model import Dataset, Scheduled, Settings, Site
from producers import slots
from producers.agenda import Entry, Moment, Turn, agenda, next_look
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
