"""What does each thread work on, and is it getting on? Kept for the beats, the metrics and /healthz."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from common.messages.beats import InHand
from common.messages.commands import Command, kind_of
from common.messages.meta import now

ONE_STEP = frozenset({"upload"})  # a transfer is one step, of any length


class Busy:
    """The commands in hand, by thread; any thread may look. Without a lock: a dict's single operations are atomic."""

    def __init__(self) -> None:
        self._by_thread: dict[int, InHand] = {}
        self._stepped: dict[int, tuple[Command, float]] = {}

    @contextmanager
    def on(self, command: Command) -> Iterator[None]:
        """The command is in this thread's hand while the block lasts."""
        at, me = now(), threading.get_ident()
        self._by_thread[me] = InHand(
            kind=kind_of(command), key=command.key, cycle=command.meta.cycle, since=at, step_at=at
        )
        try:
            yield
        finally:
            del self._by_thread[me]

    @contextmanager
    def handling(self, command: Command) -> Iterator[None]:
        """This thread's handler works while the block lasts: nothing that it waits for is without a limit.

        Before and after it, a command in hand may wait for a system or for the broker, for however long that takes.
        """
        me = threading.get_ident()
        self._stepped[me] = (command, time.monotonic())
        try:
            yield
        finally:
            del self._stepped[me]

    def stillest(self) -> tuple[str, float]:
        """The command whose handler took no step for longest, `kind key`, and the seconds; "" and 0 for none."""
        moving = [one for one in list(self._stepped.values()) if kind_of(one[0]) not in ONE_STEP]
        if not moving:
            return "", 0.0
        command, at = min(moving, key=lambda one: one[1])
        return f"{kind_of(command)} {command.key}", time.monotonic() - at

    def step(self) -> None:
        """This thread's command has got to a border between two chunks."""
        me = threading.get_ident()
        if me in self._by_thread:
            self._by_thread[me] = replace(self._by_thread[me], step_at=now())
        if me in self._stepped:
            self._stepped[me] = (self._stepped[me][0], time.monotonic())

    def all(self) -> list[InHand]:
        """What is in hand now, the oldest first."""
        return sorted(self._by_thread.values(), key=lambda one: one.since)
