"""How does the broker stand? How much lies in each queue, is the lease held, does it take messages? Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace
from pika import exceptions
from pika.adapters.blocking_connection import BlockingConnection

from common.broker.connection import blocking
from common.broker.topology import SCHEDULER, topology
from common.errors import BrokerAway, BrokerBlocked
from common.settings.model import Main

PATIENCE = 1.0  # seconds that a broker may hold a publisher back before we call that an alarm

Lease = Literal["held", "free"]


@dataclass(frozen=True)
class Depth:
    """A queue: messages that lie ready (what a worker has in hand is not among them), and consumers."""

    name: str
    ready: int
    consumers: int


@dataclass(frozen=True)
class Standing:
    """The queues by name; those that nobody has declared yet; those that are not up; and the schedulers' lease.

    `blocked`: why the broker holds publishers back, "" while it takes messages.
    """

    queues: dict[str, Depth]
    missing: list[str]
    down: list[str]
    lease: Lease
    blocked: str


def standing(main: Main) -> Standing:
    """The broker as it is now. Raises BrokerAway."""
    with blocking(main, "status") as connection:
        looks = {queue.name: _depth(connection, queue.name) for queue in topology(main).queues}
        lease = _lease(connection)
    return Standing(
        queues={name: depth for name, depth in looks.items() if isinstance(depth, Depth)},
        missing=[name for name, depth in looks.items() if depth == "missing"],
        down=[name for name, depth in looks.items() if depth == "down"],
        lease=lease,
        blocked=blocked(main),
    )


def queues(connection: BlockingConnection, main: Main) -> list[Depth]:
    """Every queue that is there, and how much lies in it."""
    looks = [_depth(connection, queue.name) for queue in topology(main).queues]
    return [depth for depth in looks if isinstance(depth, Depth)]


def _depth(connection: BlockingConnection, name: str) -> Depth | Literal["missing", "down"]:
    """A look that fails costs its channel."""
    channel = connection.channel()
    try:
        method = channel.queue_declare(name, passive=True).method
    except exceptions.ChannelClosedByBroker as error:
        return "missing" if "no queue" in error.reply_text else "down"
    channel.close()
    return Depth(name, int(method.message_count), int(method.consumer_count))


def _lease(connection: BlockingConnection) -> Lease:
    """The lease is an exclusive queue: 405 for everybody but its holder, gone with the holder's connection."""
    channel = connection.channel()
    try:
        channel.queue_declare(SCHEDULER, passive=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code not in (404, 405):
            raise BrokerAway(f"{SCHEDULER}: {error.reply_text}") from error
        return "held" if error.reply_code == 405 else "free"
    channel.close()
    return "held"


def blocked(main: Main) -> str:
    """Why the broker holds publishers back, "" if it does not. Raises BrokerAway.

    It tells only who publishes: so one message is, to a queue that does not exist; the broker drops it, and confirms.
    In an alarm it takes that one, then reads no more, not even the end of the connection.
    """
    try:
        with blocking(replace(main, blocked_timeout=PATIENCE), "status publishes") as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("", "sync.nowhere", b"")
    except (BrokerBlocked, exceptions.ConnectionBlockedTimeout):
        return "it is low on memory or disk"
    return ""
