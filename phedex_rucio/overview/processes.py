"""Which workers and schedulers are there, and is each alive and getting on? Beats in, rows out."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from common.errors import System
from common.messages.beats import Beat, InHand
from common.settings.model import Main
from phedex_rucio.overview.facts import Facts

MISSED = 3  # beats; then a process that did not end is silent
LATE = 2.0  # seconds that a beat may be on its way
MARGIN = 60.0  # seconds that a command may be over its time before it is said to hang
GONE = timedelta(minutes=15)  # so long a silent process is something wrong; later it is only history

State = Literal["starting", "ready", "held_up", "draining", "active", "standby", "ended", "silent"]


class Process(Struct, frozen=True, kw_only=True):
    """A process: its state, or `silent`; what it has in hand, and what of that hangs."""

    role: str
    name: str
    state: State
    heard: datetime
    version: str = ""
    threads: int = 0
    queues: list[str] = []
    in_hand: list[InHand] = []
    hanging: list[InHand] = []
    away: list[System] = []
    notes: list[str] = []

    @property
    def is_alive(self) -> bool:
        """True for a process that works, or waits to."""
        return self.state not in ("silent", "ended")


def processes(facts: Facts) -> list[Process]:
    """A row for each process that has said anything within the last hour, but for those that ended."""
    found = [_process(beat, facts.at, facts.settings.main) for beat in facts.beats]
    return [one for one in found if one.state != "ended"]


def gone(facts: Facts) -> list[Process]:
    """The silent ones that are history: what they had in hand, others have got since."""
    return [one for one in processes(facts) if one.state == "silent" and facts.at - one.heard > GONE]


def present(facts: Facts) -> list[Process]:
    """All others."""
    history = gone(facts)
    return [one for one in processes(facts) if one not in history]


def alive(facts: Facts, role: str) -> list[Process]:
    """The processes of a role that are there."""
    return [one for one in processes(facts) if one.role == role and one.is_alive]


def _process(beat: Beat, now: datetime, main: Main) -> Process:
    silent = beat.state != "ended" and (now - beat.at).total_seconds() > MISSED * beat.every + LATE
    return Process(
        role=beat.role,
        name=beat.name,
        state="silent" if silent else beat.state,
        heard=beat.at,
        version=beat.version,
        threads=beat.threads,
        queues=beat.queues,
        in_hand=beat.in_hand,
        hanging=[one for one in beat.in_hand if _hangs(one, now, main)],
        away=beat.away,
        notes=beat.notes,
    )


def _hangs(one: InHand, now: datetime, main: Main) -> bool:
    """Longer in hand than any command may be, or longer without a step than any single request may take."""
    request = max(main.phedex_timeout, main.rucio_timeout)
    in_hand, still = ((now - at).total_seconds() for at in (one.since, one.step_at))
    return in_hand > main.deadline + MARGIN or still > request + MARGIN
