"""Whatever is done to a good reply: it is refused by name, or says the same. Never fewer or other blocks.

What one reply cannot tell is left out: a whole row less, another well-formed name, size or checksum, and a number of
files that was changed to just the number listed (no value here is that).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import Untrusted
from tests.unit.phedex import good
from tests.unit.phedex.good import FULL, OPEN, PART, body

Path = tuple[str | int, ...]
VALUES: list[object] = [
    None,
    0,
    -1,
    1,
    3,
    4,
    1e9,
    1e300,
    "",
    "x",
    "y",
    "n",
    "3",
    "nan",
    True,
    {},
    "T2_IT_Bari",
    "filereplicas",
    "debug",
]
BLOCKS = {FULL: True, PART: False, OPEN: False}


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _holder(document: Any, path: Path) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def _is_free(path: Path) -> bool:
    """Nothing else in a reply says what a block's or file's name and a file's checksum are."""
    return path[-1] in ("name", "checksum")


BLOCK_PATHS = list(_paths(good.blockreplicas()))
FILE_PATHS = list(_paths(good.filereplicas()))


@st.composite
def changed(draw: st.DrawFn, document: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """A key dropped (not a row: nothing counts those), or a value replaced by another."""
    document = copy.deepcopy(document)
    path = draw(st.sampled_from(paths))
    holder = _holder(document, path)
    if isinstance(holder, dict) and (_is_free(path) or draw(st.booleans())):
        del holder[path[-1]]
    else:
        holder[path[-1]] = draw(st.sampled_from(VALUES))
    return document


def _read_or_refused(read: Callable[[bytes], Any], content: bytes) -> Any:
    """What was read, or None where the body was refused by a named error."""
    try:
        return read(content)
    except Untrusted as error:
        name = type(error)
    assert name is not Untrusted
    return None


def _listing_holds(content: bytes) -> None:
    found = _read_or_refused(good.listing, content)
    if found is not None:
        assert {name: block.complete for name, block in found.blocks.items()} == BLOCKS
        assert found.ignored == []


def _files_hold(content: bytes) -> None:
    read = _read_or_refused(good.file_lists, content)
    if read is not None:
        found, doubts = read
        assert found.keys() | doubts.keys() == {FULL, PART}
        assert PART in doubts
        assert FULL in doubts or {(file.name, file.bytes) for file in found[FULL]} == {
            (good.lfn(n), 10) for n in range(3)
        }


@given(changed(good.blockreplicas(), BLOCK_PATHS))
def test_a_changed_listing_is_refused_or_says_the_same(document: dict[str, Any]) -> None:
    _listing_holds(body(document))


@given(changed(good.filereplicas(), FILE_PATHS))
def test_a_changed_file_list_is_refused_doubted_or_says_the_same(document: dict[str, Any]) -> None:
    _files_hold(body(document))


@given(changed(good.blockreplicas(), BLOCK_PATHS))
def test_in_changed_rows_no_block_is_nowhere_and_none_is_complete_that_is_not(document: dict[str, Any]) -> None:
    found = _read_or_refused(good.places, body(document))
    if found is not None:
        assert {name: bool(one.complete) for name, one in found.items()} == BLOCKS
        assert all(one.somewhere and one.controlled for one in found.values())


@given(st.integers(0, len(body(good.blockreplicas())) - 1), st.binary(max_size=20))
@example(0, b"")
def test_a_cut_listing_is_refused(at: int, stuck_on: bytes) -> None:
    _listing_holds(body(good.blockreplicas())[:at] + stuck_on)


@given(st.integers(0, len(body(good.filereplicas())) - 1))
def test_a_cut_file_list_is_refused(at: int) -> None:
    _files_hold(body(good.filereplicas())[:at])


@given(st.binary(max_size=200))
@example(b"<html><title>Sign in</title></html>")
@example(b'{"error":"x"}')
@example(b'{"phedex":{}}')
def test_any_other_body_is_refused(content: bytes) -> None:
    _listing_holds(content)
    _files_hold(content)
