"""What does every command carry besides its question?"""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta as Constraint
from msgspec import Struct, field

MAX_ERRORS = 5
Lane = Literal["now", "bulk"]
Positive = Annotated[int, Constraint(ge=1)]
Natural = Annotated[int, Constraint(ge=0)]


class Failure(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """One failed attempt: the error's class, its message, when; a short traceback with the last one only."""

    class_: str = field(name="class")
    message: str
    at: datetime
    traceback: str = ""


class Meta(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """Where a command comes from and what it has been through. All of it optional when written by hand."""

    id: str = ""
    cycle: str = ""
    parent: str = ""
    lane: Lane = "bulk"
    attempt: Positive = 1
    first_at: datetime | None = None
    by: str = ""
    killed: Natural = 0
    errors: Annotated[list[Failure], Constraint(max_length=MAX_ERRORS)] = []
    traceparent: str = ""


def now() -> datetime:
    """The time of day in UTC: for people and for trust checks, never for durations."""
    return datetime.now(UTC)


def new_id() -> str:
    """An id for a command that somebody sends: sorts by time, unique without a registry."""
    return f"{now():%Y%m%dT%H%M%S}-{secrets.token_hex(5)}"


def new_run() -> str:
    """The name of one execution of one command: another for every attempt and every redelivery."""
    return secrets.token_hex(8)


def child_id(cycle: str, parent: str, run: str, number: int) -> str:
    """The id of the number-th child of an execution; readers of the `closed` event compute the same."""
    digest = hashlib.sha256(f"{parent}\n{run}\n{number}".encode()).hexdigest()
    return f"{cycle}/{digest[:16]}"
