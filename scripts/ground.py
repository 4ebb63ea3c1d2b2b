"""What do scripts/chaos and scripts/endure stand on? Sites on both sides, the program's processes, and the judge."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.names import sync_account
from datasvc.build import Snapshot
from tests import checker
from tests.stack import together
from tests.stack.processes import setpriv
from tests.stack.world import make_site

ANCHOR = "/Zero/Run2018A-v1/AOD#0"  # stays at every node: no list is ever rightly empty
PROGRAM = [*setpriv(None), sys.executable, "-m", "phedex_rucio.main"]  # it ends with us, whatever ends us
FRESH = 60.0  # seconds between two starts of Rucio's daemons while a run settles


@contextmanager
def stage(name: str, minutes: float, seed: int) -> Iterator[tuple[together.Servers, Path]]:
    """The servers and an empty folder, until the block ends or somebody ends us."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"{minutes:g} minutes, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"phedex-rucio-{name}-") as folder, together.servers() as servers:
        yield servers, Path(folder)


class Every:
    """True once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, time.monotonic() + seconds

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._seconds
        return True


class Hurried:
    """Rucio's daemons do at once what they would put off; called again and again while a run settles.

    A lock on a rule or a dataset has Rucio's cleaner or evaluator leave it alone for 10 to 40 minutes, or for 1 to 10:
    it keeps that in memory, so daemons started anew do not wait. The repairer looks at a rule only after half an hour.
    """

    def __init__(self, servers: together.Servers, fresh: float = FRESH) -> None:
        self._rucio, self._stale = servers.rucio, Every(fresh)

    def __call__(self) -> None:
        if self._stale():
            self._rucio.restart_daemons()
        self._rucio.run_daemon("judge-repairer")


def start(arguments: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The program runs; what it says is added to the log."""
    with log.open("ab") as out:
        return subprocess.Popen([*PROGRAM, *arguments], env=env, stdout=out, stderr=out)


def make_nodes(snapshot: Snapshot, nodes: Sequence[str]) -> None:
    """PhEDEx has the nodes, each with one block that stays."""
    snapshot.add_group("DataOps")
    snapshot.add_block(ANCHOR, [("/store/data/zero.root", 1, "adler32:1")])
    for node in nodes:
        snapshot.add_node(node)
        snapshot.add_replica(ANCHOR, node)


def make_sites(servers: together.Servers, nodes: Sequence[str]) -> None:
    """Rucio has the sites, and its daemons run that evaluate what is attached and end rules."""
    for node in nodes:
        make_site(servers.rucio, node)
    for daemon in ("judge-evaluator", "judge-cleaner"):
        servers.rucio.start_daemon(daemon)


def differences(servers: together.Servers, phedex: str, nodes: Sequence[str]) -> list[str]:
    """What the judge finds different between Rucio and PhEDEx, a line each."""
    sites = {node: checker.expected(phedex, node, node, sync_account(node)) for node in nodes}
    return checker.differences(checker.read_tables(servers.rucio.sql), sites)
