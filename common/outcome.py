"""Which words say how a command ended?"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Outcome(StrEnum):
    """How a command ended: the same words in code, logs, metrics, events and documents."""

    IN_SYNC = "in_sync"
    CHANGED = "changed"
    HELD = "held"
    SKIPPED = "skipped"
    DEAD = "dead"
    DROPPED = "dropped"


# From best to worst: a cycle is as good as the worst of its parts.
_ORDER = (Outcome.IN_SYNC, Outcome.SKIPPED, Outcome.CHANGED, Outcome.HELD, Outcome.DROPPED, Outcome.DEAD)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes; `in_sync` of none."""
    return max(outcomes, key=_ORDER.index, default=Outcome.IN_SYNC)


class Exit:
    """Exit codes of every command line, after the conventions of terraform, rclone and gh."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DIFFERENCES = 3
    HELD = 4
    AWAY = 5
    AUTHENTICATION = 6
    INTERRUPTED = 130


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """The exit code of many parts: something failed beats something held, which beats all done."""
    found = set(outcomes)
    if found & {Outcome.DEAD, Outcome.DROPPED}:
        return Exit.FAILED
    return Exit.HELD if Outcome.HELD in found else Exit.DONE
