"""How does a worker process start and stop?"""

from __future__ import annotations

import os
import socket

import click

from common.messages.commands import KINDS
from common.outcome import Exit
from common.rucio.session import check_configuration
from common.settings.load import Loaded
from common.settings.original import level_of
from common.settings.watched import Watched
from common.telemetry import logs
from consumers.engine.worker import Worker
from phedex_rucio import monitoring, wiring
from phedex_rucio.options import with_settings
from phedex_rucio.signals import on_stop


@click.command("worker")
@click.option(
    "--queue", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Serve this kind (repeatable); else all."
)
@click.option("--threads", type=click.IntRange(1), help="Commands at once; else main.threads.")
@monitoring.port_option
@with_settings
def command(kinds: tuple[str, ...], threads: int | None, metrics_port: int | None, loaded: Loaded) -> int:
    """Take commands from the queues and carry them out, until SIGTERM or Ctrl-C.

    Then what is in hand has the grace period to end; a second signal ends the worker at once. What is not settled by
    then is warned of, the broker delivers it again, nothing is lost: the exit code is 0 in any case.
    """
    debug = click.get_current_context().params["debug"]
    settings = monitoring.with_port(loaded.settings, metrics_port)
    main = settings.main
    logs.setup("DEBUG" if debug else "", default=level_of(main.verbosity) or "INFO", form=main.log_format)
    check_configuration(main)
    watched = Watched(loaded)
    engine = wiring.engine(settings, watched.settings)
    worker = Worker(
        main,
        list(kinds) or list(KINDS),
        threads or main.threads,
        engine.handlers,
        engine.world,
        engine.probes,
        f"{socket.gethostname()}-{os.getpid()}",
        lambda: watched.notes,
    )
    on_stop(worker.stop)
    with monitoring.monitored(main, worker.alive, worker.ready):
        worker.run()
    return Exit.DONE
