"""A worker as a process of its own, so that tests can send it signals: `python -m … URL SCENARIO MARK GRACE PORT`.

Scenarios that end in a crash do so once: the file MARK tells the next process that it has happened.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.broker.consumer import Consumer
from common.messages.commands import Command
from common.outcome import Outcome
from common.telemetry.serve import serving
from consumers.engine.result import Result
from consumers.engine.worker import Worker
from phedex_rucio.signals import on_stop
from tests.integration.messaging import blocks, settings

CHILDREN = 10


class Crash:
    """The process ends like one that the kernel killed, the first time that its point is reached."""

    def __init__(self, point: str, mark: Path) -> None:
        self._point, self._mark = point, mark

    def at(self, point: str) -> None:
        if point == self._point and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def handlers(scenario: str, crash: Crash) -> dict[str, Any]:
    def plan(_command: Command, _world: object) -> Result:
        crash.at("handle")
        return Result(Outcome.CHANGED, follow=children())

    def children() -> Iterator[Command]:
        for number in range(CHILDREN):
            if number == CHILDREN // 2:
                crash.at("children")
            yield blocks(number)
        crash.at("closed")

    def handle(command: Command, checkpoint: Any) -> Result:
        os.write(1, f"begun {command.meta.id}\n".encode())
        if scenario == "stuck":
            time.sleep(600)
        if scenario == "poison" and command.key.endswith("#666"):
            os.kill(os.getpid(), signal.SIGKILL)
        if scenario == "slow":
            time.sleep(0.02)
            checkpoint()
        return Result(Outcome.CHANGED, {"added": 1})

    return {"sync.site": plan, "sync.blocks": handle}


def main(url: str, scenario: str, mark: str, grace: str, port: str) -> int:
    crash = Crash(scenario, Path(mark))
    acknowledge = Consumer.ack

    def ack(self: Consumer, delivery: Any) -> None:
        if delivery.queue == "sync.site":
            crash.at("ack")
        acknowledge(self, delivery)

    Consumer.ack = ack  # type: ignore[method-assign]
    served = handlers(scenario, crash)
    settled = settings(url, grace=float(grace), deadline=2, hangs_after=0.5)
    worker = Worker(settled, list(served), 4, served, lambda checkpoint: checkpoint, {}, "p")  # type: ignore[arg-type,return-value]

    def stop() -> None:
        worker.stop()
        os.write(1, b"told to stop\n")

    on_stop(stop)
    with serving("127.0.0.1", int(port), worker.alive, worker.ready):
        return 0 if worker.run() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
