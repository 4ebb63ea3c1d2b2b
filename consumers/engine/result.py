"""What does a handler give back? It never publishes, acknowledges or retries by itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from common.errors import PhedexRucioError
from common.messages.commands import Command
from common.messages.events import GuardReport
from common.outcome import Outcome


class Stop(Exception):
    """Raised by `world.checkpoint()` when a handler is to end here: the deadline, a drain, or SIGTERM.

    A handler that has done something catches it and returns what is left as a child; one that has done nothing
    lets it pass, and the command itself goes back.
    """


@dataclass(frozen=True)
class Failed:
    """A part of a command that failed by itself: it goes on alone, one attempt further, with its own error."""

    command: Command
    error: PhedexRucioError


@dataclass(frozen=True)
class Result:
    """How a command ended. `follow` is lazy: children are published, confirmed, before the command is acknowledged."""

    outcome: Outcome
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    guard: GuardReport | None = None
    follow: Iterable[Command | Failed] = ()
