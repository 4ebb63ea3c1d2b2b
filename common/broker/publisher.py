"""Is a message safely with the broker? Publishing from any thread, with many confirms outstanding."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import pika
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from common.broker.connection import Connection
from common.errors import BrokerAway, BrokerBlocked, BrokerError, PublishRefused, Unroutable
from common.messages import codec
from common.messages.commands import Command, kind_of, queue_of
from common.messages.events import Event, topic_of
from common.telemetry import metrics


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way; the properties are copies of what the body says."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str = ""
    type: str = ""
    correlation_id: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it goes, for people."""
        return f"{self.exchange or 'queue'} {self.routing_key}"


def command_message(command: Command, exchange: str, routing_key: str = "") -> Outgoing:
    """A command as a message; the routing key is its queue's name unless another is given."""
    return Outgoing(
        exchange,
        routing_key or queue_of(command),
        codec.encode(command),
        command.meta.id,
        kind_of(command),
        command.meta.cycle,
    )


def event_message(event: Event, exchange: str = "sync.events") -> Outgoing:
    """An event as a message for the stream."""
    word = topic_of(event)
    cycle, ident = getattr(event, "cycle", ""), getattr(event, "id", "")
    return Outgoing(exchange, word, codec.encode_event(event), ident, word, cycle)


class _Batch:
    """The confirms that one call waits for."""

    __slots__ = ("changed", "confirmed", "error", "open", "total", "wanted")

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.open = self.total = self.confirmed = 0
        self.wanted = 0  # the caller sleeps until no more than so many are open
        self.error: BrokerError | None = None

    def sent(self) -> None:
        with self.changed:
            self.open += 1
            self.total += 1

    def done(self, number: int, error: BrokerError | None = None) -> None:
        with self.changed:
            self.open -= number
            self.confirmed += 0 if error else number
            self.error = self.error or error
            if self.error is not None or self.open <= self.wanted:
                self.changed.notify()

    def wait(self, wanted: int, timeout: float) -> None:
        """At most `wanted` are open, or there is an error, or nothing at all was confirmed for `timeout` seconds."""
        with self.changed:
            self.wanted = wanted
            before = None
            while self.error is None and self.open > wanted and before != self.open:
                before = self.open
                self.changed.wait_for(lambda: self.error is not None or self.open <= wanted, timeout)


class Publisher:
    """Publishes on a connection of its own: a memory alarm blocks it, and must not hold back acknowledgements."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._main = connection.main
        self._channel: Channel | None = None
        self._outbox: deque[tuple[Outgoing, _Batch]] = deque()
        self._scheduled = False
        self._tag = 0
        self._pending: OrderedDict[int, tuple[Outgoing, _Batch]] = OrderedDict()
        self._returned: dict[int, BrokerError] = {}
        connection.attach(self)

    def publish(self, messages: Iterable[Outgoing]) -> int:
        """All messages are stored by the broker, in their order; how many. Reads `messages` as the confirms come in.

        Any thread may call it, many at once. Raises Unroutable (no queue takes it), PublishRefused (the queue is full
        or failed), BrokerBlocked (no confirm within `confirm_timeout`; the message may be stored all the same) and
        BrokerAway: after each of them what went before may be stored, so publish again.
        """
        batch = _Batch()
        try:
            return self._publish(messages, batch)
        finally:
            metrics.PUBLISHED.inc(batch.total)
            metrics.CONFIRMED.inc(batch.confirmed)

    def _publish(self, messages: Iterable[Outgoing], batch: _Batch) -> int:
        for message in messages:
            if batch.total == 0:
                self._connection.wait_open()
            self._send(message, batch)
            if batch.open >= self._main.confirm_window:
                self._await(batch, self._main.confirm_window // 2, message)
        if batch.total:
            self._await(batch, 0, message)
        return batch.total

    def wait_ready(self, timeout: float) -> bool:
        """True if the broker takes messages, now or within `timeout` seconds."""
        try:
            self._connection.wait_open(timeout)
        except BrokerError:
            return False
        return not self._connection.blocked

    def _send(self, message: Outgoing, batch: _Batch) -> None:
        batch.sent()
        self._outbox.append((message, batch))
        if not self._connection.is_open:
            self._connection.wait_open(0)
        if not self._scheduled:
            self._scheduled = True
            self._connection.call(self._flush)

    def _await(self, batch: _Batch, wanted: int, last: Outgoing) -> None:
        batch.wait(wanted, self._main.confirm_timeout)
        if batch.error is not None:
            raise batch.error
        if batch.open > wanted:
            # The error stays with the batch, so that what was not sent yet never is.
            batch.error = self._too_slow(last)
            raise batch.error

    def _too_slow(self, message: Outgoing) -> BrokerBlocked:
        why = f"it holds publishers back: {self._connection.blocked}" if self._connection.blocked else "it is slow"
        limit = self._main.confirm_timeout
        return BrokerBlocked(
            f"{message.place}: no confirm from the broker within {limit:g} s ({why}); the message may be stored"
        )

    # What happens on the I/O thread

    def opened(self, connection: SelectConnection) -> None:
        """A fresh channel; what was not confirmed on an earlier one has failed already."""
        connection.add_on_connection_unblocked_callback(lambda _connection, _frame: self._flush())
        connection.channel(on_open_callback=self._channel_open)

    def closed(self, reason: BrokerError) -> None:
        """Everything that waits for a confirm fails; what was stored without a confirm may come twice."""
        self._channel = None
        self._fail_all(reason)

    def _channel_open(self, channel: Channel) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _frame: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        self._channel, self._tag = channel, 0
        self._pending.clear()
        self._returned.clear()
        self._flush()

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        """The broker closes a channel for a message's sake: an exchange that is not there, a message too large."""
        if self._channel is None or channel is not self._channel:
            return
        self._channel = None
        self._fail_guilty(reason)
        if channel.connection.is_open:
            channel.connection.channel(on_open_callback=self._channel_open)

    def _flush(self) -> None:
        self._scheduled = False
        while self._outbox:
            if self._channel is None:
                return self._without_channel()
            if self._connection.blocked:
                return None  # written now it would only fill our memory; the end of the alarm flushes
            self._basic_publish(*self._outbox.popleft())
        return None

    def _without_channel(self) -> None:
        """While the connection is open its channel comes soon and flushes; else nobody would, so all fail now."""
        if not self._connection.is_open:
            self._fail_all(self._connection.reason)

    def _basic_publish(self, message: Outgoing, batch: _Batch) -> None:
        if batch.error is not None:
            return batch.done(1)
        assert self._channel is not None
        self._tag += 1
        self._pending[self._tag] = (message, batch)
        self._channel.basic_publish(
            message.exchange, message.routing_key, message.body, _properties(message), mandatory=True
        )
        return None

    def _on_confirm(self, frame: pika.frame.Method) -> None:
        method = frame.method
        error = None if isinstance(method, Basic.Ack) else "refused"
        if method.multiple:
            while self._pending and next(iter(self._pending)) <= method.delivery_tag:
                self._settle(next(iter(self._pending)), error)
        else:
            self._settle(method.delivery_tag, error)

    def _settle(self, tag: int, refused: str | None) -> None:
        message, batch = self._pending.pop(tag)
        error = self._returned.pop(tag, None) if self._returned else None
        if error is None and refused:
            error = PublishRefused(f"{message.place}: the broker refused the message: the queue is full or failed")
        batch.done(1, error)

    def _on_return(self, _channel: Channel, method: Basic.Return, properties: BasicProperties, body: bytes) -> None:
        """A message that no queue takes comes back before its confirm; returns come in the order of publishing."""
        for tag, (message, _) in self._pending.items():
            if tag not in self._returned and _is_same(message, method, properties, body):
                self._returned[tag] = Unroutable(
                    f"{message.place}: no queue takes the message ({method.reply_text}); run `phedex-rucio setup`"
                )
                return

    def _fail_guilty(self, reason: Exception) -> None:
        """A message for an exchange that is not there fails, and what was on its way beside it is sent again.

        Some of that may be stored already and comes twice. For another reason nobody can tell whose fault it is.
        """
        is_guilty = [_names(reason, message.exchange) for message, _ in self._pending.values()]
        if not any(is_guilty):
            return self._fail_all(_channel_error(reason))
        error = _channel_error(reason)
        again = []
        for (message, batch), guilty in zip(self._pending.values(), is_guilty, strict=True):
            if guilty:
                batch.done(1, type(error)(f"{message.place}: {error}"))
            else:
                again.append((message, batch))
        self._pending.clear()
        self._outbox.extendleft(reversed(again))
        return None

    def _fail_all(self, reason: BrokerError) -> None:
        failed = [*self._pending.values(), *self._outbox]
        self._pending.clear()
        self._outbox.clear()
        for message, batch in failed:
            batch.done(1, type(reason)(f"{message.place}: {reason}"))


def _properties(message: Outgoing) -> BasicProperties:
    return BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        app_id="phedex-rucio",
        message_id=message.message_id[:255] or None,
        type=message.type[:255] or None,
        correlation_id=message.correlation_id[:255] or None,
        headers=dict(message.headers) or None,
        timestamp=int(time.time()),
    )


def _is_same(message: Outgoing, method: Basic.Return, properties: BasicProperties, body: bytes) -> bool:
    return (
        method.routing_key == message.routing_key
        and method.exchange == message.exchange
        and (properties.message_id or "") == message.message_id[:255]
        and body == message.body
    )


def _names(reason: Exception, exchange: str) -> bool:
    """True where the broker closed the channel because it has no such exchange."""
    text = str(getattr(reason, "reply_text", ""))
    return getattr(reason, "reply_code", 0) == 404 and bool(exchange) and f"'{exchange}'" in text


def _channel_error(reason: Exception) -> BrokerError:
    code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", "") or str(reason)
    if code == 404:
        return Unroutable(f"{text}; run `phedex-rucio setup`")
    return PublishRefused(text) if code else BrokerAway(f"the channel was closed: {text}")
