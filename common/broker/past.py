"""What has been said until now? All of a stream from a point on, ended where the stream ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from common.broker.connection import blocking
from common.broker.streams import OFFSET, EventStream, Offset, attach
from common.errors import BrokerAway, Unroutable
from common.settings.model import Main

T = TypeVar("T")
Reading = AbstractContextManager[Callable[[], Iterator[T]]]

EMPTY = 0.5  # seconds without a message that make a stream count as empty, if the broker says it is
CHUNK = 0.2  # seconds without a message after the newest chunk began: that was all of it
MORE = 2.0  # seconds: a stream into which others write without a pause is left here
FIRST, PATIENCE = 1.0, 30.0  # seconds for the first message; for any after it


@contextmanager
def reading(
    main: Main, queue: str, since: Offset, decode: Callable[[bytes], T | None], name: str = "looks back"
) -> Iterator[Callable[[], Iterator[T]]]:
    """A function that gives what lies in a stream from `since` (see `streams.attach`) to its end now, each time on.

    What `decode` gives None for is left out. A stream does not tell its end (the number of messages that the broker
    gives lags by thousands), so the newest chunk is asked for first. The function raises BrokerAway, also where the
    broker stops in the middle; Unroutable if there is no such stream.
    """
    with attach(main, since, name, queue) as stream:

        def new() -> Iterator[T]:
            for body in _to_the_end(stream, newest(main, queue)):
                found = decode(body)
                if found is not None:
                    yield found

        yield new


def past(main: Main, queue: str, since: Offset, decode: Callable[[bytes], T | None]) -> Iterator[T]:
    """What lies in a stream from `since` to its end now; see `reading`."""
    with reading(main, queue, since, decode) as new:
        yield from new()


def _to_the_end(stream: EventStream, end: int) -> Iterator[bytes]:
    """From a time on there may be nothing at all; once something has come, all up to the end comes."""
    patience, stop = (FIRST if stream.offset < 0 else PATIENCE), float("inf")
    while end >= 0 and time.monotonic() < stop:
        if stream.offset >= end:
            patience, stop = CHUNK, min(stop, time.monotonic() + MORE)
        body = stream.next(patience)
        if body is None:
            break
        yield body
        patience = PATIENCE
    if patience == PATIENCE and 0 <= stream.offset < end:
        raise BrokerAway(f"{stream.source}: the broker stopped at {stream.offset:,} of at least {end:,}")


def newest(main: Main, queue: str) -> int:
    """The offset where a stream's newest chunk begins; -1 for an empty stream.

    The broker's number of messages lags, so none may be said of a stream that has some; some is never said of one that
    has none. Where it says some, silence is a slow broker: raises BrokerAway.
    """
    found: list[int] = []

    def on_message(_: BlockingChannel, __: Basic.Deliver, properties: BasicProperties, ___: bytes) -> None:
        found.append(int((properties.headers or {}).get(OFFSET, -1)))

    with blocking(main, "finds the end") as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        try:
            some = channel.queue_declare(queue, passive=True).method.message_count > 0
            channel.basic_consume(queue, on_message, arguments={OFFSET: "last"})
            connection.process_data_events(PATIENCE if some else EMPTY)
        except exceptions.ChannelClosedByBroker as error:
            raise _explained(queue, error) from error
    if some and not found:
        raise BrokerAway(f"{queue}: the broker has messages there and sent none for {PATIENCE:.0f} s")
    return found[0] if found else -1


def _explained(queue: str, error: exceptions.ChannelClosedByBroker) -> BrokerAway | Unroutable:
    """For about a second after a crash of the broker a stream is down (404 too)."""
    if "no queue" in error.reply_text:
        return Unroutable(f"{queue}: {error.reply_text}; run `phedex-rucio setup`")
    return BrokerAway(f"{queue}: {error.reply_text}")
