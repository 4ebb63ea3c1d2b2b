"""Which moment does a `*_since` value mean?"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_HOUR, _DAY = 3600, 86400
_NAMED = {
    "now": 0,
    "last_hour": _HOUR,
    "last_12hours": 12 * _HOUR,
    "last_day": _DAY,
    "last_7days": 7 * _DAY,
    "last_week": 7 * _DAY,
    "last_30days": 30 * _DAY,
    "last_180days": 180 * _DAY,
}
_EPOCH = re.compile(r"(\d+)(?:\.\d*)?")
_RELATIVE = re.compile(r"(-?)(\d+)([hd])")
_DURATION = re.compile(
    r"P(?=.)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?=.)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?"
)
_UNITS = (365 * _DAY, 30 * _DAY, 7 * _DAY, _DAY, _HOUR, 60, 1)
_ZULU = re.compile(r"(\d{8}Z\d{4})(\d\d)?")
_CALENDAR = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ _](\d\d:\d\d:\d\d))?")


def moment(text: str, now: float) -> int | None:
    """The epoch second that `text` means, or None if it is in none of PhEDEx' forms (PHEDEX::Core::Timing)."""
    if text in _NAMED:
        return int(now) - _NAMED[text]
    if found := _EPOCH.fullmatch(text):
        return int(found.group(1))
    if found := _RELATIVE.fullmatch(text):
        sign, count, unit = found.groups()
        return int(now) + (-1 if sign else 1) * int(count) * (_HOUR if unit == "h" else _DAY)
    if found := _DURATION.fullmatch(text):
        return int(now) - sum(int(count or 0) * unit for count, unit in zip(found.groups(), _UNITS, strict=True))
    return _date(text)


def _date(text: str) -> int | None:
    if found := _ZULU.fullmatch(text):
        return _parsed(found.group(1) + (found.group(2) or "00"), "%Y%m%dZ%H%M%S")
    if found := _CALENDAR.fullmatch(text):
        return _parsed(f"{found.group(1)} {found.group(2) or '00:00:00'}", "%Y-%m-%d %H:%M:%S")
    return None


def _parsed(text: str, form: str) -> int | None:
    try:
        return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
