"""How is a single message taken from a queue, and a copy kept that comes back unless it is dropped?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pika import exceptions

from common.broker.connection import blocking
from common.errors import Unroutable
from common.settings.model import Main

HOUR = 3600.0


@dataclass(frozen=True)
class Taken:
    """A message in hand; `ack` makes the broker forget it."""

    routing_key: str
    body: bytes
    message_id: str
    ack: Callable[[], None]


def count(main: Main, queue: str) -> int:
    """How many messages lie ready in a queue; raises BrokerAway, and Unroutable if there is no such queue."""
    with blocking(main, "counts") as connection:
        try:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
        except exceptions.ChannelClosedByBroker as error:
            raise Unroutable(f"{queue}: {error.reply_text}; run `phedex-rucio setup`") from error


@contextmanager
def taken(main: Main, queue: str) -> Iterator[Taken | None]:
    """The first message of a queue, or None; without an `ack` in the block the broker has it again after it.

    The block must be short: nothing answers the broker's heartbeats meanwhile.
    """
    with blocking(main, "takes one") as connection:
        channel = connection.channel()
        method, properties, body = channel.basic_get(queue)
        if method is None:
            yield None
        else:
            yield Taken(
                method.routing_key, body, properties.message_id or "", lambda: channel.basic_ack(method.delivery_tag)
            )


def hold(main: Main, name: str, seconds: float, exchange: str, routing_key: str) -> None:
    """A queue exists whose messages go to an exchange after some seconds, unless it is dropped before."""
    arguments: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-message-ttl": round(seconds * 1000),
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": routing_key,
        "x-dead-letter-strategy": "at-least-once",
        # The queue of a worker that died goes by itself, long after its message has left.
        "x-expires": round((2 * seconds + HOUR) * 1000),
    }
    with blocking(main, "holds") as connection:
        connection.channel().queue_declare(name, durable=True, arguments=arguments)


def drop(main: Main, name: str) -> None:
    """The queue of `hold` is gone, with its message."""
    with blocking(main, "drops") as connection:
        connection.channel().queue_delete(name)
