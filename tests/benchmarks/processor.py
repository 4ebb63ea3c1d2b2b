"""How much processor time have a server and all its processes used? It says more than a clock on a busy machine."""

from __future__ import annotations

import os
from pathlib import Path

from tests.stack.rucio_server import RucioServer

TICK = os.sysconf("SC_CLK_TCK")


def used(server: RucioServer) -> float:
    """Seconds of processor time of Rucio and its PostgreSQL, their ended children included."""
    mine = {process.pid for process in (server.process, server.postgres.process) if process is not None}
    family = {pid: (parent, ticks) for pid, parent, ticks in _all()}
    return sum(ticks for pid, (_, ticks) in family.items() if _descends(pid, mine, family)) / TICK


def _all() -> list[tuple[int, int, int]]:
    """Process id, parent, and the ticks of itself and of the children that it has waited for."""
    rows = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        rows.append((int(path.parent.name), int(fields[1]), sum(map(int, fields[11:15]))))
    return rows


def _descends(pid: int, ancestors: set[int], family: dict[int, tuple[int, int]]) -> bool:
    while pid in family and pid not in ancestors:
        pid = family[pid][0]
    return pid in ancestors
