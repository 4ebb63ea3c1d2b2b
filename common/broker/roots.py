"""How does a command enter the system? Its `asked` event first, confirmed, then the command itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from common.broker.publisher import Publisher, command_message, event_message
from common.broker.topology import COMMANDS, EVENTS
from common.messages import codec
from common.messages.commands import Command, with_meta
from common.messages.events import Asked
from common.messages.meta import new_id, now


def rooted(command: Command, by: str) -> Command:
    """The command with an id (a new one unless it has one), a cycle of its own name, and who sends it."""
    meta = command.meta
    ident = meta.id or new_id()
    return with_meta(command, replace(meta, id=ident, cycle=meta.cycle or ident, by=meta.by or by))


def send(publisher: Publisher, commands: Iterable[Command], by: str = "") -> list[Command]:
    """The commands are with the broker, each after its `asked` event; they are given back with their ids.

    A crash between leaves an `asked` without its command: a reader sees a cycle that never starts, nothing is lost
    unseen. Raises BrokerError (then each may or may not be there) and InvalidMessage.
    """
    roots = [rooted(command, by) for command in commands]
    messages = [command_message(root, COMMANDS) for root in roots]
    publisher.publish(event_message(asked(root), EVENTS) for root in roots)
    publisher.publish(messages)
    return roots


def asked(root: Command) -> Asked:
    """The event that a root command is being sent."""
    return Asked(id=root.meta.id, cycle=root.meta.cycle, command=codec.as_dict(root), at=now())


def again(command: Mapping[str, object]) -> Command:
    """The command that an `asked` event announced, under the same id; raises InvalidMessage."""
    fields = dict(command)
    return codec.build(str(fields.pop("kind", "")), fields)
