"""When is a key's turn, and what is the cycle of a turn called? From the clock and the key's name alone.

Every scheduler computes the same, so a second one that sends the same turn adds no second cycle.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from functools import lru_cache

STAMP = "%Y%m%dT%H%M%S"


@lru_cache(maxsize=10_000)
def fraction(key: str) -> float:
    """A number from 0 up to 1 that is always the same for a key: it spreads the keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def at_or_before(time: float, every: float, key: str) -> float:
    """The last turn of a key that is not after a time (seconds since 1970), one turn every so many seconds."""
    phase = fraction(key) * every
    return phase + math.floor((time - phase) / every) * every


def at_or_after(time: float, every: float, key: str) -> float:
    """The first turn of a key that is not before a time."""
    phase = fraction(key) * every
    return phase + math.ceil((time - phase) / every) * every


def cycle_of(key: str, slot: int) -> str:
    """The name of the cycle of a key's turn: `T2_IT_Pisa@20260105T101500`."""
    return f"{key}@{datetime.fromtimestamp(slot, UTC):{STAMP}}"


@lru_cache(maxsize=10_000)
def parsed(cycle: str) -> tuple[str, int] | None:
    """The key and the turn in a cycle's name; None for a cycle that no scheduler began."""
    key, at, stamp = cycle.rpartition("@")
    try:
        begun = datetime.strptime(stamp, STAMP).replace(tzinfo=UTC) if at and key else None
    except ValueError:
        return None
    return None if begun is None else (key, int(begun.timestamp()))
