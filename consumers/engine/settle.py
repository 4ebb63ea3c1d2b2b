"""What decides between retry, dead letter and waiting for a system? Pure: no clock, no broker."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from common.errors import PhedexRucioError, Verdict
from common.messages.meta import MAX_ERRORS, Failure, Meta
from common.telemetry.redact import redact
from consumers.engine.backoff import wait_index

MESSAGE_LENGTH = 500
TRACEBACK_LINES = 10


@dataclass(frozen=True)
class Retry:
    """The command goes to the wait queue of this index, one attempt further."""

    wait: int
    meta: Meta


@dataclass(frozen=True)
class Dead:
    """The command goes to the dead letters, with what it has been through."""

    meta: Meta


@dataclass(frozen=True)
class Away:
    """A system is away, which is not the command's fault: it goes to the first wait queue as it is."""

    meta: Meta


Settlement = Retry | Dead | Away


def settle(error: BaseException, meta: Meta, attempts: int, waits: int, at: datetime, *, away: bool) -> Settlement:
    """What becomes of a command whose attempt ended with an error.

    `attempts`: how many there are at most. `waits`: how many wait queues. `away`: the error's system was asked and
    does not answer. An error that is none of ours is a mistake in this program: tried again, for an upgrade may come.
    """
    if away:
        return Away(meta)
    failed = with_failure(meta, failure(error, at))
    if verdict(error) is Verdict.DIE or meta.attempt >= attempts:
        return Dead(failed)
    return Retry(wait_index(meta.attempt, waits), replace(failed, attempt=meta.attempt + 1))


def verdict(error: BaseException) -> Verdict:
    """What the error says about itself."""
    return error.verdict if isinstance(error, PhedexRucioError) else Verdict.RETRY


def failure(error: BaseException, at: datetime) -> Failure:
    """The error as it stands in the message: class, text (500 characters), time, end of its traceback; no secrets."""
    lines = redact("".join(traceback.format_tb(error.__traceback__))).splitlines()[-TRACEBACK_LINES:]
    message = redact(str(error))[:MESSAGE_LENGTH]
    return Failure(class_=type(error).__name__, message=message, at=at, traceback="\n".join(lines))


def with_failure(meta: Meta, last: Failure) -> Meta:
    """The meta with one more failure: the newest last, at most five, a traceback with the last one only."""
    earlier = [replace(old, traceback="") for old in meta.errors]
    return replace(meta, errors=[*earlier, last][-MAX_ERRORS:], first_at=meta.first_at or last.at)
