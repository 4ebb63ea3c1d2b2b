"""How does the command line reach the broker?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from common.broker import connection as connections
from common.broker import roots, streams, topology
from common.broker.publisher import Publisher
from common.broker.streams import EventStream
from common.messages.commands import Command
from common.settings.model import Main

NAME = "command line"

__all__ = ["EventStream", "declare", "events", "publish", "publisher", "reach"]


@contextmanager
def publisher(main: Main) -> Iterator[Publisher]:
    """A publisher on a connection of its own, closed at the end. Raises BrokerAway within `connect_timeout`."""
    connection = connections.Connection(main, NAME)
    try:
        connection.wait_open()
        yield Publisher(connection)
    finally:
        connection.close()


@contextmanager
def events(main: Main, offset: streams.Offset) -> Iterator[EventStream]:
    """A reader of the events from a time, or from "first" on, attached already.

    Raises BrokerAway, and Unroutable where nothing has declared the stream yet.
    """
    with streams.attach(main, offset, NAME) as stream:
        yield stream


def publish(main: Main, commands: Iterable[Command]) -> None:
    """The root commands are with the broker, each after its `asked` event. Raises BrokerError."""
    with publisher(main) as door:
        roots.send(door, commands)


def reach(main: Main) -> None:
    """The broker lets us in; raises BrokerAway."""
    with connections.blocking(main, NAME):
        pass


def declare(main: Main) -> list[str]:
    """All exchanges and queues are there; the names of those that were missing. Raises BrokerError."""
    return topology.declare(main)
