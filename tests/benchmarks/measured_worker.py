"""A worker as `phedex-rucio worker` is one, in a process of its own, that ends after some commands and says what each
cost: `python measured_worker.py sync.blocks THREADS COMMANDS`, servers from the environment. One JSON object a line."""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.messages.commands import Command
from common.settings.load import load
from consumers.engine.result import Result
from consumers.engine.worker import Worker
from consumers.engine.world import World
from phedex_rucio import wiring
from tests.benchmarks import late


def main(kind: str, threads: int, commands: int) -> None:
    """Serves until so many commands are handled, or until it is killed."""
    late.install()
    settings = load().settings
    engine = wiring.engine(settings)
    handle, done, lock = engine.handlers[kind], threading.Event(), threading.Lock()
    left = commands

    def measured(command: Command, world: World) -> Result:
        nonlocal left
        before, began = (world.phedex.requests, world.rucio.requests), time.time()
        result = handle(command, world)
        asked = {"phedex": world.phedex.requests - before[0], "rucio": world.rucio.requests - before[1]}
        _say(outcome=result.outcome.value, counts=result.counts, asked=asked, began=began, ended=time.time())
        with lock:
            left -= 1
            if left == 0:
                done.set()
        return result

    worker = Worker(settings.main, [kind], threads, {kind: measured}, engine.world, engine.probes, "measured")
    running = threading.Thread(target=worker.run)
    running.start()
    done.wait()
    worker.stop()
    running.join()


def _say(**what: Any) -> None:
    """One line, with what the process has cost so far: seconds of processor time, and its largest memory in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cost = {"processor": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024 / 1e6}
    sys.stdout.write(json.dumps({**what, **cost}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
