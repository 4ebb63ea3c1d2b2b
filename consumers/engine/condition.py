"""Is a worker alive, and is it ready? Each part by its name, with what is wrong with it in words; "" where nothing is.

Not alive means that only a restart helps. Not ready means that commands cannot be carried out just now.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence

from common.broker.connection import Connection
from common.errors import System

STILL = 15.0  # seconds without a turn of an I/O loop that turns each second: even a busy machine is not that slow


def alive(
    connections: Iterable[Connection | None],
    threads: Sequence[threading.Thread],
    *,
    draining: bool,
    stillest: tuple[str, float] = ("", 0.0),
    hangs_after: float = 0.0,
) -> dict[str, str]:
    """Do the I/O loops turn, are all threads of the pool there (in a drain they may end), and does no handler hang?

    `stillest`: the command that took no step for longest, and the seconds; more than `hangs_after` are too many, where
    that is not 0.
    """
    found = {"starting": ""} if not threads else {}
    for connection in connections:
        if connection is not None:
            hangs = f"its thread has not turned for {connection.still:.0f} s" if connection.still > STILL else ""
            found[f"broker connection: {connection.name}"] = hangs
    dead = [thread.name for thread in threads if not thread.is_alive()]
    found["threads"] = f"ended by a mistake in this program: {', '.join(dead)}" if dead and not draining else ""
    name, still = stillest
    found["handlers"] = f"{name} took no step for {still:.0f} s" if 0 < hangs_after < still else ""
    return found


def ready(
    connections: Sequence[Connection | None],
    away: Mapping[System, str],
    systems: Iterable[System],
    *,
    waiting_for: str,
    flood: bool,
    draining: bool,
) -> dict[str, str]:
    """Does the broker take and bring messages, does each system answer, and are commands taken at all?"""
    found = {System.BROKER.value: waiting_for or next(filter(None, map(_trouble, connections)), "")}
    found |= {system.value: f"away: {away[system]}" if system in away else "" for system in systems}
    found["commands"] = _commands(flood, draining)
    return found


def _commands(flood: bool, draining: bool) -> str:
    if draining:
        return "told to stop: none is taken any more"
    return "everything dies: one a minute is tried" if flood else ""


def _trouble(connection: Connection | None) -> str:
    if connection is None:
        return "not connected yet"
    if not connection.is_open:
        return str(connection.reason)
    return f"holds publishers back: {connection.blocked}" if connection.blocked else ""
