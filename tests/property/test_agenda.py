"""Whatever the clocks, the order of the events and the restarts: one open cycle a key, never more than the pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from common.broker.roots import asked, rooted
from common.messages.commands import SyncSite
from common.messages.events import Closed, Event
from common.messages.meta import child_id
from common.outcome import Outcome
from producers.agenda import Entry, Moment, agenda
from producers.history import History

T0 = 1_760_000_000.0
DAY = 86_400.0
EVERY, JITTER, POOL = 600.0, 60.0, 3
ENTRIES = [Entry(f"T2_IT_Site{n}", SyncSite(node=f"T2_IT_Site{n}"), EVERY, deep=3600) for n in range(6)]


@dataclass
class Process:
    """A scheduler: its steady clock, set by the wall clock of its start, and what it has folded."""

    ahead: float
    since: float
    history: History = field(default_factory=History)


@dataclass
class World:
    """The true time, a wall clock that may be a day off, the stream, and which cycles are open in truth."""

    random: Random
    time: float = T0
    wall: float = 0.0
    stream: list[Event] = field(default_factory=list)
    open: dict[str, str] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    restarts: int = 0

    def at(self) -> datetime:
        return datetime.fromtimestamp(self.time + self.wall, UTC)

    def started(self) -> Process:
        """A new scheduler (the one before is gone): it reads all that is kept, some of it twice."""
        self.restarts += 1
        process = Process(self.wall, self.time + self.wall)
        for event in self.stream:
            for _ in range(self.random.choice((1, 1, 2))):
                process.history.apply(event, process.since)
        return process

    def look(self, process: Process) -> None:
        """What is due is sent; nothing may be sent that must not."""
        now = self.time + process.ahead
        moment = Moment(now, process.since, POOL, JITTER, stalled_after=10 * DAY)
        for turn in agenda(ENTRIES, process.history, moment):
            if turn.waits:
                continue
            event = replace(asked(rooted(turn.command, "test")), at=self.at())
            assert turn.entry.key not in self.open
            assert event.cycle not in {known.cycle for known in self.stream}  # type: ignore[union-attr]
            self.open[turn.entry.key] = event.cycle
            assert len(self.open) <= POOL
            self.starts.append((self.time, turn.entry.key))
            self.tell(process, [event])

    def finish(self, process: Process, key: str) -> None:
        """The cycle of a key ends, in two parts, told doubled and in any order."""
        cycle = self.open.pop(key)
        child = child_id(cycle, cycle, "r", 0)
        parts = [self.closed(cycle, cycle, 1), self.closed(cycle, child, 0)] * 2
        self.random.shuffle(parts)
        self.tell(process, parts)

    def closed(self, cycle: str, ident: str, children: int) -> Event:
        return Closed(
            id=ident,
            cycle=cycle,
            command="sync.site",
            key="",
            run="r",
            children=children,
            outcome=Outcome.IN_SYNC,
            at=self.at(),
        )

    def tell(self, process: Process, events: list[Event]) -> None:
        self.stream += events
        for event in events:
            process.history.apply(event, self.time + process.ahead, live=True)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.floats(1, 900)),
        st.tuples(st.just("wander"), st.floats(-DAY, DAY)),
        st.tuples(st.just("restart"), st.just(0.0)),
        st.tuples(st.just("finish"), st.floats(0, 0.999)),
        st.tuples(st.just("finish"), st.floats(0, 0.999)),
    ),
    max_size=60,
)


@given(steps, st.randoms(use_true_random=False))
def test_one_open_cycle_a_key_and_every_key_again(todo: list[tuple[str, float]], random: Random) -> None:
    world = World(random)
    process = world.started()
    for what, value in todo:
        if what == "pass":
            world.time += value
        elif what == "wander":
            world.wall = value
        elif what == "restart":
            process = world.started()
        elif world.open:
            world.finish(process, sorted(world.open)[int(value * len(world.open))])
        world.look(process)
    # No bursts: half an interval lies between two starts of a key, but for one more after each restart.
    for number in Counter(key for _, key in world.starts).values():
        assert number <= (world.time - T0) / (EVERY / 2) + world.restarts + 1
    _every_key_comes_again(world, process)


def _every_key_comes_again(world: World, process: Process) -> None:
    """Where all goes well again, each key begins within one and a half intervals, the spread, and its turn's wait."""
    begun, before = world.time, len(world.starts)
    while world.time < begun + 1.5 * EVERY + JITTER + 60:
        for key in sorted(world.open):
            world.finish(process, key)
        world.look(process)
        world.time += 10
    assert {key for _, key in world.starts[before:]} == {entry.key for entry in ENTRIES}


@given(st.integers(0, 5))
def test_two_schedulers_that_both_send_add_no_second_cycle(done: int) -> None:
    """Both have read the same and look at about the same time: the names are the same, so the cycles are."""
    world = World(Random(0))
    process = world.started()
    for _ in range(done):
        world.time += EVERY
        world.look(process)
        for key in sorted(world.open):
            world.finish(process, key)
    world.time += 2 * EVERY
    first, second = (
        {turn.entry.key: turn.slot for turn in agenda(ENTRIES, one.history, _moment(world, one)) if not turn.waits}
        for one in (process, world.started())
    )
    assert all(second[key] == slot for key, slot in first.items() if key in second)


def _moment(world: World, process: Process) -> Moment:
    return Moment(world.time + process.ahead, float("-inf"), POOL, JITTER, 10 * DAY)
