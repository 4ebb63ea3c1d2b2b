"""When may something run? The words of the key `run`: True, False, or a limit in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

FORM = "True, False, since:YYYY-MM-DD:HH:MM:SS, until:YYYY-MM-DD:HH:MM:SS (UTC), or for:SECONDS"
_TIME = re.compile(r"(since|until):(\d{4}-\d\d-\d\d:\d\d:\d\d:\d\d)\Z")
_SPAN = re.compile(r"for:(\d{1,9})\Z")
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class Run:
    """From when (None: always) until when (None: for ever); `span` seconds are counted from a process's start."""

    on: bool = True
    since: datetime | None = None
    until: datetime | None = None
    span: float | None = None


def parse(value: bool | str) -> Run:
    """The meaning of a value of `run`; raises ValueError, with the forms that are right, for any other."""
    text = str(value).strip()
    if text.lower() in _WORDS:
        return Run(on=_WORDS[text.lower()])
    if found := _SPAN.match(text):
        return Run(span=float(found[1]))
    if not (found := _TIME.match(text)):
        raise ValueError(f"{text!r} is not {FORM}")
    at = datetime.strptime(found[2], "%Y-%m-%d:%H:%M:%S").replace(tzinfo=UTC)
    return Run(since=at) if found[1] == "since" else Run(until=at)


State = Literal["on", "not_yet", "off"]


def state(value: bool | str, at: datetime, started: datetime | None = None) -> State:
    """Whether it may run at a time. `started`: of the process that counts `for:`; without one that is on."""
    run = parse(value)
    until = run.until
    if run.span is not None and started is not None:
        until = started + timedelta(seconds=run.span)
    if not run.on or (until is not None and at >= until):
        return "off"
    return "not_yet" if run.since is not None and at < run.since else "on"


def is_on(value: bool | str, at: datetime) -> bool:
    """True if a site may be worked on at a time. `for:` is the scheduler's to count: to a worker it is on."""
    return state(value, at) == "on"
