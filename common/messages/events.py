"""Which events tell what became of a command?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from common.errors import System
from common.messages.meta import Failure, Natural, Positive
from common.outcome import Outcome


class Asked(Struct, tag_field="event", tag="asked", omit_defaults=True, frozen=True, kw_only=True):
    """Somebody sends the root command of a cycle: published and confirmed before the command itself."""

    v: Positive = 1
    id: str
    cycle: str
    command: dict[str, Any]
    at: datetime


class GuardReport(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """What the guard said of a plan's removals, and who approved them where somebody did.

    `limit`: the weightiest that was met, "" where an approval let all pass; `most`: its value. `share` (of 1), `number`
    and `bytes`: what would be marked if all of it were, what is marked already included. `checksum`: of that set.
    `override`: the command that lets pass what is held and on record; where nothing is, the approval that was given.
    `everywhere`: the same for all nodes, where all that is held is of one dataset.
    """

    limit: str = ""
    share: float
    number: int
    bytes: int = 0
    most: float = 0
    held: int = 0
    says: list[str] = []
    checksum: str = ""
    override: str = ""
    everywhere: str = ""
    approved_by: str = ""
    reason: str = ""


class Change(Struct, omit_defaults=True, frozen=True, kw_only=True):
    """One thing that was written, or would be: what it is (such as `attribute`), its name, what it was and becomes."""

    what: str
    name: str
    was: str = ""
    wants: str = ""


class Closed(Struct, tag_field="event", tag="closed", omit_defaults=True, frozen=True, kw_only=True):
    """One execution of a command ended; its children have the ids `child_id(cycle, id, run, 0 … children - 1)`.

    `command` is the kind. `counts` are numbers of blocks unless the key says files, bytes or requests. `as_of`: PhEDEx'
    own time of the reading that a whole plan stands on.
    """

    v: Positive = 1
    id: str
    cycle: str
    command: str
    key: str
    run: str
    children: Natural = 0
    outcome: Outcome
    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    notes: list[str] = []
    changes: list[Change] = []
    guard: GuardReport | None = None
    attempt: Positive = 1
    seconds: float = 0.0
    as_of: datetime | None = None
    worker: str = ""
    at: datetime
    error: Failure | None = None


class Retrying(Struct, tag_field="event", tag="retrying", omit_defaults=True, frozen=True, kw_only=True):
    """An attempt failed; the command waits and is tried again at `next_at`."""

    v: Positive = 1
    id: str
    cycle: str
    attempt: Positive
    next_at: datetime
    error: Failure
    at: datetime


class Away(Struct, tag_field="event", tag="away", omit_defaults=True, frozen=True, kw_only=True):
    """A worker found that a system does not answer, and stops taking what needs it."""

    v: Positive = 1
    system: System
    worker: str
    since: datetime
    reason: str = ""
    at: datetime


class Back(Struct, tag_field="event", tag="back", omit_defaults=True, frozen=True, kw_only=True):
    """A worker found that a system answers again."""

    v: Positive = 1
    system: System
    worker: str
    since: datetime
    at: datetime


Event = Asked | Closed | Retrying | Away | Back


def topic_of(event: Event) -> str:
    """The routing key of an event: its word, such as `closed`."""
    return str(type(event).__struct_config__.tag)
