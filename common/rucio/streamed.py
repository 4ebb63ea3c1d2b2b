"""How are the rows of a streamed reply read? With the values that Rucio's client gives, at a fraction of its cost.

Its own way reads 512 bytes at a time, tries a regular expression on every value and `strptime` on every date: longer
for each rule than Rucio needs to send it (41.5.1). A site of 100,000 blocks has as many rules, each with two dates.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import requests
from rucio.common.utils import parse_response

KIND = "application/x-json-stream"
PIECE = 256 * 1024
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_everything = msgspec.json.Decoder()


class Rows(Iterator[Any]):
    """The values of the lines of a response, dates as datetimes without a zone. Raises ValueError for what is no JSON.

    `only`: a decoder of a TypedDict; then a row has its keys alone, dates as text, which costs a fifth.
    """

    def __init__(self, response: requests.Response) -> None:
        self.only: msgspec.json.Decoder[Any] | None = None
        self._lines = _lines(response)

    def __next__(self) -> Any:
        while not (line := next(self._lines)).strip():
            pass
        try:
            return _with_dates(_everything.decode(line), line) if self.only is None else self.only.decode(line)
        except msgspec.DecodeError:
            # An unlimited quota is written as `Infinity`, which only Python takes for JSON.
            return parse_response(line)


def _lines(response: requests.Response) -> Iterator[bytes]:
    rest = b""
    for piece in response.iter_content(PIECE):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
    yield rest


def _with_dates(value: Any, line: bytes) -> Any:
    if b" UTC" in line:
        _read_dates(value)
    return value


def _read_dates(value: Any) -> None:
    """The dates in a dict, or in the dicts of a list, are datetimes."""
    if isinstance(value, list):
        for one in value:
            _read_dates(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            if isinstance(one, str):
                value[key] = _date(one) if one.endswith(" UTC") else one
            elif isinstance(one, (dict, list)):
                _read_dates(one)


def _date(text: str) -> datetime | str:
    """`Wed, 25 Nov 2026 02:05:46 UTC`; another text is left as it is."""
    try:
        day, month, year = int(text[5:7]), _MONTHS.index(text[8:11]) + 1, int(text[12:16])
        return datetime(year, month, day, int(text[17:19]), int(text[20:22]), int(text[23:25]))  # noqa: DTZ001
    except ValueError:
        return text
