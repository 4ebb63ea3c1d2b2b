"""How does a command run without a broker? The same handlers and errors, over a deque in this process.

There are no wait queues, dead letters or events here: what fails is tried again after a few seconds, then reported.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from common import cycles
from common.errors import PhedexRucioError, System, Verdict
from common.messages.commands import Command, kind_of, with_meta
from common.messages.meta import child_id, new_run, now
from consumers.engine.outgoing import Execution, closed, closed_dead
from consumers.engine.result import Failed
from consumers.engine.settle import Dead, settle
from consumers.engine.world import World
from phedex_rucio.wiring import Engine

TRIES = 3
PAUSE = 3.0


@dataclass
class Local:
    """One run: what is left to do, and what became of the rest, folded like the events of the queues."""

    engine: Engine
    state: cycles.Cycles = field(default_factory=cycles.Cycles)
    todo: deque[Command] = field(default_factory=deque)
    later: deque[Command] = field(default_factory=deque)
    tell: Callable[[cycles.Cycles], None] = lambda _: None
    pause: float = PAUSE


def run(local: Local, roots: Iterable[Command]) -> cycles.Cycles:
    """All roots and their children have been carried out or have failed for good; the fold of what became of them.

    Depth first: a site is finished before the next begins, and a plan's readings are let go. Raises the error that
    found a system away: nothing is lost, the next run reads both sides afresh.
    """
    local.todo.extend(roots)
    world = local.engine.world(lambda: None)
    while local.todo or local.later:
        if not local.todo:
            threading.Event().wait(local.pause)
            local.todo, local.later = local.later, deque()
        _execute(local, local.todo.popleft(), world)
        local.tell(local.state)
    return local.state


def _execute(local: Local, command: Command, world: World) -> None:
    started, run_name = time.monotonic(), new_run()
    try:
        result = local.engine.handlers[kind_of(command)](command, world)
        follow = list(result.follow)
    except PhedexRucioError as error:
        _settle(local, command, error)
        return
    children = [(_child(command, run_name, number, each), each) for number, each in enumerate(follow)]
    local.todo.extendleft(child for child, each in reversed(children) if not isinstance(each, Failed))
    for child, each in children:
        if isinstance(each, Failed):
            _settle(local, child, each.error)
    seconds = time.monotonic() - started
    cycles.apply(local.state, closed(Execution(command, run_name), result, len(children), "", seconds))
    result.done()


def _child(parent: Command, run_name: str, number: int, follow: Command | Failed) -> Command:
    """A child with its id as the readers of `closed` compute it. A part that failed has its parent's attempts."""
    ident = child_id(parent.meta.cycle, parent.meta.id, run_name, number)
    meta = replace(parent.meta, id=ident, parent=parent.meta.id)
    if isinstance(follow, Failed):
        return with_meta(follow.command, meta)
    return with_meta(follow, replace(meta, attempt=1, errors=[], first_at=None))


def _settle(local: Local, command: Command, error: PhedexRucioError) -> None:
    """Another try later, or its end; raises what the error's system answers where that is away."""
    if error.verdict is Verdict.ASK:
        _raise_if_away(local.engine.probes, error)
    settled = settle(error, command.meta, TRIES, TRIES, now(), away=False)
    again = with_meta(command, settled.meta)
    if isinstance(settled, Dead):
        cycles.apply(local.state, closed_dead(again.meta, kind_of(again), again.key, "", 0.0))
    else:
        local.later.append(again)


def _raise_if_away(probes: Mapping[System, Callable[[], None]], error: PhedexRucioError) -> None:
    ask = probes.get(error.system) if error.system else None
    try:
        if ask is not None:
            ask()
    except PhedexRucioError as answer:
        if answer.verdict is Verdict.ASK:
            raise
