"""How are times said to people?"""

from __future__ import annotations

from datetime import datetime, timedelta

_STEPS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"))


def age(span: timedelta | float) -> str:
    """`12 s`, `4 min`, `2 h 10 min`, `3 d 4 h`; what is in the future is `0 s`."""
    seconds = max(0, round(span.total_seconds() if isinstance(span, timedelta) else span))
    for size, unit, smaller, small in _STEPS:
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


def clock(at: datetime, now: datetime) -> str:
    """`03:12`, and with its day if that is not today's."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%b %d %H:%M}"


def since(at: datetime, now: datetime) -> str:
    """`since 03:12 (2 h)`."""
    return f"since {clock(at, now)} ({age(now - at)})"


def listed(items: list[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest:,} more" if rest > 0 else "")
