"""Operators: people with the command line who take marks back, stop sites and approve what is held during a run.

They type what an operator would: `undo` of blocks and of cycles and `undo --clear` later, `site freeze` and `resume`,
the command that a held plan names, and the same command again long after. And two plans of one site at once. What
`undo` tells them they rely on: the watcher hears of it.
"""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from common.broker import streams
from common.errors import BrokerError
from common.messages.events import Closed
from common.settings.model import Main
from scripts.ground import PROGRAM
from scripts.watching import Watcher
from tests.stack.rucio_server import RucioServer

TAKES = 120.0  # seconds: longer than any of their commands should take
REMEMBERED = 20  # approvals that may be sent once more
_MARKED = r"""SELECT name, rse_expression, meta FROM rules WHERE account LIKE 'sync\_%' AND expires_at IS NULL
    AND meta LIKE '%phedex_gone_since%'"""


@dataclass
class Approvals:
    """The commands that held plans name (for a site, for a dataset at all nodes), and those that were there before."""

    newest: dict[str, list[list[str]]] = field(default_factory=dict)
    old: list[list[str]] = field(default_factory=list)

    def take(self, event: object) -> None:
        """What an event tells of a plan: held, or nothing in it is held any more."""
        if not isinstance(event, Closed) or event.command not in ("sync.site", "sync.dataset"):
            return
        held = event.guard is not None and event.guard.held > 0
        lines = [event.guard.override, event.guard.everywhere] if event.guard is not None and held else []
        commands = [command for command in map(typed, lines) if command]
        self.old = [*self.old, *commands][-REMEMBERED:]
        self.newest.pop(event.key, None)
        if commands:
            self.newest[event.key] = commands


def typed(line: str) -> list[str]:
    """The arguments of a command line of ours that approves something, with a reason; [] for any other text."""
    words = shlex.split(line) if line.startswith("phedex-rucio sync ") else []
    if "--approve" not in words:
        return []
    if "--reason" in words:
        words[words.index("--reason") + 1] = "an operator said so"
    else:
        words += ["--reason", "an operator said so"]
    return [word for word in words[1:] if word != "--wait"]


@dataclass
class Operators:
    """They act now and then in a thread of their own, from `start` to `stop`; then `put_back`.

    `plans(node)`: two plans of the node are sent at once.
    """

    rucio: RucioServer
    watcher: Watcher
    rng: random.Random
    env: dict[str, str]
    log: Path
    main: Main
    nodes: Sequence[str]
    plans: Callable[[str], None]
    pause: tuple[float, float] = (1.0, 4.0)
    did: Counter[str] = field(default_factory=Counter)
    frozen: set[str] = field(default_factory=set)
    kept: set[tuple[str, str]] = field(default_factory=set)
    approvals: Approvals = field(default_factory=Approvals)
    _ended: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._go_on, self._listen)]
        self._acts = [
            self._undo_block, self._undo_block, self._undo_cycle, self._clear, self._freeze, self._resume, self._resume,
            self._approve, self._approve, self._approve_again, self._two_plans,
        ]  # fmt: skip

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """They do nothing any more; what they did stands. The events are still read."""
        self._ended.set()
        if self._threads[0].is_alive():
            self._threads[0].join()

    def close(self) -> None:
        self.stop()
        self._closed.set()
        if self._threads[1].is_alive():
            self._threads[1].join()

    def _go_on(self) -> None:
        while not self._ended.wait(self.rng.uniform(*self.pause)):
            try:
                self.rng.choice(self._acts)()
            except (psycopg.Error, OSError, BrokerError, subprocess.TimeoutExpired) as error:
                self.did[f"could not: {type(error).__name__}"] += 1

    def _listen(self) -> None:
        """The approvals that may be given are those of the newest plans."""
        while not self._closed.is_set():
            try:
                with streams.attach(self.main, "first", "operators") as stream:
                    while not self._closed.is_set():
                        for event in stream.until(time.monotonic() + 1):
                            self.approvals.take(event)
            except BrokerError:
                self._closed.wait(0.5)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The command line ran to its end: its exit code and what it printed."""
        command = [*PROGRAM, *arguments]
        with self.log.open("ab") as errors:
            done = subprocess.run(
                command, env=self.env, stdout=subprocess.PIPE, stderr=errors, timeout=TAKES, check=False
            )
        name = " ".join(arguments[:2]) if arguments[0] in ("site", "sync") else arguments[0]
        self.did[f"{name}: exit {done.returncode}"] += 1
        return done.returncode, done.stdout.decode(errors="replace")

    # --- what they do ---------------------------------------------------------------------------------------------

    def _marked(self) -> list[tuple[str, str, str]]:
        """Block, RSE and cycle of each mark."""
        found = []
        for name, rse, meta in sorted(self.rucio.sql(_MARKED)):
            read = json.loads(meta)
            read = json.loads(read) if isinstance(read, str) else read
            found.append((str(name), str(rse), str(read.get("phedex_gone_cycle", ""))))
        return found

    def _undo_block(self) -> None:
        if marked := self._marked():
            block, rse, _ = self.rng.choice(marked)
            self._undo(rse, block)

    def _undo_cycle(self) -> None:
        if marked := self._marked():
            _, rse, cycle = self.rng.choice(marked)
            if cycle:
                self._undo(rse, cycle)

    def _undo(self, node: str, asked: str) -> None:
        """What the command says is kept they rely on from then on."""
        _, out = self.run("undo", "--node", node, "--json", asked)
        for block, state in _blocks(out).items():
            if state == "kept":
                self.watcher.kept(block, node)
                self.kept.add((block, node))

    def _clear(self) -> None:
        if self.kept:
            self._clear_one(*self.rng.choice(sorted(self.kept)))

    def _clear_one(self, block: str, node: str) -> bool:
        self.watcher.not_kept(block, node)
        code, _ = self.run("undo", "--clear", "--node", node, "--json", block)
        if code in (0, 1):
            self.kept.discard((block, node))
        return code in (0, 1)

    def _freeze(self) -> None:
        if not self.frozen:
            node = self.rng.choice(list(self.nodes))
            self.frozen.add(node)
            self.run("site", "freeze", node, "--reason", "an operator said so")

    def _resume(self) -> None:
        if self.frozen:
            self._resume_one(self.rng.choice(sorted(self.frozen)))

    def _resume_one(self, node: str) -> bool:
        code, _ = self.run("site", "resume", node, "--reason", "an operator said so")
        if code == 0:
            self.frozen.discard(node)
        return code == 0

    def _approve(self) -> None:
        if self.approvals.newest:
            self.run(*self.rng.choice(self.rng.choice([*self.approvals.newest.values()])))

    def _approve_again(self) -> None:
        """Long ago somebody looked at something else: it may not let pass what was not there then."""
        if self.approvals.old:
            self.run(*self.rng.choice(self.approvals.old))
            self.did["approvals sent again"] += 1

    def _two_plans(self) -> None:
        self.plans(self.rng.choice(list(self.nodes)))
        self.did["two plans of a site at once"] += 1

    # --- the end --------------------------------------------------------------------------------------------------

    def put_back(self, tries: int = 20) -> None:
        """Every site goes on, and nothing is kept by a person. TimeoutError where the command line does not manage."""
        for _ in range(tries):
            done = [self._resume_one(node) for node in sorted(self.frozen)]
            done += [self._clear_one(*one) for one in sorted(self.kept)]
            if all(done):
                return
        raise TimeoutError(f"the operators could not take back what they did: {self.frozen}, {self.kept}")

    def approve_all(self) -> int:
        """Whatever the newest plans hold is approved. How much it was."""
        commands = [commands[0] for commands in self.approvals.newest.values()]
        for command in commands:
            self.run(*command)
        return len(commands)


def _blocks(out: str) -> dict[str, str]:
    try:
        found = json.loads(out)["blocks"]
    except (ValueError, KeyError):
        return {}
    return {str(block): str(state) for block, state in found.items()}
