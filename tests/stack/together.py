"""A broker and a Rucio at once, for as long as a `with` lasts: what the demo stands on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from . import broker as broker_stack
from . import processes, rucio_server
from .broker import Broker
from .rucio_server import RucioServer


@dataclass(frozen=True)
class Servers:
    """Both run and are empty; `amqp_url` is a vhost of its own."""

    broker: Broker
    rucio: RucioServer
    amqp_url: str


@contextmanager
def servers() -> Iterator[Servers]:
    """Both servers run; afterwards nothing of them is left. TMPDIR is a folder of our own from here on."""
    with ExitStack() as undo:
        undo.callback(processes.remove, processes.private_tmp())
        rabbit = broker_stack.launch()
        undo.callback(rabbit.close)
        rucio = rucio_server.launch()
        undo.callback(rucio.close)
        yield Servers(rabbit, rucio, rabbit.url(rabbit.new_vhost()))
