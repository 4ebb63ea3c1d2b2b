"""Is this reply whole, fresh, and an answer to our call? `rows` looks further: is it about what was asked?

PhEDEx prints its status line before it makes the call, so an error may come under 200 and a long reply may just stop;
its front end caches; and a server process whose last request died half-way may answer the next with the rows of that
one (read in its source: `DataService.pm`, `Core.pm`, and the cursor in a package variable of `BlockReplicas.pm`).
So every condition is looked at, on every reply, and each has an error of its own name here; nothing is concluded from
a reply that breaks one.
"""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Raw, Struct

from common.errors import Untrusted
from common.phedex import replies
from common.phedex.replies import Buffer, Envelope

SHOWN = 200  # characters of a body or question in a message


class Redirected(Untrusted):
    """Raised for a status 3xx: a single sign-on or another host would answer instead of PhEDEx."""


class LoginPage(Untrusted):
    """Raised for an HTML page under status 200, as a single sign-on or a front end in maintenance sends it."""


class NotJson(Untrusted):
    """Raised for a body that is no JSON, or JSON with something stuck on."""


class Truncated(Untrusted):
    """Raised for JSON that stops before its end, or for an empty body."""


class ErrorDocument(Untrusted):
    """Raised for an `error` instead of, or beside, the reply: PhEDEx sends most of its errors under status 200."""


class Unfinished(Untrusted):
    """Raised for a reply without `call_time`, which PhEDEx writes after the last row."""


class Malformed(Untrusted):
    """Raised for JSON with a key missing, or a value of a wrong type."""


class NodeMissing(Untrusted):
    """Raised for a list of nodes without one that has an RSE in Rucio: more likely short than a name mistyped."""


class WrongCall(Untrusted):
    """Raised for the reply of another call (`request_call`)."""


class WrongInstance(Untrusted):
    """Raised for the reply of another instance (`instance`), such as `debug` for `prod`."""


class Stale(Untrusted):
    """Raised for a `request_timestamp` older than our request by more than the cache age and the clock skew."""


class FromTheFuture(Untrusted):
    """Raised for a `request_timestamp` later than our clock by more than the clock skew."""


class OtherNode(Untrusted):
    """Raised for a replica at another node than the one that was asked for, or for a row without a replica."""


class OtherBlock(Untrusted):
    """Raised for a block or dataset that was not asked for."""


class Repeated(Untrusted):
    """Raised for a block, or a block's replica at a node, that is listed twice."""


class ControlMissing(Untrusted):
    """Raised where a block has no row, and none of the controls, blocks that are surely somewhere, has one either."""


class Contradiction(Untrusted):
    """Raised for a `complete` that is not what it is defined as, or a time that cannot be.

    Of a block at a node: closed, and as many files here as in the block. Of a deletion: done, and not before it was
    asked for.
    """


class NoNodes(Untrusted):
    """Raised for an empty list of all nodes: PhEDEx always has some."""


class FilesMissing(Untrusted):
    """A block's doubt: the files that `filereplicas` lists are not as many, or not as large, as the block; or none."""


class BadFile(Untrusted):
    """A block's doubt: a file of it has a name that Rucio cannot hold, a negative size, no replica, or comes twice."""


# What another try may mend: the way to PhEDEx, not what it says.
TRANSPORT = (Redirected, LoginPage, NotJson, Truncated, ErrorDocument, Unfinished)


class Question(Struct, frozen=True):
    """What was asked: the call, the instance, and the options, each as often as it has values."""

    call: str
    instance: str
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return cut(f"{self.call}?" + "&".join(f"{name}={value}" for name, value in self.options))


class Answer(Struct, frozen=True):
    """What came. `asked_at`, `came_at`: our clock before and after, epoch seconds."""

    status: int
    body: Buffer
    asked_at: float
    came_at: float
    location: str = ""


class Freshness(Struct, frozen=True):
    """How old a reply may be (a cache between may have kept it) and how far two clocks may differ, in seconds."""

    age: float
    skew: float


R = TypeVar("R", bound=Envelope)


def read(kind: type[R], question: Question, answer: Answer, freshness: Freshness) -> R:
    """The reply, whole, fresh, and of the call and instance that were asked. Its rows are looked at in `rows`.

    Raises the Untrusted that is named after what is wrong.
    """
    if answer.status != 200:
        host = urlsplit(answer.location).hostname
        raise Redirected(f"{question}: status {answer.status} to {host} instead of a reply")
    reply = _decode(kind, question, answer.body)
    if reply.request_call.lower() != question.call:
        raise WrongCall(f"{question}: came a reply of the call {cut(reply.request_call)}")
    if reply.instance.lower() != question.instance.lower():
        raise WrongInstance(f"{question}: asked {question.instance}, came {cut(reply.instance)}")
    _check_time(question, answer, reply.request_timestamp, freshness)
    return reply


def _decode(kind: type[R], question: Question, body: Buffer) -> R:
    try:
        document = replies.decode(kind, body)
    except msgspec.ValidationError as error:
        raise _incomplete(question, body, str(error)) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"{question}: {error}") from None
    except msgspec.DecodeError as error:
        raise _no_json(question, body, str(error)) from None
    if document.error is not UNSET:
        raise ErrorDocument(f"{question}: PhEDEx says {_shown(document.error)}")
    return document.phedex


def _no_json(question: Question, body: Buffer, detail: str) -> Untrusted:
    start = bytes(body[:4096]).lstrip().lower()
    if start.startswith(b"<error") or (start.startswith(b"<?xml") and b"<error" in start):
        return ErrorDocument(f"{question}: PhEDEx says {_shown(body)}")
    if start.startswith((b"<!doctype", b"<html")):
        return LoginPage(f"{question}: came an HTML page, title {_title(body)!r}, instead of a reply")
    if "truncated" in detail:
        return Truncated(f"{question}: the reply stops after {len(body)} bytes")
    return NotJson(f"{question}: {detail}; the body begins {_shown(body)!r}")


def _incomplete(question: Question, body: Buffer, detail: str) -> Untrusted:
    """Which condition a document breaks that is JSON but no reply of this call."""
    try:
        found = replies.pieces(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Malformed(f"{question}: {detail}")
    inner = found.phedex
    error = found.error if inner is UNSET or found.error is not UNSET else inner.error
    if error is not UNSET:
        return ErrorDocument(f"{question}: PhEDEx says {_shown(error)}")
    if inner is UNSET:
        return Malformed(f"{question}: {detail}; the body begins {_shown(body)!r}")
    if inner.call_time is UNSET:
        return Unfinished(f"{question}: no call_time in {len(body)} bytes, so the call never ended")
    if inner.request_call is not UNSET and inner.request_call.lower() != question.call:
        return WrongCall(f"{question}: came a reply of the call {cut(inner.request_call)}")
    return Malformed(f"{question}: {detail}")


def _check_time(question: Question, answer: Answer, timestamp: float, freshness: Freshness) -> None:
    """Written so that a NaN, which compares as false, is refused."""
    if not timestamp <= answer.came_at + freshness.skew:
        raise FromTheFuture(f"{question}: PhEDEx's time {timestamp} is after ours, {answer.came_at:.0f}")
    if not timestamp >= answer.asked_at - freshness.age - freshness.skew:
        late = answer.asked_at - timestamp
        raise Stale(f"{question}: the reply is {late:.0f} s older than the question, {freshness.age:.0f} s allowed")


def cut(text: str) -> str:
    """A text from outside as one line, shortened for a message."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"


def _shown(body: Buffer | Raw) -> str:
    return cut(bytes(memoryview(body)[: 4 * SHOWN]).decode(errors="replace"))


def _title(body: Buffer) -> str:
    """The title only: the rest of a login page may hold tokens."""
    head = bytes(body[:4096]).decode(errors="replace")
    _, found, rest = head.partition("<title>")
    return cut(rest.partition("</title>")[0]) if found else ""
