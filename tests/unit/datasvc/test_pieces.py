"""Conditions, encodings and the faults file: the parts below the calls."""

from __future__ import annotations

import json
import os
import sqlite3
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from datasvc.conditions import named
from datasvc.encode import CHUNK, Later, Rows, chunks, json_pieces, number, xml_pieces
from datasvc.faults import Book, Kind
from datasvc.store import reader, writer
from tests.unit.datasvc.worlds import ALPHA

TEXT = st.text(alphabet="aAbB/_[]-*^", max_size=6)


def like(pattern: str, text: str) -> bool:
    """The plainest reading of PhEDEx' wildcards."""
    if not pattern:
        return not text
    if pattern[0] in "*%":
        return like(pattern[1:], text) or (bool(text) and like(pattern, text[1:]))
    return bool(text) and pattern[0] in {"?", text[0]} and like(pattern[1:], text[1:])


@given(pattern=st.text(alphabet="aAbB/_[]-*%?", min_size=1, max_size=6), text=st.text(alphabet="aAbB/_[]-", max_size=6))
def test_a_pattern_matches_what_its_wildcards_say(pattern: str, text: str) -> None:
    condition = named("name", [pattern])
    assert condition is not None
    connection = sqlite3.connect(":memory:")
    row = connection.execute(
        f"SELECT count(*) FROM (SELECT ? AS name) WHERE {condition.sql}", (text, *condition.values)
    ).fetchone()
    connection.close()
    assert bool(row[0]) == like(pattern, text)


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        ("SELECT id FROM dataset WHERE name >= ? AND name < ? AND name GLOB ?", ("/A", "/B", "/A*"), "INDEX sqlite"),
        ("SELECT id FROM block WHERE name IN (SELECT value FROM json_each(?))", ('["x"]',), "INDEX sqlite"),
        (
            "SELECT DISTINCT dataset_id FROM replica WHERE node_id IN (SELECT value FROM json_each(?))",
            ("[1]",),
            "INDEX replica_at_node",
        ),
    ],
)
def test_the_indices_serve_the_conditions(world: Path, statement: str, values: tuple[str, ...], index: str) -> None:
    connection = reader(world)
    plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))
    connection.close()
    assert "SEARCH" in plan
    assert index in plan


def test_json_is_written_in_pieces_and_reads_whole() -> None:
    value = {"a": Rows({"n": n, "in": Rows([n])} for n in range(3)), "b": {"c": [1, None]}, "t": Later(lambda: "0.1")}
    assert json.loads(b"".join(json_pieces(value))) == {
        "a": [{"n": n, "in": [n]} for n in range(3)],
        "b": {"c": [1, None]},
        "t": "0.1",
    }


def test_rows_are_read_while_they_are_written() -> None:
    read: list[int] = []
    pieces = json_pieces({"a": Rows(read.append(n) or {"n": n} for n in range(100))})  # type: ignore[func-returns-value]
    for _ in range(10):
        next(pieces)
    assert len(read) < 10


@given(pieces=st.lists(st.binary(max_size=CHUNK), max_size=5))
def test_chunks_keep_every_byte(pieces: list[bytes]) -> None:
    found = list(chunks(pieces))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(chunk) >= CHUNK for chunk in found[:-1])


def test_xml_is_the_same_tree() -> None:
    tree = {
        "instance": "it's <a>",
        "none": None,
        "node": Rows([{"name": "T2", "se": None}]),
        "message": {"$t": "a]]>b"},
    }
    root = ElementTree.fromstring(b"".join(xml_pieces("phedex", tree)))
    assert root.attrib == {"instance": "it's <a>", "none": ""}
    assert [(child.tag, child.attrib, child.text) for child in root] == [
        ("node", {"name": "T2", "se": ""}, None),
        ("message", {}, "a]]>b"),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1311331011.0, "1311331011"), (1311610457.398, "1311610457.398"), (7, "7"), (None, "null")],
)
def test_a_number_has_a_point_only_if_it_needs_one(value: float | None, shown: str) -> None:
    assert json.dumps(number(value)) == shown


def test_a_reader_sees_one_state_while_another_process_writes(world: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(world.read_bytes())
    before = reader(copy)
    assert before.execute("SELECT count(*) FROM dataset").fetchone() == (2,)
    changing = writer(copy)
    changing.execute("DELETE FROM dataset_subscription")
    changing.execute("UPDATE dataset SET name = '/Other/A/B' WHERE name = ?", (ALPHA,))
    assert before.execute("SELECT count(*) FROM dataset WHERE name = ?", (ALPHA,)).fetchone() == (1,)
    after = reader(copy)
    assert after.execute("SELECT count(*) FROM dataset WHERE name = ?", (ALPHA,)).fetchone() == (0,)
    for connection in (before, after, changing):
        connection.close()


def test_a_fault_is_used_as_often_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    book = Book(path)
    assert book.take("nodes", "") is None
    path.write_text('[{"call": "nodes", "kind": "empty", "count": 2, "match": "T2"}, {"call": "*", "kind": "stale"}]')
    taken = [book.take("nodes", "node=T2_*") for _ in range(3)]
    assert [fault and fault.kind for fault in taken] == [Kind.EMPTY, Kind.EMPTY, Kind.STALE]
    assert getattr(book.take("links", ""), "kind", None) is Kind.STALE
    os.utime(path, (1, 1))
    assert getattr(book.take("nodes", "T2"), "kind", None) is Kind.EMPTY


def test_a_lie_about_one_call_is_told_in_that_call_alone(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('[{"call": "*", "kind": "half_files", "count": 1}]')
    book = Book(path)
    assert [book.take(call, "") for call in ("nodes", "blockreplicas", "deletions")] == [None] * 3
    assert getattr(book.take("filereplicas", ""), "kind", None) is Kind.HALF_FILES
    assert book.take("filereplicas", "") is None


@pytest.mark.parametrize(
    "text", ["{", '[{"call": "nodes"}]', '[{"call": "x", "kind": "odd"}]', '[{"call":"x","kind":"empty","s":1}]']
)
def test_a_wrong_faults_file_is_said_and_not_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "faults.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="faults file"):
        Book(path).take("nodes", "")
