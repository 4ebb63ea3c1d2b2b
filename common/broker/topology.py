"""Which exchanges and queues exist? Derived from the kinds; declared without ever changing what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pika import exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from common.broker.connection import blocking
from common.errors import Unroutable
from common.messages.commands import KINDS
from common.settings.model import Main

COMMANDS = "sync.commands"
EVENTS = "sync.events"
KILLED = "sync.killed"
BEATS = "sync.beats"
SCHEDULER = "sync.scheduler"

DELIVERY_LIMIT = 20
# -1 and 0 drop messages on RabbitMQ 3.10, and none means 20 on 4.x: only a large number keeps everything everywhere.
NO_LIMIT = 1_000_000_000
EVENTS_AGE = "30D"
ACCESS_REFUSED = 403
# A stream drops whole segments only: small ones, so that a day of beats is not a month of them.
BEATS_KEPT: dict[str, str | int] = {"x-max-age": "1D", "x-stream-max-segment-size-bytes": 4_000_000}

Arguments = dict[str, str | int]


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: Literal["direct", "topic", "fanout"]


@dataclass(frozen=True)
class Queue:
    """A durable queue, its arguments, and the exchange and routing key that fill it, if any."""

    name: str
    arguments: Arguments = field(default_factory=dict)
    exchange: str = ""
    routing_key: str = ""


@dataclass(frozen=True)
class Topology:
    """All that the system declares, the exchanges first."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]


def topology(main: Main) -> Topology:
    """The exchanges and queues of a deployment: those of the kinds, one wait queue a delay, and the events."""
    waits = [wait_name(seconds) for seconds in main.wait_delays]
    exchanges = [Exchange(COMMANDS, "direct"), Exchange(EVENTS, "topic"), Exchange(KILLED, "fanout")]
    exchanges += [Exchange(BEATS, "fanout")]
    queues = [_work(name) for name in work_queues()]
    queues += [Queue(dead_name(kind), _dead()) for kind in KINDS]
    queues += [Queue(wait_name(s), _wait(s), exchange=wait_name(s)) for s in main.wait_delays]
    queues += [Queue(KILLED, _dead(), exchange=KILLED)]
    queues += [Queue(EVENTS, {"x-queue-type": "stream", "x-max-age": EVENTS_AGE}, exchange=EVENTS, routing_key="#")]
    queues += [Queue(BEATS, {"x-queue-type": "stream", **BEATS_KEPT}, exchange=BEATS)]
    return Topology((*exchanges, *(Exchange(name, "fanout") for name in waits)), tuple(queues))


def work_queues() -> list[str]:
    """The queues that workers serve, in the order of the kinds; a kind with lanes has two."""
    return [name for kind in KINDS for name in lanes_of(kind)]


def lanes_of(kind: str) -> list[str]:
    """The queues of one kind, that of people first."""
    return [f"{kind}.now", kind] if KINDS[kind].lanes else [kind]


def kind_in(queue: str) -> str | None:
    """The kind that a queue or routing key is for; None for any other name."""
    kind = queue.removesuffix(".now")
    return kind if kind in KINDS else None


def dead_name(kind: str) -> str:
    """The queue of a kind's dead letters."""
    return f"{kind}.dead"


def wait_name(seconds: float) -> str:
    """The name of the exchange and queue where a command waits so long: `sync.wait.30s`, `.5m`, `.3h`, `.500ms`."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"sync.wait.{milliseconds // size}{unit}"
    return f"sync.wait.{milliseconds}ms"


def _work(name: str) -> Queue:
    """To `sync.killed` through a fanout exchange: the message keeps its routing key, which tells the kind."""
    arguments = _quorum() | {"x-delivery-limit": DELIVERY_LIMIT} | _letters_to(KILLED)
    return Queue(name, arguments, exchange=COMMANDS, routing_key=name)


def _wait(seconds: float) -> Arguments:
    """Without a dead-letter routing key a message keeps its own, so one wait queue a delay serves all kinds."""
    return _quorum() | {"x-message-ttl": round(seconds * 1000)} | _letters_to(COMMANDS)


def _dead() -> Arguments:
    return _quorum() | {"x-delivery-limit": NO_LIMIT}


def _quorum() -> Arguments:
    return {"x-queue-type": "quorum", "x-overflow": "reject-publish"}


def _letters_to(exchange: str) -> Arguments:
    return {"x-dead-letter-exchange": exchange, "x-dead-letter-strategy": "at-least-once"}


def declare(main: Main) -> list[str]:
    """All exchanges and queues exist; the names that were created now.

    What the broker already has is looked at passively and left as it is, whatever its arguments (AMQP does not show
    them). Bindings are repeated: that is harmless and mends a crash between a queue and its binding. A user who may
    only work is refused that, which is no error where another user has declared everything.
    Raises BrokerAway; Unroutable where the broker does not let us declare.
    """
    wanted = topology(main)
    with blocking(main, "setup") as connection:
        parts: list[Exchange | Queue] = [*wanted.exchanges, *wanted.queues]
        created = [part.name for part in parts if _created(connection, part)]
        try:
            with _closing(connection.channel()) as channel:
                _bind(channel, wanted.queues)
        except exceptions.ChannelClosedByBroker as error:
            if created or error.reply_code != ACCESS_REFUSED:
                raise _refused("bindings", error) from error
    return created


def _created(connection: BlockingConnection, part: Exchange | Queue) -> bool:
    """True if it was missing and is there now. Looking for what is missing costs the channel (404)."""
    try:
        with _closing(connection.channel()) as channel:
            declare_part(channel, part, passive=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 404:
            raise _refused(part.name, error) from error
    else:
        return False
    with _channel(connection, part.name) as channel:
        declare_part(channel, part, passive=False)
    return True


def declare_part(channel: BlockingChannel, part: Exchange | Queue, *, passive: bool, durable: bool = True) -> None:
    """The part is declared, or (passive) found; the broker closes the channel if it is missing or another."""
    if isinstance(part, Exchange):
        channel.exchange_declare(part.name, part.type, passive=passive, durable=durable)
    else:
        channel.queue_declare(part.name, passive=passive, durable=durable, arguments=dict(part.arguments))


def _bind(channel: BlockingChannel, queues: tuple[Queue, ...]) -> None:
    for queue in queues:
        if queue.exchange:
            channel.queue_bind(queue.name, queue.exchange, queue.routing_key)


@contextmanager
def _closing(channel: BlockingChannel) -> Iterator[BlockingChannel]:
    """The channel, closed at the end unless the broker did that."""
    try:
        yield channel
    finally:
        if channel.is_open:
            channel.close()


@contextmanager
def _channel(connection: BlockingConnection, what: str) -> Iterator[BlockingChannel]:
    """A channel for declaring; what the broker refuses becomes one of our errors, about `what`."""
    try:
        with _closing(connection.channel()) as channel:
            yield channel
    except exceptions.ChannelClosedByBroker as error:
        raise _refused(what, error) from error


def _refused(what: str, error: exceptions.ChannelClosedByBroker) -> Unroutable:
    """Rights are missing; or (404 though it exists) the queue's node or its stream is down."""
    return Unroutable(f"{what}: the broker does not let us use or declare it: {error.reply_text}")
