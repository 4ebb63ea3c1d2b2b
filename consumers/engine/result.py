"""What does a handler give back? It never publishes, acknowledges or retries by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from common.errors import PhedexRucioError
from common.messages.commands import Command
from common.messages.events import Change, GuardReport
from common.outcome import Outcome

log = logging.getLogger("phedex_rucio.worker")


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
    """How a command ended. `follow` is lazy: children are published, confirmed, before the command is acknowledged.

    `as_of`: PhEDEx' own time of the reading that a whole plan stands on. `after`: called once the command is settled,
    that is, its event is confirmed and its message acknowledged; if it fails, that is logged and changes nothing.
    """

    outcome: Outcome
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    guard: GuardReport | None = None
    as_of: datetime | None = None
    follow: Iterable[Command | Failed] = ()
    after: Callable[[], None] | None = None

    def done(self) -> None:
        """The command is settled: what is to be done after that is done, as far as it can be."""
        if self.after is None:
            return
        try:
            self.after()
        except Exception:
            log.exception("a command is settled, but what should be done after it failed")
