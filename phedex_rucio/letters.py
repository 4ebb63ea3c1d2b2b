"""What does a dead letter say, how does it become a command again, and how is it kept in a file? Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from common.broker.dead_letters import Letter
from common.errors import InvalidMessage, NewerVersion, UsageError
from common.messages import codec
from common.messages.commands import Command, SyncBlocks, with_meta
from common.messages.events import Closed
from common.messages.meta import Failure, Meta, new_run, now
from common.outcome import Outcome
from common.sync.selection import Predicate
from consumers.engine.incoming import identified, unreadable

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"-?(\d{1,6})([smhdw])\Z")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter in short. `why_not` is empty if it can be replayed; times are None where the body tells none."""

    id: str
    kind: str
    key: str = ""
    node: str = ""
    cycle: str = ""
    attempts: int = 1
    first_at: datetime | None = None
    last_at: datetime | None = None
    error: str = ""
    message: str = ""
    why_not: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """All of a dead letter: its summary, the whole meta, and the command or, where it is none, the body as it is."""

    summary: Summary
    meta: Meta
    command: dict[str, Any] | None
    body: str
    is_base64: bool


@dataclass(frozen=True)
class Wanted:
    """Which letters are meant; what is None does not matter."""

    ids: frozenset[str] | None = None
    node: Predicate | None = None
    error: Predicate | None = None
    since: datetime | None = None

    def takes(self, one: Summary) -> bool:
        """True if a letter is meant. With `since`, a letter that tells no time is not."""
        return (
            (self.ids is None or one.id in self.ids)
            and (self.node is None or self.node(one.node))
            and (self.error is None or self.error(f"{one.error}: {one.message}"))
            and (self.since is None or (one.last_at is not None and one.last_at >= self.since))
        )


def kind_of_letter(letter: Letter) -> str:
    """The kind whose dead letters it lies among."""
    return letter.queue.removesuffix(".dead")


def summary(letter: Letter) -> Summary:
    """The letter in short, whatever its body is."""
    try:
        command = _command(letter)
    except (InvalidMessage, NewerVersion) as error:
        return _of_unreadable(letter, error)
    return _in_short(letter, command.meta, key=command.key, node=getattr(command, "node", ""))


def _command(letter: Letter) -> Command:
    return identified(codec.decode(letter.body), letter.queue, letter.message_id, letter.body)


def _of_unreadable(letter: Letter, error: Exception) -> Summary:
    """The worker's reason from the header; what this program has against the body is why it cannot be replayed."""
    message = unreadable(letter.body, letter.message_id, error)
    node = (message.plain or {}).get("node")
    why_not = f"{type(error).__name__}: {error}"
    shown = _in_short(letter, message.meta, node=node if isinstance(node, str) else "", why_not=why_not)
    if shown.error:
        return shown
    name, _, text = (letter.error or why_not).partition(": ")
    return replace(shown, error=name, message=text)


def _in_short(letter: Letter, meta: Meta, key: str = "", node: str = "", why_not: str = "") -> Summary:
    last: Failure | None = meta.errors[-1] if meta.errors else None
    return Summary(
        id=meta.id,
        kind=kind_of_letter(letter),
        key=key,
        node=node,
        cycle=meta.cycle,
        attempts=meta.attempt,
        first_at=meta.first_at or (meta.errors[0].at if meta.errors else None),
        last_at=last.at if last else None,
        error=last.class_ if last else "",
        message=last.message if last else "",
        why_not=why_not,
    )


def story(letter: Letter) -> Story:
    """All that is known of the letter."""
    shown = summary(letter)
    body, is_base64 = _text(letter.body)
    try:
        command = _command(letter)
    except (InvalidMessage, NewerVersion) as error:
        meta = unreadable(letter.body, letter.message_id, error).meta
        return Story(summary=shown, meta=meta, command=None, body=body, is_base64=is_base64)
    return Story(summary=shown, meta=command.meta, command=codec.as_dict(command), body=body, is_base64=is_base64)


def reborn(letter: Letter) -> Command:
    """The command as it is sent again: the same id and history, attempts from the start, in the lane of people.

    Without a permission to remove: only a plan gives one. Raises InvalidMessage or NewerVersion for what is none.
    """
    command = _command(letter)
    fresh = with_meta(command, replace(command.meta, attempt=1, killed=0, lane="now"))
    if isinstance(fresh, SyncBlocks):
        fresh = replace(fresh, removable_until=None)
    try:
        codec.encode(fresh)
    except InvalidMessage:
        return with_meta(fresh, replace(fresh.meta, errors=[], first_at=None))
    return fresh


def dropped(letter: Letter, by: str) -> Closed:
    """The event that ends what the letter asked for, so that nobody waits for it any more."""
    one = summary(letter)
    error = None
    if one.error:
        error = Failure(class_=one.error, message=one.message, at=one.last_at or now())
    return Closed(
        id=one.id,
        cycle=one.cycle,
        command=one.kind,
        key=one.key,
        run=new_run(),
        outcome=Outcome.DROPPED,
        attempt=one.attempts,
        notes=["dropped from the dead letters"],
        worker=by,
        at=now(),
        error=error,
    )


# Files


def saved(letter: Letter, by: str) -> bytes:
    """The letter as a line of a file: the body exactly as it is, as text where it is UTF-8, else in base64."""
    body, is_base64 = _text(letter.body)
    line = {
        "queue": letter.queue,
        "id": summary(letter).id,
        "message_id": letter.message_id,
        "error": letter.error,
        "dropped_at": now(),
        "dropped_by": by,
        "body_base64" if is_base64 else "body": body,
    }
    return msgspec.json.encode(line) + b"\n"


def _text(body: bytes) -> tuple[str, bool]:
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), True


def loaded(content: bytes) -> list[tuple[int, Letter | UsageError]]:
    """The letters of a file with the numbers of their lines; for a line that is none, what is wrong with it.

    One line a letter, as `saved` writes it, or a command; or the whole file is one command.
    """
    if len(content) <= codec.MAX_BYTES and _is_command(_plain(content)):
        return [(1, _letter("", "", content))]
    lines = enumerate(content.split(b"\n"), start=1)
    return [(number, _of_line(line, number)) for number, line in lines if line.strip()]


def _of_line(line: bytes, number: int) -> Letter | UsageError:
    plain = _plain(line)
    if plain is None:
        return UsageError(f"line {number}: not a JSON object; a line cut short by a crash was never dropped")
    if _is_command(plain):
        return _letter("", "", line)
    try:
        return _letter(str(plain.get("queue", "")), str(plain.get("message_id", "")), _body(plain))
    except (KeyError, TypeError, ValueError, AttributeError):
        return UsageError(f"line {number}: neither a command (`kind`) nor a letter (`body` or `body_base64`)")


def _body(plain: Mapping[str, Any]) -> bytes:
    if "body_base64" in plain:
        return base64.b64decode(plain["body_base64"], validate=True)
    text: str = plain["body"]
    return text.encode()


def _letter(queue: str, message_id: str, body: bytes) -> Letter:
    return Letter(queue, 0, body, message_id, "", 0, 0)


def _plain(text: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _is_command(plain: Mapping[str, Any] | None) -> bool:
    return plain is not None and "kind" in plain


# What a person types


def since(text: str, at: datetime) -> datetime:
    """`2h` (s, m, h, d, w before `at`; a dash is allowed) or a date or time of ISO 8601 (UTC by itself)."""
    try:
        if match := _AGO.match(text):
            return at - timedelta(**{UNITS[match[2]]: int(match[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise UsageError(f"--since {text}: neither like -2h nor like 2026-01-31 or 2026-01-31T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def rate(text: str) -> float:
    """`5/s`, `30/m` or `5` (a second) → letters a second; raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/([sm]))?", text)
    number = float(match[1]) / (60 if match[2] == "m" else 1) if match else 0.0
    if not number:
        raise UsageError(f"--rate {text}: not a number of letters a second, such as 5/s")
    return number


def next_steps(one: Summary) -> list[str]:
    """What to type next about a letter."""
    if one.why_not:
        return [
            f"It cannot be replayed ({one.why_not}).",
            f"phedex-rucio dead drop {one.id} --to letters.jsonl   # keep it in a file, mend `body` there",
            "phedex-rucio dead load letters.jsonl   # then send it",
        ]
    return [
        f"phedex-rucio dead replay {one.id}   # when the cause is gone",
        f"phedex-rucio dead drop {one.id} --to letters.jsonl   # when it is not wanted any more",
    ]


def cut(text: str, length: int) -> str:
    """The text on one line, at most so long."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def missing(ids: Iterable[str], found: set[str]) -> list[str]:
    """The ids that were asked for and not met, in the order of asking."""
    return [ident for ident in ids if ident not in found]
