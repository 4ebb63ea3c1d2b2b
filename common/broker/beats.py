"""How does a process say how it is? Now and then, on a thread of its own, and nothing waits for it."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from common.broker.connection import Connection
from common.broker.topology import BEATS
from common.errors import BrokerError
from common.messages import codec
from common.messages.beats import Beat
from common.settings.model import Main

log = logging.getLogger("phedex_rucio.beats")

PROPERTIES = pika.BasicProperties(content_type="application/json", app_id="phedex-rucio", type="beat")
VERSION = importlib.metadata.version("phedex-rucio")


class Beats:
    """Publishes what `describe` gives every `every` seconds, at each `nudge`, and a last one at `stop`.

    It uses somebody's connection, on a channel of its own, without confirms: what the broker does not take at once,
    because it is away, blocks publishers or lacks the exchange, is lost, and nobody minds. `describe` is called on
    this class's thread: it must not wait for anything that work may hold.
    """

    def __init__(self, connection: Connection, every: float, describe: Callable[[], Beat]) -> None:
        self._connection, self._every, self._describe = connection, every, describe
        self._pika: SelectConnection | None = None
        self._channel: Channel | None = None
        self._changed = threading.Event()
        self._stopped = False
        connection.attach(self)
        self._thread = threading.Thread(target=self._run, name="beats", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Something has changed: the next beat comes now."""
        self._changed.set()

    def stop(self) -> None:
        """The last beat is on its way, if the connection is open, and no other follows; close the connection after."""
        self._stopped = True
        self._changed.set()
        self._thread.join(1)

    def _run(self) -> None:
        while True:
            last = self._stopped  # read before the description: told to stop meanwhile, another one follows
            self._say()
            if last:
                return
            self._changed.wait(self._every)
            self._changed.clear()

    def _say(self) -> None:
        try:
            body = codec.encode_beat(self._describe())
        except Exception:
            # A beat is for people: a mistake in it must not end the beats, let alone the work.
            log.exception("a beat could not be described")
            return
        self._connection.call(lambda: self._send(body))

    # What happens on the I/O thread

    def opened(self, connection: SelectConnection) -> None:
        """A fresh channel, and a beat as soon as it is open."""
        self._pika, self._channel = connection, None
        connection.channel(on_open_callback=self._channel_open)

    def closed(self, _reason: BrokerError) -> None:
        """Nothing is said until the connection is back."""
        self._pika = self._channel = None

    def _channel_open(self, channel: Channel) -> None:
        self._channel = channel
        self.nudge()

    def _send(self, body: bytes) -> None:
        """A channel that the broker closed, for it has no exchange for beats before `setup`, is opened again."""
        if self._connection.blocked or self._pika is None or self._channel is None:
            return
        if self._channel.is_open:
            self._channel.basic_publish(BEATS, "", body, PROPERTIES)
        else:
            self.opened(self._pika)


@contextmanager
def beating(main: Main, name: str, describe: Callable[[], Beat]) -> Iterator[Beats]:
    """Beats come while the block lasts, on a connection of their own; the last is what `describe` gives after it."""
    connection = Connection(main, f"{name} beats")
    beats = Beats(connection, main.beat, describe)
    try:
        yield beats
    finally:
        beats.stop()
        connection.close(1)
