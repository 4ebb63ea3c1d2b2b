"""What has happened? Reads a stream (the events, the beats) from any point, and goes on after a lost connection."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Literal

import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from common.broker.connection import Connection
from common.broker.topology import EVENTS
from common.errors import BrokerAway, BrokerError, Unroutable
from common.messages.codec import decode_event
from common.messages.events import Event
from common.messages.meta import now
from common.settings.model import Main

Offset = int | datetime | Literal["first", "last", "next"]

# With 500 and 100 reading took a quarter longer; the broker's own work, 75 µs a message, is the larger part.
PREFETCH = 2000
ACK_EVERY = 500
REOPEN = 1.0  # seconds
OFFSET = "x-stream-offset"  # the one header of the broker's that is read: a stream says with it where we are


@contextmanager
def attach(main: Main, offset: Offset, name: str = "events", source: str = EVENTS) -> Iterator[EventStream]:
    """A reader of a stream, attached when the block begins: whatever is published from then on is seen.

    `offset`: "first" (all that is kept), "last" (about the newest chunk), "next" (only what comes), a number, or a
    time (from the chunk that holds it, so earlier events may come too). Raises BrokerAway; Unroutable if there is no
    stream.
    """
    connection = Connection(main, name)
    stream = EventStream(connection, offset, source)
    try:
        stream.wait_attached(main.connect_timeout)
        yield stream
    finally:
        connection.close()


class EventStream:
    """What lies in a stream from an offset on, each at least once: after a lost connection it goes on with the next."""

    def __init__(self, connection: Connection, offset: Offset, source: str = EVENTS) -> None:
        self.source = source
        self.offset = -1  # of the newest event that was given out
        self._connection = connection
        self._from: Offset = offset
        self._channel: Channel | None = None
        self._since = now()
        self._life = 0
        self._taken = 0
        self._attached = threading.Condition()
        self._is_attached = False
        self._error: BrokerError | None = None
        self._inbox: queue.SimpleQueue[tuple[int, int, int, bytes]] = queue.SimpleQueue()
        connection.attach(self)

    def wait_attached(self, timeout: float) -> None:
        """The broker has said that this reader is attached; raises BrokerAway at the timeout, Unroutable at once."""
        self._connection.wait_open(timeout)
        with self._attached:
            self._attached.wait_for(lambda: self._is_attached or self._error is not None, timeout)
            if self._error is not None:
                raise self._error
            if not self._is_attached:
                raise BrokerAway(f"{self.source}: the broker did not attach the reader within {timeout:g} s")

    def events(self, timeout: float) -> Iterator[Event]:
        """The events as they come; ends when none has come for `timeout` seconds, or the stream is gone for good.

        What is no event that this program knows is passed over.
        """
        while (taken := self.next(timeout)) is not None:
            event = decode_event(taken)
            if event is not None:
                yield event

    def until(self, deadline: float) -> Iterator[Event | None]:
        """The events until a time of the monotonic clock; None every second in which none came."""
        while (left := deadline - time.monotonic()) > 0:
            taken = self.next(min(1.0, left))
            yield None if taken is None else decode_event(taken)

    def next(self, timeout: float) -> bytes | None:
        """The next message's body; None if none comes for `timeout` seconds. `offset` is then its place."""
        if self._error is not None and self._inbox.empty():
            raise self._error
        try:
            life, tag, self.offset, body = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None
        self._taken += 1
        if self._taken % ACK_EVERY == 0:
            self._connection.call(lambda: self._ack(life, tag))
        return body

    # What happens on the I/O thread

    def opened(self, connection: SelectConnection) -> None:
        """A fresh channel, from where the last one ended."""
        connection.channel(on_open_callback=self._channel_open)

    def closed(self, _reason: BrokerError) -> None:
        """The next opening attaches again; what is in the inbox stays.

        Without any event so far, "next" would miss what comes meanwhile: it becomes the time of attaching.
        """
        if self._is_attached and not isinstance(self._from, int):
            self._from = self._since
        self._channel = None
        self._is_attached = False

    def _channel_open(self, channel: Channel) -> None:
        self._channel = channel
        self._life += 1
        channel.add_on_close_callback(self._channel_closed)
        channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _frame: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        channel.basic_consume(self.source, self._message, arguments={OFFSET: self._from}, callback=self._consuming)

    def _consuming(self, _frame: pika.frame.Method) -> None:
        self._since = now()
        with self._attached:
            self._is_attached = True
            self._attached.notify_all()

    def _message(self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        offset = int((properties.headers or {}).get(OFFSET, -1))
        self._from = offset + 1
        self._inbox.put((self._life, method.delivery_tag, offset, body))

    def _ack(self, life: int, tag: int) -> None:
        if self._channel is not None and self._channel.is_open and life == self._life:
            self._channel.basic_ack(tag, multiple=True)

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        """A stream that does not exist is an error at once; one that is not up yet is asked again.

        After a crash of the broker a stream answers 404 (`home node … is down`) for about a second.
        """
        if self._channel is None or channel is not self._channel:
            return
        self._channel = None
        text = str(getattr(reason, "reply_text", reason))
        if "no queue" in text:
            self._give_up(Unroutable(f"{self.source}: {text}; run `phedex-rucio setup`"))
        else:
            self._connection.later(REOPEN, lambda: self._reopen(channel.connection))

    def _reopen(self, connection: SelectConnection) -> None:
        if connection.is_open and self._channel is None:
            connection.channel(on_open_callback=self._channel_open)

    def _give_up(self, error: BrokerError) -> None:
        with self._attached:
            self._error = error
            self._attached.notify_all()
