"""What becomes of a message whose workers died? The story of `sync.killed`:

1. A worker dies with messages in hand; the broker delivers them again, counts, and at the delivery limit of the queue
   moves them to `sync.killed`: the one that kills, and the innocent that were in hand with it each time.
2. A worker with nothing else in hand takes one. Before anything else a copy with `killed` + 1 goes into a queue of its
   own (confirmed), from which it returns to `sync.killed` after more than the longest execution. Then the original is
   acknowledged and the command is handled as usual.
3. It ends, in whatever way: the copy is deleted with its queue. The innocent are free.
4. The worker dies: the copy returns, and `killed` says that it had its chance: a dead letter and its `closed` event.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from msgspec.structs import replace as changed

from common.broker import single
from common.broker.consumer import Delivery
from common.broker.publisher import Outgoing
from common.broker.single import Taken
from common.broker.topology import KILLED
from common.errors import BrokerError, InvalidMessage, KilledWorker, NewerVersion
from common.messages import codec
from common.messages.commands import Command, with_meta
from common.messages.meta import new_run, now
from common.settings.model import Main
from consumers.engine import outgoing
from consumers.engine.execute import Doors, Hand
from consumers.engine.incoming import read, unreadable
from consumers.engine.settle import settle

log = logging.getLogger("phedex_rucio.worker")


def is_waiting(main: Main) -> bool:
    """True if there is something in `sync.killed`."""
    return single.count(main, KILLED) > 0


def serve_one(doors: Doors) -> None:
    """One message of `sync.killed` has had its chance, or is a dead letter. Nothing else may be in hand."""
    main = doors.context.main
    with single.taken(main, KILLED) as taken:
        delivery = None if taken is None else _begin(taken, doors)
    if delivery is not None:
        copy = _Copy(main, delivery.private)
        Hand(replace(doors, source=copy)).handle(delivery.message)


@dataclass(frozen=True)
class _Alone:
    """A message that is run alone, and the queue that holds its copy."""

    message: Delivery
    private: str


@dataclass(frozen=True)
class _Copy:
    """The source of a message whose copy waits: settled is what has no copy any more."""

    main: Main
    queue: str

    def ack(self, delivery: Delivery) -> None:
        """The copy is gone; if that fails it comes back to be a dead letter, which can be replayed or dropped."""
        try:
            single.drop(self.main, self.queue)
        except BrokerError as error:
            log.warning("a copy will come back: %s", error, extra={"queue": delivery.queue})

    def is_lost(self, _delivery: Delivery) -> bool:
        """Never: it was acknowledged before it began."""
        return False


def _begin(taken: Taken, doors: Doors) -> _Alone | None:
    """The message that is to be run now, its copy confirmed; None for what is a dead letter now."""
    queue = taken.routing_key
    try:
        command = read(taken.body, queue, taken.message_id)
    except (InvalidMessage, NewerVersion) as error:
        doors.publisher.publish(_unreadable(taken, error, doors))
        taken.ack()
        return None
    if command.meta.killed:
        doors.publisher.publish(_dead(command, queue, doors))
        taken.ack()
        return None
    return _held(with_meta(command, changed(command.meta, killed=1)), taken, doors)


def _held(command: Command, taken: Taken, doors: Doors) -> _Alone:
    main, private = doors.context.main, f"{KILLED}.{new_run()}"
    body = codec.encode(command)
    single.hold(main, private, 2 * (main.deadline + main.grace), KILLED, taken.routing_key)
    doors.publisher.publish([Outgoing("", private, body, command.meta.id)])
    taken.ack()
    log.warning("alone", extra={"key": command.key, "id": command.meta.id, "queue": taken.routing_key})
    return _Alone(Delivery(taken.routing_key, taken.routing_key, body, command.meta.id, 0, 0, 0), private)


def _dead(command: Command, queue: str, doors: Doors) -> list[Outgoing]:
    error = KilledWorker(f"{command.key}: its worker died each time, the last time with nothing else in hand")
    main = doors.context.main
    settlement = settle(error, command.meta, main.attempts, len(main.wait_delays), now(), away=False)
    return outgoing.settled(command, queue, settlement, doors.context, 0.0)


def _unreadable(taken: Taken, error: Exception, doors: Doors) -> list[Outgoing]:
    message, main = unreadable(taken.body, taken.message_id, error), doors.context.main
    settlement = settle(error, message.meta, main.attempts, len(main.wait_delays), now(), away=False)
    return outgoing.settled_unreadable(message, taken.body, taken.routing_key, settlement, doors.context)
