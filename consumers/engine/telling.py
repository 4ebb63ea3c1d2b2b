"""What is told of a handled message? One line in the log, and the metrics."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any, Self

from common.broker.consumer import Delivery
from common.broker.publisher import Outgoing
from common.broker.topology import kind_in
from common.errors import System
from common.messages.commands import Command, SyncSite
from common.messages.meta import Meta
from common.outcome import Outcome
from common.telemetry import metrics, spent
from consumers.engine.result import Result

log = logging.getLogger("phedex_rucio.worker")

SIDES = (System.PHEDEX, System.RUCIO)


@dataclass(frozen=True)
class Ended:
    """How an execution ended: a word for the log and the messages that are confirmed before the acknowledgement."""

    word: str
    messages: list[Outgoing]
    counts: dict[str, int] = field(default_factory=dict)
    children: int = 0
    error: BaseException | None = None
    result: Result | None = None


LOST = Ended("lost", [])


class Telling:
    """A message from its coming into a thread's hand to its settlement: a context of the thread that has it."""

    def __init__(self, delivery: Delivery) -> None:
        self._kind = kind_in(delivery.queue) or metrics.UNKNOWN
        self._begun = time.monotonic()
        self._before = {side: spent.so_far(side) for side in SIDES}
        self._waited = max(0.0, time.time() - delivery.published) if delivery.published else None

    def __enter__(self) -> Self:
        metrics.IN_HAND.labels(self._kind).inc()
        if self._waited is not None:
            metrics.QUEUE_WAIT.labels(self._kind).observe(self._waited)
        return self

    def __exit__(self, *_: object) -> None:
        metrics.IN_HAND.labels(self._kind).dec()

    def ended(self, meta: Meta, key: str, ended: Ended) -> None:
        """The message is settled, or `lost`: it comes again whatever was done."""
        seconds = time.monotonic() - self._begun
        metrics.ended(self._kind, ended.word, seconds, meta.attempt, ended.children)
        if self._kind == "sync.blocks":
            metrics.worked(ended.counts)
        level = logging.INFO if ended.error is None else logging.WARNING
        if log.isEnabledFor(level):
            head = {"kind": self._kind, "key": key, "cycle": meta.cycle, "id": meta.id, "attempt": meta.attempt}
            log.log(level, "handled", extra=head | self._fields(ended, seconds))

    def _fields(self, ended: Ended, seconds: float) -> dict[str, Any]:
        fields: dict[str, Any] = {"outcome": ended.word, "seconds": round(seconds, 3)}
        if self._waited is not None:
            fields["waited"] = round(self._waited)
        for side in SIDES:
            used = spent.so_far(side).since(self._before[side])
            fields |= {f"{side}_requests": used.requests, f"{side}_seconds": round(used.seconds, 3)}
        if ended.children:
            fields["children"] = ended.children
        # A prefix, so that no count can take the name of a field or of what logging itself keeps in a record.
        fields |= {f"n_{name}": number for name, number in ended.counts.items()}
        if ended.error is not None:
            fields["error"] = f"{type(ended.error).__name__}: {ended.error}"
        return fields


def planned(command: Command, result: Result) -> None:
    """What the metrics keep of a site: what its plan held back, when it was read whole, when it was in sync."""
    if not isinstance(command, SyncSite) or not _is_whole(command):
        return
    if result.guard is not None:
        metrics.held(command.node, result.guard.limit, result.guard.held)
    elif result.outcome is Outcome.IN_SYNC:
        metrics.held(command.node, "", 0)
    if result.as_of is not None and not result.counts.get("doubts"):
        metrics.planned(command.node, as_of=result.as_of, in_sync=result.outcome is Outcome.IN_SYNC)


def _is_whole(command: SyncSite) -> bool:
    """True for a plan of all that is at the node."""
    return command.dataset == "*" and not (command.select or command.ignore or command.limit or command.after)
