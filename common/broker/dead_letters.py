"""How are dead letters looked at without losing or reordering one? By consumers that together hold the whole queue.

A quorum queue keeps its order only if everything is in hand when the consumer goes (tried on 3.10, 4.0 and 4.3: after
ten or more `basic.get`, or after a look at a part, the rest came back shuffled). A prefetch is a number of 16 bits, and
0 means 2,000 on a quorum queue: so for every 65,535 letters there is one more consumer, on a channel of its own. A full
one is cancelled, or it would get what the others give back; the channels are closed in the order of their letters,
each once the one before has laid its letters back: close-ok comes before the queue knows (on a busy machine two parts
came back interleaved).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.spec import Basic, BasicProperties

from common.broker.connection import blocking
from common.errors import BrokerAway, BrokerError, Unroutable
from common.settings.model import Main

PREFETCH = 65_535
POLL = 0.05  # seconds between two questions how many letters there are
ERROR = "error"  # the header that says why a body is no command; written by the worker


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of a queue of dead letters, exactly as it lies there; `place` counts from 1 in this look."""

    queue: str
    place: int
    body: bytes
    message_id: str
    error: str
    tag: int
    part: int


@dataclass(slots=True)
class _Part:
    """One consumer: what it may hold, what it has been given, what of that is acknowledged."""

    channel: BlockingChannel
    consumer: str
    most: int
    given: int = 0
    acked: int = 0

    @property
    def is_full(self) -> bool:
        return self.given - self.acked >= self.most

    def ack(self, tags: Sequence[int]) -> None:
        """In one word where these and all before them are done: every word makes pika read ahead into our memory."""
        if tags and self.acked + len(tags) == tags[-1]:
            self.channel.basic_ack(tags[-1], multiple=True)
        else:
            for tag in tags:
                self.channel.basic_ack(tag)
        self.acked += len(tags)


class Look:
    """All letters of one queue in hand; what is not acknowledged lies there as before when the look ends."""

    def __init__(self, connection: BlockingConnection, queue: str, count: int, prefetch: int, patience: float) -> None:
        self.queue, self.count = queue, count
        self.read = 0
        self.acked = 0
        self._connection, self._prefetch, self._patience = connection, prefetch, patience
        self._parts: list[_Part] = []
        self._inbox: deque[Letter] = deque()
        self._given = 0

    def letters(self) -> Iterator[Letter]:
        """The letters that were there when the look began, each once, the first in the queue first.

        What arrives meanwhile is left for the next look; if letters are acknowledged meanwhile, it may then come first.
        Raises BrokerAway if the broker stops giving them.
        """
        while self.read < self.count:
            if not self._inbox:
                self._receive()
            letter = self._inbox.popleft()
            self.read += 1
            yield letter

    def ack(self, *letters: Letter) -> None:
        """The broker forgets the letters; what is lost with the connection comes again."""
        for number, part in enumerate(self._parts):
            part.ack([letter.tag for letter in letters if letter.part == number])
        self.acked += len(letters)

    def pause(self, seconds: float) -> None:
        """Time passes and the connection lives."""
        self._connection.sleep(seconds)

    def close(self) -> None:
        """Everything is given back in its order; for that the rest is taken in hand first, if the look ends early."""
        if not self._connection.is_open:
            return
        parts = [part for part in self._parts if part.channel.is_open]
        if parts and len(parts) == len(self._parts):
            deque(self.letters(), maxlen=0)
        if len(parts) > 1:
            parts[-1].channel.basic_cancel(parts[-1].consumer)
        for part in parts:
            before = _state(self._connection, self.queue)[0] if len(parts) > 1 else 0
            part.channel.close()
            if len(parts) > 1:
                _wait_for(self._connection, self.queue, before + part.given - part.acked, self._patience)

    def _receive(self) -> None:
        """There is a letter in the inbox."""
        end = time.monotonic() + self._patience
        while not self._inbox:
            self._open_next()
            self._connection.process_data_events(0.5)
            if not self._inbox and (time.monotonic() > end or not self._is_consuming()):
                raise BrokerAway(f"{self.queue}: the broker gave {self.read:,} of {self.count:,} letters, then no more")

    def _is_consuming(self) -> bool:
        """False if the broker has cancelled us: the queue was deleted."""
        part = self._parts[-1]
        return part.is_full or part.consumer in part.channel.consumer_tags

    def _open_next(self) -> None:
        """A consumer has room, for exactly what is left: what arrives meanwhile stays in the queue, behind the others.

        (What pika has in its inbox when a consumer ends it rejects, and that would come back first.)
        """
        if self._parts and self._parts[-1].is_full and self._given < self.count:
            self._parts[-1].channel.basic_cancel(self._parts[-1].consumer)
            self._consume()
        elif not self._parts:
            self._consume()

    def _consume(self) -> None:
        channel, number = self._connection.channel(), len(self._parts)
        most = min(self._prefetch, self.count - self._given)
        channel.basic_qos(prefetch_count=most)

        def on_message(_: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            self._take(number, method, properties, body)

        self._parts.append(_Part(channel, channel.basic_consume(self.queue, on_message), most))

    def _take(self, number: int, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._given += 1
        self._parts[number].given += 1
        if self._given > self.count:
            return  # arrived meanwhile: given back with the rest
        error = str((properties.headers or {}).get(ERROR, ""))
        ident = properties.message_id or ""
        self._inbox.append(Letter(self.queue, self._given, body, ident, error, method.delivery_tag, number))


@contextmanager
def look(main: Main, queue: str, prefetch: int = PREFETCH) -> Iterator[Look]:
    """A look at a queue of dead letters. After it every letter that was not acknowledged is where it was.

    If the program or the connection dies none is lost either, but more than `prefetch` may come back shuffled.
    Raises BrokerAway, also while somebody else looks; Unroutable if there is no such queue.
    """
    with blocking(main, "dead letters") as connection:
        try:
            count = _count_alone(connection, queue, main.connect_timeout)
            view = Look(connection, queue, count, prefetch, main.confirm_timeout)
            try:
                yield view
            finally:
                view.close()
            _wait_back(connection, view, main.connect_timeout)
        except exceptions.AMQPChannelError as error:
            raise _explained(queue, error) from error


def _state(connection: BlockingConnection, queue: str) -> tuple[int, int]:
    """How many letters lie there, and how many consumers hold others."""
    channel = connection.channel()
    method = channel.queue_declare(queue, passive=True).method
    channel.close()
    return int(method.message_count), int(method.consumer_count)


def _count_alone(connection: BlockingConnection, queue: str, timeout: float) -> int:
    """How many letters there are, nobody else having any in hand; a look that was cut off just now ends first."""
    end = time.monotonic() + timeout
    while (state := _state(connection, queue))[1]:
        if time.monotonic() > end:
            raise BrokerAway(f"{queue}: somebody else looks at these dead letters; try again when that has ended")
        connection.sleep(POLL)
    return state[0]


def _wait_for(connection: BlockingConnection, queue: str, number: int, timeout: float) -> None:
    """The queue says that it has so many: the broker takes 0.6 s to lay 100,000 back, and says 0 until then."""
    end = time.monotonic() + timeout
    while _state(connection, queue)[0] < number and time.monotonic() < end:
        connection.sleep(POLL)


def _wait_back(connection: BlockingConnection, view: Look, timeout: float) -> None:
    """The next look finds them, unless somebody else already holds them."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        count, others = _state(connection, view.queue)
        if count >= view.read - view.acked or others:
            return
        connection.sleep(POLL)


def _explained(queue: str, error: exceptions.AMQPChannelError) -> BrokerError:
    """404 also says that a queue is not up again yet after a crash of the broker."""
    text = str(getattr(error, "reply_text", "") or error or type(error).__name__)
    if "no queue" in text:
        return Unroutable(f"{queue}: {text}; run `phedex-rucio setup`")
    return BrokerAway(f"{queue}: the broker closed the channel: {text}")
