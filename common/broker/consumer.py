"""How do messages get into the hands of N threads, never more than N at a time, and back to the broker?

A *seat* is a channel with a list of queues of its own. One queue: a consumer whose prefetch is the seat's share of the
threads. Several: one message at a time by `basic.get`, the queues in turn. (Rotating a consumer instead would cancel
it while a message is on its way, and pika gives that back with `reject`, which counts towards the delivery limit.)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from common.broker.connection import Connection
from common.errors import BrokerError

log = logging.getLogger("phedex_rucio.broker")

Received: TypeAlias = Basic.Deliver | Basic.GetOk
IDLE, IDLE_MAX = 0.1, 1.0  # seconds between two looks at empty queues
RENEW = 60.0  # seconds without a message after which a consumer is begun anew
REOPEN = 1.0  # seconds before a channel or consumer that the broker ended is opened again


@dataclass(frozen=True)
class Seat:
    """Some queues and how many of their messages may be in hand at once."""

    queues: tuple[str, ...]
    prefetch: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in hand. `seat`, `life` (of its channel) and `tag` say what to acknowledge.

    `published`: when it was last published, in seconds since 1970; 0 where its sender did not say.
    """

    queue: str
    routing_key: str
    body: bytes
    message_id: str
    seat: int
    life: int
    tag: int
    published: int = 0


def seats(now: Sequence[str], bulk: Sequence[str], threads: int, first: str = "sync.blocks") -> list[Seat]:
    """Who serves which queues. The prefetch of all seats together is at most `threads`; no queue is in two seats.

    The queues of people (`now`) have a thread of their own, so that nobody waits behind the timetable; with one thread
    all take turns. Threads beyond one a queue go to `first`, where the work is.
    """
    if threads == 1 or not now or not bulk:
        return _group([*now, *bulk], threads, first)
    return _group(list(now), 1, first) + _group(list(bulk), threads - 1, first)


def _group(queues: list[str], threads: int, first: str) -> list[Seat]:
    if len(queues) <= threads:
        extra = threads - len(queues)
        lucky = first if first in queues else next(iter(queues), "")
        return [Seat((q,), 1 + (extra if q == lucky else 0)) for q in queues]
    return [Seat(tuple(queues[i::threads]), 1) for i in range(threads)]


@dataclass
class _Open:
    """A seat in use; touched on the I/O thread only."""

    seat: Seat
    channel: Channel | None = None
    life: int = 0  # rises with every channel: tags of an earlier one mean nothing
    consumer: str = ""
    cancelling: bool = False
    busy: bool = False  # since the last look at whether to renew
    waiting: bool = False  # for the answer to a get, or for the next look
    turn: int = 0
    empty: int = 0
    in_hand: dict[int, bool] = field(default_factory=dict)  # tag → done


class Consumer:
    """Delivers the messages of the seats to `deliver` (called on the I/O thread: it must only hand them on)."""

    def __init__(self, connection: Connection, all_seats: Sequence[Seat], deliver: Callable[[Delivery], None]) -> None:
        self.lost_acks = 0
        self._connection = connection
        self._deliver = deliver
        self._seats = [_Open(seat) for seat in all_seats]
        self._done: deque[tuple[Delivery, bool]] = deque()
        self._scheduled = False
        self._paused: dict[str, set[str]] = {}
        self._stopped = False
        connection.attach(self)
        connection.call(self._renew)

    # What any thread may call

    def ack(self, delivery: Delivery) -> None:
        """The broker forgets the message, or, if its channel is gone, brings it again."""
        self._settle(delivery, True)

    def give_back(self, delivery: Delivery) -> None:
        """The broker has the message again, for whoever comes. It counts towards the delivery limit of the queue.

        Hence `reject`: RabbitMQ 4.3 does not count a `nack`, so what fails each time would come for ever.
        """
        self._settle(delivery, False)

    def pause(self, why: str, queues: Collection[str]) -> None:
        """Nothing more comes from these queues, but for what is on its way, until all who paused them resume."""
        self._connection.call(lambda: self._pause(why, set(queues)))

    def resume(self, why: str) -> None:
        """The pause of this name has ended."""
        self._connection.call(lambda: self._resume(why))

    @property
    def is_quiet(self) -> bool:
        """True if something is paused, nothing is in hand, and nothing is on its way."""
        return bool(self._paused) and not any(seat.in_hand or seat.waiting or seat.consumer for seat in self._seats)

    def stop(self) -> None:
        """Nothing more comes, ever; what is in hand can still be acknowledged."""
        self._connection.call(self._stop)

    def is_lost(self, delivery: Delivery) -> bool:
        """True if the channel of a message is gone: the broker brings it again, to us or to another."""
        seat = self._seats[delivery.seat]
        return seat.channel is None or seat.life != delivery.life

    def _settle(self, delivery: Delivery, good: bool) -> None:
        self._done.append((delivery, good))
        if not self._scheduled:
            self._scheduled = True
            self._connection.call(self._flush)

    # What happens on the I/O thread

    def opened(self, connection: SelectConnection) -> None:
        """Every seat gets a fresh channel."""
        for number in range(len(self._seats)):
            connection.channel(on_open_callback=partial(self._channel_open, number))

    def closed(self, _reason: BrokerError) -> None:
        """What is in hand will come again, its acknowledgements are dropped."""
        for seat in self._seats:
            _forget(seat)

    def _channel_open(self, number: int, channel: Channel) -> None:
        seat = self._seats[number]
        _forget(seat)
        seat.channel = channel
        channel.add_on_close_callback(partial(self._channel_closed, number))
        channel.add_on_cancel_callback(partial(self._cancelled, number, channel))
        if len(seat.seat.queues) == 1:
            channel.basic_qos(prefetch_count=seat.seat.prefetch, callback=lambda _frame: self._serve(number))
        else:
            channel.add_callback(partial(self._get_empty, number, channel), [Basic.GetEmpty], one_shot=False)
            self._serve(number)

    def _channel_closed(self, number: int, channel: Channel, reason: Exception) -> None:
        seat = self._seats[number]
        if seat.channel is None or channel is not seat.channel:
            return
        _forget(seat)
        if not self._stopped and channel.connection.is_open:
            log.warning("broker closed a channel: %s", reason, extra={"queues": list(seat.seat.queues)})
            self._connection.later(REOPEN, partial(self._reopen, number, channel.connection))

    def _reopen(self, number: int, connection: SelectConnection) -> None:
        if connection.is_open and self._seats[number].channel is None:
            connection.channel(on_open_callback=partial(self._channel_open, number))

    def _cancelled(self, number: int, channel: Channel, _frame: object) -> None:
        """The broker ends a consumer: its queue was deleted, moved, or an acknowledgement took too long (4.3)."""
        seat = self._seats[number]
        if seat.channel is None or channel is not seat.channel:
            return
        log.warning("broker cancelled a consumer", extra={"queues": list(seat.seat.queues)})
        seat.consumer, seat.cancelling = "", False
        self._connection.later(REOPEN, partial(self._serve, number))

    def _renew(self) -> None:
        """Idle seats get a fresh channel: the broker may have lost a consumer without a word.

        Seen on 3.10: a quorum queue was deleted while the consumer was being set up. No cancel came, its successor of
        the same name counted a consumer and gave it nothing, and cancelling it on the same channel did not help.
        """
        for number, seat in enumerate(self._seats):
            if seat.consumer and not (seat.busy or seat.in_hand or seat.cancelling):
                self._fresh_channel(number)
            seat.busy = False
        if not self._stopped:
            self._connection.later(RENEW, self._renew)

    def _fresh_channel(self, number: int) -> None:
        """What is delivered to the old channel until it is closed goes back to the broker with it."""
        seat = self._seats[number]
        old = seat.channel
        if old is not None and old.is_open:
            _forget(seat)
            old.close()
            self._reopen(number, old.connection)

    def _serve(self, number: int) -> None:
        """Whatever the seat's state, it gets its next messages if it should."""
        seat = self._seats[number]
        if seat.channel is None or not seat.channel.is_open or self._stopped:
            return
        paused = set().union(*self._paused.values())
        queues = [q for q in seat.seat.queues if q not in paused]
        if not queues:
            return
        if len(seat.seat.queues) == 1:
            self._consume(number, seat, seat.channel)
        elif not seat.waiting and not seat.in_hand:
            self._get(number, seat, queues[seat.turn % len(queues)])

    def _consume(self, number: int, seat: _Open, channel: Channel) -> None:
        if not seat.consumer:
            queue = seat.seat.queues[0]
            seat.consumer = channel.basic_consume(queue, self._receiver(number, queue))

    def _get(self, number: int, seat: _Open, queue: str) -> None:
        assert seat.channel is not None
        seat.waiting = True
        seat.turn += 1
        seat.channel.basic_get(queue, self._receiver(number, queue))

    def _receiver(self, number: int, queue: str) -> Callable[[Channel, Received, BasicProperties, bytes], None]:
        """What pika calls with a message for a seat."""

        def receive(channel: Channel, method: Received, properties: BasicProperties, body: bytes) -> None:
            seat, tag = self._seats[number], method.delivery_tag
            if seat.channel is None or channel is not seat.channel:
                return  # it is being closed: the message goes back with it
            seat.waiting, seat.empty, seat.busy = False, 0, True
            seat.in_hand[tag] = False
            if self._stopped:
                channel.basic_nack(tag)
                return
            ident = properties.message_id or ""
            at = properties.timestamp if isinstance(properties.timestamp, int) else 0
            self._deliver(Delivery(queue, method.routing_key, body, ident, number, seat.life, tag, at))

        return receive

    def _get_empty(self, number: int, channel: Channel, _frame: object) -> None:
        seat = self._seats[number]
        if seat.channel is not channel:
            return
        seat.empty += 1
        rounds, left = divmod(seat.empty, len(seat.seat.queues))
        pause = 0.0 if left else min(IDLE_MAX, IDLE * rounds)
        self._connection.later(pause, partial(self._look_again, number, channel))

    def _look_again(self, number: int, channel: Channel) -> None:
        if self._seats[number].channel is channel:
            self._seats[number].waiting = False
            self._serve(number)

    def _flush(self) -> None:
        """All acknowledgements since the last call go out together."""
        self._scheduled = False
        touched = set()
        while self._done:
            delivery, good = self._done.popleft()
            seat = self._seats[delivery.seat]
            if seat.channel is None or seat.life != delivery.life or not seat.channel.is_open:
                self.lost_acks += 1
            elif good:
                seat.in_hand[delivery.tag] = True
            else:
                seat.in_hand.pop(delivery.tag, None)
                seat.channel.basic_reject(delivery.tag)
            touched.add(delivery.seat)
        for number in touched:
            _acknowledge(self._seats[number])
            self._serve(number)

    def _pause(self, why: str, queues: set[str]) -> None:
        self._paused[why] = queues
        for number, seat in enumerate(self._seats):
            if set(seat.seat.queues) <= queues:
                self._cancel(number)

    def _resume(self, why: str) -> None:
        self._paused.pop(why, None)
        for number in range(len(self._seats)):
            self._serve(number)

    def _stop(self) -> None:
        self._stopped = True
        for number in range(len(self._seats)):
            self._cancel(number)

    def _cancel(self, number: int) -> None:
        """The seat's consumer ends; if there is no reason for that any more by then, another begins."""
        seat = self._seats[number]
        if seat.consumer and not seat.cancelling and seat.channel is not None and seat.channel.is_open:
            seat.cancelling = True
            seat.channel.basic_cancel(seat.consumer, partial(self._cancel_ok, number, seat.life))

    def _cancel_ok(self, number: int, life: int, _frame: object) -> None:
        seat = self._seats[number]
        if seat.life == life:
            seat.consumer, seat.cancelling = "", False
            self._serve(number)


def _forget(seat: _Open) -> None:
    seat.channel, seat.consumer, seat.cancelling, seat.waiting, seat.empty = None, "", False, False, 0
    seat.life += 1
    seat.in_hand.clear()


def _acknowledge(seat: _Open) -> None:
    """What is done is acknowledged with as few frames as its order allows."""
    if seat.channel is None or not seat.channel.is_open:
        return
    lowest_open = min((tag for tag, done in seat.in_hand.items() if not done), default=None)
    done = sorted(tag for tag, is_done in seat.in_hand.items() if is_done)
    below = [tag for tag in done if lowest_open is None or tag < lowest_open]
    if below:
        seat.channel.basic_ack(below[-1], multiple=True)
    for tag in done[len(below) :]:
        seat.channel.basic_ack(tag)
    for tag in done:
        del seat.in_hand[tag]
