"""How long does a failed command wait before its next attempt?"""

from __future__ import annotations


def wait_index(attempt: int, waits: int) -> int:
    """The wait queue after the attempt-th failure, counted from 0: one further each time, then always the last.

    Four delays 30 s, 5 m, 30 m, 3 h: attempts 1, 2, 3, 4, 5, … wait in queue 0, 1, 2, 3, 3, …
    """
    return min(attempt, waits) - 1
