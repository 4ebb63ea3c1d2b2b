"""How many requests did this thread send to each system, and how long did it wait for them?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from common.errors import System

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Spent:
    """Requests and seconds, of one thread since it began, or of a piece of its work."""

    requests: int = 0
    seconds: float = 0.0

    def since(self, earlier: Spent) -> Spent:
        """What came after `earlier`."""
        return Spent(self.requests - earlier.requests, self.seconds - earlier.seconds)


class _Sums(threading.local):
    def __init__(self) -> None:
        self.by_system: dict[System, Spent] = {}


_sums = _Sums()


def note(system: System, seconds: float) -> None:
    """This thread has sent one more request."""
    before = _sums.by_system.get(system, Spent())
    _sums.by_system[system] = Spent(before.requests + 1, before.seconds + seconds)


def as_ours(work: Callable[P, T]) -> Callable[P, T]:
    """The same work for another thread: what it spends there is this thread's, which asks no system that it asks."""
    sums = _sums.by_system

    def run(*args: P.args, **options: P.kwargs) -> T:
        _sums.by_system = sums
        return work(*args, **options)

    return run


def so_far(system: System) -> Spent:
    """What this thread has spent on a system."""
    return _sums.by_system.get(system, Spent())
