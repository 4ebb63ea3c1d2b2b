"""Does the broker have what we would declare? Each difference by name, found without changing anything.

AMQP shows no arguments. But a declaration that differs from what exists is refused (406) with the first differing
argument and its value; asked again with that value, the broker names the next. Policies do not show this way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pika import exceptions
from pika.adapters.blocking_connection import BlockingConnection

from common.broker.connection import blocking
from common.broker.topology import BEATS, EVENTS, KILLED, Exchange, Queue, declare_part, topology
from common.errors import BrokerAway
from common.settings.model import Main

Value = str | int | bool | None

_DIFFERS = re.compile(r"inequivalent arg '([^']+)' for .*? but current is (?:none|(?:the value )?'([^']*)')", re.DOTALL)
_KIND = re.compile(r"but current is the value '[^']*' of type '([^']+)'", re.DOTALL)
MOST = 20  # differences of one queue
_UNITS = {"D": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}  # of an age, in milliseconds

# What loses letters. Work and wait queues: whatever a dead worker or a full queue leaves must arrive somewhere.
_MOVING = {"x-queue-type", "x-dead-letter-exchange", "x-dead-letter-strategy", "x-overflow", "x-expires", "durable"}
# Queues that keep: nothing may end or limit what lies there.
_KEEPING = {"x-queue-type", "x-delivery-limit", "x-message-ttl", "x-max-length", "x-max-length-bytes", "x-expires"}
_KEEPING |= {"x-overflow", "durable"}


@dataclass(frozen=True)
class Drift:
    """One thing that is not as declared. `wanted` or `found` is None where it has no value."""

    name: str
    argument: str
    wanted: Value
    found: Value
    is_dangerous: bool

    def __str__(self) -> str:
        if self.argument == MISSING:
            return f"{self.name} is missing: run `phedex-rucio setup`"
        return f"{self.name}: {self.argument} is {_said(self.found)}, should be {_said(self.wanted)}"


MISSING = "missing"


def drifts(main: Main) -> list[Drift]:
    """Every difference between the broker and what `setup` would declare; nothing is created or changed.

    What is missing is one difference, with the argument `missing`. Raises BrokerAway.
    """
    wanted = topology(main)
    with blocking(main, "check") as connection:
        parts: list[Exchange | Queue] = [*wanted.exchanges, *wanted.queues]
        return [drift for part in parts for drift in _of(connection, part)]


def _of(connection: BlockingConnection, part: Exchange | Queue) -> list[Drift]:
    found: list[Drift] = []
    asked = part
    durable = True
    for _ in range(MOST):
        if _refusal(connection, asked, durable=durable, passive=True):
            return [Drift(part.name, MISSING, None, None, is_dangerous=False)]
        text = _refusal(connection, asked, durable=durable, passive=False)
        if not text:
            break
        drift = difference(part, text)
        found.append(drift)
        if drift.argument == "durable":
            durable = False
        elif isinstance(asked, Queue) and drift.argument.startswith("x-") and len(set(found)) == len(found):
            asked = _with(asked, drift)
        else:
            break  # an exchange's type, or a text that names no argument: there is nothing more to ask
    return list(dict.fromkeys(_in_our_words(drift) for drift in found))


def _in_our_words(drift: Drift) -> Drift:
    """What was found is spelled as one declares it, whatever the broker's version.

    3.10 and 4.0 say a stream's age as it was declared and nothing of a type that was not; 4.3 says milliseconds and
    `classic`, the type of a queue that names none.
    """
    if drift.argument == "x-queue-type" and drift.found is None:
        return replace(drift, found="classic")
    if drift.argument == "x-max-age" and str(drift.found).isdigit():
        age = int(str(drift.found))
        unit = next((unit for unit, size in _UNITS.items() if age % size == 0), None)
        return replace(drift, found=f"{age // _UNITS[unit]}{unit}") if unit else drift
    return drift


def _with(queue: Queue, drift: Drift) -> Queue:
    """The queue as it seems to exist: asked for again, it shows the next difference."""
    arguments = {name: value for name, value in queue.arguments.items() if name != drift.argument}
    if drift.found is not None:
        arguments[drift.argument] = drift.found
    return Queue(queue.name, arguments)


def _refusal(connection: BlockingConnection, part: Exchange | Queue, *, durable: bool, passive: bool) -> str:
    """What the broker has against a declaration on a channel thrown away; "" if nothing."""
    try:
        channel = connection.channel()
        declare_part(channel, part, passive=passive, durable=durable)
        channel.close()
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code in (404, 406) and "is down" not in error.reply_text:
            return str(error.reply_text)
        raise BrokerAway(f"{part.name}: the broker does not let us look: {error.reply_text}") from error
    return ""


def difference(part: Exchange | Queue, text: str) -> Drift:
    """The difference that a refusal (406) names."""
    match = _DIFFERS.search(text)
    if match is None:
        return Drift(part.name, "declaration", "as declared", text, is_dangerous=False)
    argument, raw = match[1], match[2]
    wanted = _wanted(part, argument)
    found = _typed(raw, text, wanted)
    return Drift(part.name, argument, wanted, found, _is_dangerous(part, argument, found))


def _wanted(part: Exchange | Queue, argument: str) -> Value:
    if isinstance(part, Exchange):
        return part.type if argument == "type" else True
    return part.arguments.get(argument, True if argument == "durable" else None)


def _typed(raw: str | None, text: str, wanted: Value) -> Value:
    """The value as AMQP has it. The broker names a type only where we have no value of our own."""
    if raw is None:
        return None
    kind = _KIND.search(text)
    is_number = kind[1] not in ("longstr", "bool") if kind else isinstance(wanted, int)
    if raw in ("true", "false") and (kind is None or kind[1] == "bool"):
        return raw == "true"
    return int(raw) if is_number and raw.lstrip("-").isdigit() else raw


def _is_dangerous(part: Exchange | Queue, argument: str, found: Value) -> bool:
    if isinstance(part, Exchange) or part.name in (EVENTS, BEATS):
        return isinstance(part, Exchange)  # commands would not arrive; a stream's age loses only old events
    if part.name.endswith(".dead") or part.name == KILLED:
        return argument in _KEEPING
    is_work = "x-message-ttl" not in part.arguments
    return argument in _MOVING or (is_work and argument == "x-message-ttl" and found is not None)


def _said(value: Value) -> str:
    return "not set" if value is None else str(value)
