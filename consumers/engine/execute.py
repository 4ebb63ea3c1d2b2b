"""How is one message handled? Decode, handle, publish what follows, then acknowledge: in this order, always."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from common.broker.consumer import Delivery
from common.broker.publisher import Outgoing, Publisher, event_message
from common.errors import BrokerAway, BrokerBlocked, BrokerError, DeadlineExceeded, InvalidMessage, NewerVersion
from common.messages.commands import Command, kind_of
from common.messages.meta import new_run, now
from consumers.engine import outgoing
from consumers.engine.health import DeadRun
from consumers.engine.in_hand import Busy
from consumers.engine.incoming import read, unreadable
from consumers.engine.outgoing import Context, Execution
from consumers.engine.probe import Outages
from consumers.engine.result import Result, Stop
from consumers.engine.settle import Away, Dead, Settlement, settle
from consumers.engine.telling import LOST, Ended, Telling, planned

if TYPE_CHECKING:
    from consumers.engine.world import World

log = logging.getLogger("phedex_rucio.worker")

Handler = Callable[[Command, "World"], Result]
WorldFactory = Callable[[Callable[[], None]], "World"]
SETTLE_PAUSE, SETTLE_PAUSE_MAX = 0.5, 10.0


class Source(Protocol):
    """Where a delivery came from: a Consumer, or whoever runs a single message."""

    def ack(self, delivery: Delivery) -> None:
        """The message is settled."""

    def is_lost(self, delivery: Delivery) -> bool:
        """True if the message comes again whatever we do."""


@dataclass(frozen=True)
class Doors:
    """What the executions of a worker share."""

    context: Context
    publisher: Publisher
    source: Source
    handlers: Mapping[str, Handler]
    world_factory: WorldFactory
    outages: Outages
    dead_run: DeadRun
    draining: threading.Event
    leaving: threading.Event  # the grace is over: nothing is waited for any more
    busy: Busy = field(default_factory=Busy)


class Hand:
    """One thread's way through messages. Every execution has a World of its own: settings may have changed since."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._deadline = 0.0

    def handle(self, delivery: Delivery) -> None:
        """The message is settled and acknowledged; or, where the broker or the grace period ends first, comes again."""
        with Telling(delivery) as telling:
            try:
                command = read(delivery.body, delivery.queue, delivery.message_id)
            except (InvalidMessage, NewerVersion) as error:
                self._unreadable(delivery, error, telling)
                return
            with self._doors.busy.on(command):
                ended = self._ended(command, delivery.queue)
                settled = self._settle(delivery, ended.messages)
            telling.ended(command.meta, command.key, ended if settled else LOST)
            if settled and ended.result is not None:
                ended.result.done()

    def checkpoint(self) -> None:
        """Raises Stop in a drain and after the deadline of the command in hand."""
        self._doors.busy.step()
        if self._doors.draining.is_set() or time.monotonic() > self._deadline:
            raise Stop

    def _ended(self, command: Command, queue: str) -> Ended:
        self._doors.dead_run.enter()
        if not self._doors.outages.enter(command.meta.id, command.needs):
            return self._not_now(command, queue)
        try:
            ended = self._execution(command, queue)
        finally:
            self._doors.outages.leave()
        if ended.word == "dead" or ended.error is None:
            self._doors.dead_run.note(command.key, dead=ended.word == "dead")
        return ended

    def _not_now(self, command: Command, queue: str) -> Ended:
        if self._doors.draining.is_set():
            return Ended("handed_back", outgoing.handed_back(command, queue))
        return self._settled(command, queue, Away(command.meta), 0.0)

    def _execution(self, command: Command, queue: str) -> Ended:
        begun = time.monotonic()
        self._deadline = begun + self._doors.context.main.deadline
        try:
            with self._doors.busy.handling(command):
                return self._succeeded(Execution(command, new_run()), begun)
        except Stop:
            return self._stopped(command, queue, begun)
        except (BrokerAway, BrokerBlocked) as error:
            return self._settled(command, queue, Away(command.meta), time.monotonic() - begun, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is settled, with its class and traceback
            return self._failed(command, queue, error, begun)

    def _succeeded(self, execution: Execution, begun: float) -> Ended:
        self.checkpoint()
        kind = kind_of(execution.command)
        if kind not in self._doors.handlers:
            raise InvalidMessage(f"kind: {kind} is not served by this worker; the message is in the wrong queue")
        result = self._doors.handlers[kind](execution.command, self._doors.world_factory(self.checkpoint))
        children = self._publish_children(execution, result)
        event = outgoing.closed(execution, result, children, self._doors.context.worker, time.monotonic() - begun)
        planned(execution.command, result)
        return Ended(result.outcome.value, [event_message(event)], result.counts, children, result=result)

    def _publish_children(self, execution: Execution, result: Result) -> int:
        """Every child is confirmed (that of a failed part with its event); how many children."""
        if not result.follow:
            return 0  # most commands: what is lazy is true here
        number = 0

        def messages() -> Iterator[Outgoing]:
            nonlocal number
            for item in result.follow:
                yield from outgoing.child(execution, number, item, self._doors.context)
                number += 1

        self._doors.publisher.publish(messages())
        return number

    def _stopped(self, command: Command, queue: str, begun: float) -> Ended:
        """Nothing was done, or the handler would not have let it pass. A deadline costs an attempt, a drain none."""
        if self._doors.draining.is_set():
            return Ended("handed_back", outgoing.handed_back(command, queue))
        limit = self._doors.context.main.deadline
        late = DeadlineExceeded(f"{command.key}: not one piece of work was finished within {limit:g} s")
        return self._failed(command, queue, late, begun)

    def _failed(self, command: Command, queue: str, error: Exception, begun: float) -> Ended:
        main = self._doors.context.main
        away = self._doors.outages.is_away(error) and not self._doors.outages.is_suspect(command.meta.id)
        settlement = settle(error, command.meta, main.attempts, len(main.wait_delays), now(), away=away)
        return self._settled(command, queue, settlement, time.monotonic() - begun, error)

    def _settled(
        self, command: Command, queue: str, settlement: Settlement, seconds: float, error: Exception | None = None
    ) -> Ended:
        messages = outgoing.settled(command, queue, settlement, self._doors.context, seconds)
        return Ended(type(settlement).__name__.lower(), messages, error=error)

    def _unreadable(self, delivery: Delivery, error: Exception, telling: Telling) -> None:
        main = self._doors.context.main
        message = unreadable(delivery.body, delivery.message_id, error)
        settlement = settle(error, message.meta, main.attempts, len(main.wait_delays), now(), away=False)
        messages = outgoing.settled_unreadable(message, delivery.body, delivery.queue, settlement, self._doors.context)
        settled = self._settle(delivery, messages)
        word = "dead" if isinstance(settlement, Dead) else "retry"
        telling.ended(message.meta, "", Ended(word, [], error=error) if settled else LOST)

    def _settle(self, delivery: Delivery, messages: list[Outgoing]) -> bool:
        """The messages are confirmed and the delivery acknowledged; False if the broker will bring it again.

        A broker that is away, blocked or lacks a queue is waited for: with the message in hand nothing can be lost.
        """
        doors, pause = self._doors, SETTLE_PAUSE
        while not doors.source.is_lost(delivery):
            try:
                doors.publisher.publish(messages)
                doors.source.ack(delivery)
            except BrokerError as error:
                log.warning("cannot settle a message yet: %s", error, extra={"queue": delivery.queue})
                if doors.leaving.wait(pause):
                    return False
                pause = min(SETTLE_PAUSE_MAX, pause * 2)
            else:
                return True
        return False
