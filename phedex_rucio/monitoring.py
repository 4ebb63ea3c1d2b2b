"""How is a process that runs for long watched? Its metrics and health on one port, the queues counted meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from msgspec.structs import replace

from common.broker.depths import counted
from common.settings.model import Main, Settings
from common.telemetry import serve
from common.telemetry.serve import State

port_option: Callable[[Any], Any] = click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve /metrics, /healthz and /readyz here; else main.metrics_port (0: nowhere).",
)


def with_port(settings: Settings, port: int | None) -> Settings:
    """The settings, with the port of the flag where that was given."""
    return settings if port is None else replace(settings, main=replace(settings.main, metrics_port=port))


@contextmanager
def monitored(main: Main, alive: State, ready: State) -> Iterator[None]:
    """The pages are there while the block lasts, if there is a port for them."""
    if not main.metrics_port:
        yield
        return
    with serve.serving(main.metrics_host, main.metrics_port, alive, ready), counted(main):
        yield
