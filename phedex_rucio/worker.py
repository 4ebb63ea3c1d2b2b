"""How does a worker process start and stop?"""

from __future__ import annotations

import os
import signal
import socket

import click

from common.messages.commands import KINDS
from common.outcome import Exit
from common.settings.load import Loaded
from common.telemetry import logs
from consumers.engine.worker import Worker
from phedex_rucio import wiring
from phedex_rucio.options import with_settings


@click.command("worker")
@click.option(
    "--queue", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Serve this kind (repeatable); else all."
)
@click.option("--threads", type=click.IntRange(1), help="Commands at once; else main.threads.")
@with_settings
def command(kinds: tuple[str, ...], threads: int | None, loaded: Loaded) -> int:
    """Take commands from the queues and carry them out, until SIGTERM or Ctrl-C.

    Then what is in hand has the grace period to end; a second signal ends the worker at once. What is not settled by
    then is warned of, the broker delivers it again, nothing is lost: the exit code is 0 in any case.
    """
    debug = click.get_current_context().params["debug"]
    logs.setup("DEBUG" if debug else "", default="INFO")
    settings = loaded.settings
    engine = wiring.engine(settings)
    worker = Worker(
        settings.main,
        list(kinds) or list(KINDS),
        threads or settings.main.threads,
        engine.handlers,
        engine.world,
        engine.probes,
        f"{socket.gethostname()}-{os.getpid()}",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()
    return Exit.DONE
