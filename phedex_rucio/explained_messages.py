"""What has the broker kept about a block at a node: which dead letters, and which events of the last day?"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Protocol

from msgspec.structs import replace

from common.broker import dead_letters
from common.broker.topology import KILLED, dead_name
from common.errors import BrokerError, Unroutable
from common.messages.commands import KINDS
from common.settings.model import Main
from common.sync.one_block import Facts, History, Letter
from phedex_rucio import broker
from phedex_rucio.traces import Trace, letter_about

HOURS = 24.0
HOURS_QUICK = 1.0
READING = 15.0  # seconds for the events
IDLE = 1.0  # seconds without an event: that was the last


class Patience(Protocol):
    """A look at a block: which one, when, how thorough, and how long the broker may take."""

    block: str
    quick: bool
    at: datetime
    hasty: Main


def told(look: Patience, facts: Facts) -> Facts:
    """With dead letters and events. A broker that is away is told and stops nothing."""
    try:
        broker.reach(look.hasty)
    except BrokerError as error:
        return replace(facts, letters_trouble=str(error), history=History(why_none=str(error)))
    trace = Trace(look.block, facts.node)
    history = _history(look, trace)
    found, trouble = _letters(look, facts.node)
    since = {name: event.since for name, event in trace.away().items()}
    troubles = tuple(replace(one, since=since.get(one.system)) for one in facts.troubles)
    return replace(facts, letters=tuple(found), letters_trouble=trouble, history=history, troubles=troubles)


def _letters(look: Patience, node: str) -> tuple[list[Letter], str]:
    """Those about the block or its site, with what killed its workers; each queue is given back as it was."""
    found: list[Letter] = []
    troubles: list[str] = []
    for queue in (*map(dead_name, KINDS), KILLED):
        try:
            with dead_letters.look(look.hasty, queue) as view:
                found += [one for letter in view.letters() if (one := letter_about(letter, look.block, node))]
        except Unroutable:
            continue  # no such queue yet, so nothing in it
        except BrokerError as error:
            troubles.append(str(error))
    return found, "; ".join(troubles)


def _history(look: Patience, trace: Trace) -> History:
    hours = HOURS_QUICK if look.quick else HOURS
    try:
        with broker.events(look.hasty, look.at - timedelta(hours=hours)) as stream:
            is_whole = _read(stream, trace, look.at)
    except Unroutable:
        return History(why_none="there is no stream of events yet: nothing was ever sent", hours=hours)
    except BrokerError as error:
        return History(why_none=str(error), hours=hours)
    last = tuple(reversed(trace.last))
    return History(hours=hours, until=None if is_whole else trace.until, last=last, waiting=trace.waiting())


def _read(stream: broker.EventStream, trace: Trace, end: datetime) -> bool:
    """True when all events up to the time of the look were read; False if there were too many for the time."""
    deadline = time.monotonic() + READING
    for event in stream.events(IDLE):
        trace.take(event)
        if event.at >= end:
            return True
        if time.monotonic() > deadline:
            return False
    return True
