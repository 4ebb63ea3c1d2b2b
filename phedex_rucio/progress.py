"""How far is it? One line that moves on a terminal, and elsewhere a line now and then, so that a log shows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from common.cycles import Cycles
from phedex_rucio import summary

PERIOD = 0.2
LOG_PERIOD = 10.0


class Bar:
    """Shows the progress of some cycles on stderr while it is open."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.roots = roots
        self._terminal = sys.stderr.isatty()
        self._next = 0.0 if self._terminal else time.monotonic() + LOG_PERIOD
        console = Console(stderr=True, highlight=False, markup=False)
        done = TextColumn("{task.fields[done]}", markup=False, table_column=Column(no_wrap=True, overflow="ignore"))
        self._bar = Progress(
            done, BarColumn(), TimeElapsedColumn(), console=console, transient=True, disable=not self._terminal
        )
        self._task = self._bar.add_task("sync", total=None, done=words(summary.progress(Cycles(), roots)))
        self._said: set[str] = set()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, state: Cycles) -> None:
        """The line tells the state; at most some times a second, for that costs a look at every part."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + (PERIOD if self._terminal else LOG_PERIOD)
        now = summary.progress(state, self.roots)
        for text in now.away:
            self._say(text)
        if not self._terminal:
            self._bar.console.print(words(now))
        self._bar.update(self._task, completed=now.closed, total=now.announced, done=words(now))

    def _say(self, text: str) -> None:
        """A line of its own above the moving one, once."""
        if text not in self._said:
            self._said.add(text)
            self._bar.console.print(text)


class Steps:
    """Shows on stderr how much is done of one thing after another; nothing where that is no terminal but each end."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False, markup=False),
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, what: str, done: int, of: int) -> None:
        """So many of them are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of)
        self._bar.update(self._tasks[what], completed=done, total=of)
        if self._bar.disable and done == of:
            self._bar.console.print(f"{what}: {of:,}")


def words(now: summary.Progress) -> str:
    """What is done, and what waits for another try."""
    if not now.closed:
        return "waiting for a worker"
    done = f"{now.closed:,} of {now.announced:,} commands"
    if now.to_do:
        done = f"{min(now.blocks, now.to_do):,} of {now.to_do:,} blocks, {done}"
    return f"{done}, {len(now.waiting):,} wait for {now.waiting[0].partition(': ')[0]}" if now.waiting else done
