"""A worker with handlers that do nothing, as `phedex-rucio worker` runs it: `python -m … URL PORT`."""

import signal
import sys

from common.outcome import Outcome
from common.telemetry import logs
from consumers.engine.result import Result
from consumers.engine.worker import Worker
from phedex_rucio import monitoring
from tests.integration.messaging import settings


def main(url: str, port: str) -> int:
    logs.setup("DEBUG")
    served = {"sync.blocks": lambda _command, _world: Result(Outcome.CHANGED, {"added": 1})}
    settled = settings(url, metrics_port=int(port))
    worker = Worker(settled, list(served), 4, served, lambda checkpoint: checkpoint, {}, "idle")  # type: ignore[arg-type,return-value]
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    with monitoring.monitored(settled, worker.alive, worker.ready):
        return 0 if worker.run() else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
