"""Does a stream give the values that Rucio's own client would give?"""

from __future__ import annotations

import io
import json
from typing import Any, TypedDict

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import Decoder
from rucio.common.utils import parse_response

from common.rucio.streamed import Rows

DATES = st.sampled_from(
    ["Wed, 25 Nov 2026 02:05:46 UTC", "Thu, 01 Jan 1970 00:00:00 UTC", "no date UTC", "UTC", " UTC"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | DATES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Narrow(TypedDict, total=False):
    """Two keys of a row."""

    name: str
    number: int


def stream(body: bytes) -> Rows:
    response = requests.Response()
    response.raw = io.BytesIO(body)
    return Rows(response)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4))
def test_the_values_are_those_of_rucios_client(rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row).encode() for row in rows]
    assert list(stream(b"\n".join(lines) + b"\n\n")) == [parse_response(line) for line in lines]


def test_narrowed_rows_have_the_asked_keys_alone_and_odd_ones_come_whole() -> None:
    rows = stream(b'{"name": "a", "number": 1, "at": "Wed, 25 Nov 2026 02:05:46 UTC"}\n{"name": "b", "number": null}\n')
    rows.only = Decoder(Narrow)
    assert list(rows) == [{"name": "a", "number": 1}, {"name": "b", "number": None}]


@pytest.mark.parametrize("body", [b'{"a": ', b"<html>\n", b'{"a": 1}{"b": 2}\n'])
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(stream(body))
