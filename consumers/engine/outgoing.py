"""What does a settled command send? Messages as values: to a wait queue, to the dead letters, to the events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from msgspec.structs import replace

from common.broker.publisher import Outgoing, command_message, event_message
from common.broker.topology import COMMANDS, dead_name, kind_in, wait_name
from common.errors import InvalidMessage
from common.messages.commands import Command, kind_of, queue_of, with_meta
from common.messages.events import Closed, Retrying
from common.messages.meta import Meta, child_id, new_run, now
from common.outcome import Outcome
from common.settings.model import Main
from common.telemetry.redact import redact
from consumers.engine.incoming import Unreadable, rewritten
from consumers.engine.result import Failed, Result
from consumers.engine.settle import MESSAGE_LENGTH, Away, Dead, Retry, Settlement, settle


@dataclass(frozen=True)
class Context:
    """What settling needs to know besides the command."""

    main: Main
    worker: str


@dataclass(frozen=True)
class Execution:
    """One execution of one command: its name (`run`) is part of the ids of its children."""

    command: Command
    run: str


def settled(command: Command, queue: str, settlement: Settlement, context: Context, seconds: float) -> list[Outgoing]:
    """The messages that settle a command which did not succeed; published and confirmed, it may be acknowledged."""
    moved = with_meta(command, settlement.meta)
    if isinstance(settlement, Dead):
        event = closed_dead(moved.meta, kind_of(moved), moved.key, context.worker, seconds)
        return [_fitting(moved, "", dead_name(kind_of(moved))), event_message(event)]
    if isinstance(settlement, Away):
        return [_fitting(moved, wait_name(context.main.wait_delays[0]), queue)]
    return [
        _fitting(moved, wait_name(context.main.wait_delays[settlement.wait]), queue),
        event_message(retrying(settlement, context)),
    ]


def child(parent: Execution, number: int, item: Command | Failed, context: Context) -> list[Outgoing]:
    """The messages of the number-th child: itself, or where a part failed what becomes of that part."""
    if not isinstance(item, Failed):
        return [command_message(_inherited(parent, number, item), COMMANDS)]
    part = _with_history(_inherited(parent, number, item.command), parent.command.meta)
    main = context.main
    settlement = settle(item.error, part.meta, main.attempts, len(main.wait_delays), now(), away=False)
    return settled(part, queue_of(part), settlement, context, 0.0)


def _inherited(parent: Execution, number: int, command: Command) -> Command:
    """A child in its parent's cycle and lane; its attempt and history are those that the handler gave it."""
    above = parent.command.meta
    meta = replace(
        command.meta,
        id=child_id(above.cycle, above.id, parent.run, number),
        cycle=above.cycle,
        parent=above.id,
        lane=above.lane,
        by=above.by,
        traceparent=above.traceparent,
    )
    return with_meta(command, meta)


def _with_history(part: Command, above: Meta) -> Command:
    """A part that failed by itself has been through what its parent has: it is no new command."""
    meta = replace(part.meta, attempt=above.attempt, errors=above.errors, first_at=above.first_at)
    return with_meta(part, meta)


def retrying(settlement: Retry, context: Context) -> Retrying:
    """The event that a command will be tried again; `attempt` is the one that failed."""
    meta, at = settlement.meta, now()
    next_at = at + timedelta(seconds=context.main.wait_delays[settlement.wait])
    return Retrying(
        id=meta.id, cycle=meta.cycle, attempt=meta.attempt - 1, next_at=next_at, error=meta.errors[-1], at=at
    )


def closed_dead(meta: Meta, kind: str, key: str, worker: str, seconds: float) -> Closed:
    """The event that a command is dead, with its last error."""
    return Closed(
        id=meta.id,
        cycle=meta.cycle,
        command=kind,
        key=key,
        run=new_run(),
        outcome=Outcome.DEAD,
        attempt=meta.attempt,
        seconds=round(seconds, 3),
        worker=worker,
        at=now(),
        error=meta.errors[-1] if meta.errors else None,
    )


def handed_back(command: Command, queue: str) -> list[Outgoing]:
    """The command as it is, at the end of its queue: nothing was done. (A requeue would count as a delivery.)"""
    return [_fitting(command, COMMANDS, queue)]


def closed(parent: Execution, result: Result, children: int, worker: str, seconds: float) -> Closed:
    """The event that an execution ended; only to be published when all its children are confirmed."""
    meta = parent.command.meta
    return Closed(
        id=meta.id,
        cycle=meta.cycle,
        command=kind_of(parent.command),
        key=parent.command.key,
        run=parent.run,
        children=children,
        outcome=result.outcome,
        counts=result.counts,
        names=result.names,
        notes=[redact(note) for note in result.notes],
        changes=result.changes,
        guard=result.guard,
        attempt=meta.attempt,
        seconds=round(seconds, 3),
        as_of=result.as_of,
        worker=worker,
        at=now(),
    )


def settled_unreadable(
    message: Unreadable, body: bytes, queue: str, settlement: Settlement, context: Context
) -> list[Outgoing]:
    """The messages that settle what is no command of ours: the original bytes, but for the meta of a newer version."""
    meta = settlement.meta
    content = rewritten(message, meta) or body
    if isinstance(settlement, Retry):
        wait = wait_name(context.main.wait_delays[settlement.wait])
        return [Outgoing(wait, queue, content, meta.id), event_message(retrying(settlement, context))]
    kind = kind_in(queue) or queue
    reason = {"error": redact(f"{type(message.error).__name__}: {message.error}")[:MESSAGE_LENGTH]}
    letter = Outgoing("", dead_name(kind), content, meta.id, kind, meta.cycle, reason)
    return [letter, event_message(closed_dead(meta, kind, "", context.worker, 0.0))]


def _fitting(command: Command, exchange: str, routing_key: str) -> Outgoing:
    """The message; a history that would make it larger than any worker takes is left out."""
    try:
        return command_message(command, exchange, routing_key)
    except InvalidMessage:
        short = with_meta(command, replace(command.meta, errors=[], first_at=None))
        return command_message(short, exchange, routing_key)
