"""What do the events of a run tell? Cycles, retries and removals; and for scheduled cycles whether each key had its
turn, and never two at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from common import cycles
from common.errors import PhedexRucioError, System
from common.messages.events import Asked, Away, Back, Closed, Event, Retrying
from producers.slots import parsed


def _errors(kind: type[PhedexRucioError]) -> Iterator[tuple[str, System | None]]:
    yield kind.__name__, kind.system
    for other in kind.__subclasses__():
        yield from _errors(other)


_TIMES = re.compile(r"look to sending (\d+\.\d+) s, to answer (\d+\.\d+) s")

systems = dict(_errors(PhedexRucioError))


@dataclass
class Heard:
    """What the events say of the whole run, and the removals that they tell of."""

    state: cycles.Cycles = field(default_factory=cycles.Cycles)
    retrying: list[Retrying] = field(default_factory=list)
    swept: list[Closed] = field(default_factory=list)

    def take(self, event: Event) -> None:
        cycles.apply(self.state, event)
        if isinstance(event, Retrying):
            self.retrying.append(event)
        if isinstance(event, Closed) and event.names.get("swept"):
            self.swept.append(event)

    def open(self, asked: Iterable[str]) -> list[str]:
        return [name for name in asked if name not in self.state.by_name or not self.state.by_name[name].finished]

    def wasted(self, outages: list[tuple[System, datetime, datetime]]) -> list[str]:
        """The attempts that were counted against a message while the system that failed it was away."""
        return [
            f"wasted on an outage: {event.id} {event.error.class_} at {event.error.at:%T}"
            for event in self.retrying
            for system, since, until in outages
            if since < event.error.at < until and systems.get(event.error.class_) is system
        ]

    def dead(self) -> list[str]:
        """The commands that died, each with when and why its attempts failed."""
        every = [closed for cycle in self.state.by_name.values() for closed in cycle.closed.values()]
        return [self._died(closed) for closed in every if closed.outcome == "dead"]

    def _died(self, closed: Closed) -> str:
        before = {one.attempt: one.error for one in self.retrying if one.id == closed.id}
        errors = [error for _, error in sorted(before.items())] + ([closed.error] if closed.error else [])
        tries = ", ".join(f"{error.at:%T} {error.class_}" for error in errors)
        last = errors[-1].message[:200] if errors else "no error"
        return f"dead: {closed.command} {closed.key}: {tries}: {last}"


@dataclass(frozen=True)
class RemovalTimes:
    """Deletions of replicas: how many, and the largest seconds from the look to the sending and to the answer."""

    number: int
    sending: float
    answer: float


def removal_times(log: str) -> RemovalTimes:
    """What the workers' log tells of their deletions. One without an answer is not among them."""
    times = [(float(sending), float(answer)) for sending, answer in _TIMES.findall(log)]
    sending, answer = zip(*times, strict=True) if times else ((0.0,), (0.0,))
    return RemovalTimes(len(times), max(sending), max(answer))


@dataclass
class Turns:
    """The scheduled cycles of each key, in the order of the stream.

    `ends`: when each of its cycles was first finished. `doubled`: was asked for while another one of the key had never
    been finished. `reopened`: was asked for while a finished one had been opened again, by what a killed worker had not
    acknowledged: no scheduler can know of that in time. `marks`: who got the lease, and when.
    """

    asked: list[str] = field(default_factory=list)
    ends: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    doubled: list[str] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)
    marks: list[tuple[datetime, str]] = field(default_factory=list)
    _of_key: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _ended: set[str] = field(default_factory=set)

    def take(self, event: Event, state: cycles.Cycles) -> None:
        """The event, which the state knows already."""
        if isinstance(event, Back) and event.system is System.BROKER:
            self.marks.append((event.at, event.worker))
        elif not isinstance(event, Away | Back) and (turn := parsed(event.cycle)) is not None:
            if isinstance(event, Asked):
                self._begin(turn[0], event.cycle, state)
            elif event.cycle not in self._ended and state.by_name[event.cycle].finished:
                self._ended.add(event.cycle)
                self.ends[turn[0]].append(event.at)

    def _begin(self, key: str, cycle: str, state: cycles.Cycles) -> None:
        if cycle in self._of_key[key]:
            return  # the same turn, sent twice under one name
        open_ones = [name for name in self._of_key[key] if not state.by_name[name].finished]
        for name in open_ones:
            (self.reopened if name in self._ended else self.doubled).append(f"{cycle} while {name} is open")
        self._of_key[key].add(cycle)
        self.asked.append(cycle)

    def largest_gap(self, keys: Iterable[str], begun: datetime, until: datetime) -> tuple[timedelta, str]:
        """The longest time in which a key had no cycle finished, and the key."""
        return max((self._gap(key, begun, until), key) for key in keys)

    def _gap(self, key: str, begun: datetime, until: datetime) -> timedelta:
        times = [begun, *sorted(self.ends[key]), until]
        return max(after - before for before, after in pairwise(times))

    def takeover(self, killed: str, at: datetime) -> timedelta | None:
        """How long nobody held the lease after its holder was killed; None while nobody has got it since."""
        later = [mark for mark, name in self.marks if mark > at and name != killed]
        return min(later) - at if later else None
