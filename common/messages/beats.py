"""What does a process say of itself now and then? For people who look, never for a decision."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from common.errors import System
from common.messages.meta import Natural, Positive

Role = Literal["worker", "scheduler"]
# A worker is `held_up` while a system is away or everything dies; a scheduler is `active` while it holds the lease,
# else `standby`. `ended` is the last word of a process that was told to stop.
State = Literal["starting", "ready", "held_up", "draining", "active", "standby", "ended"]


class InHand(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """A command that a thread works on: since when, and when it was last at a border between two chunks."""

    kind: str
    key: str
    cycle: str
    since: datetime
    step_at: datetime


class Beat(Struct, tag_field="event", tag="beat", omit_defaults=True, frozen=True, kw_only=True):
    """One process at one moment. `every`: seconds until the next beat; long without one: gone or hanging.

    `notes`: what a person should know, such as a settings file that is not valid, with the last good one in force.
    """

    v: Positive = 1
    role: Role
    name: str
    version: str
    state: State
    started: datetime
    at: datetime
    every: float
    queues: list[str] = []
    threads: Natural = 0
    in_hand: list[InHand] = []
    away: list[System] = []
    notes: list[str] = []
