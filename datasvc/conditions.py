"""How does a value with wildcards become a condition that an index can serve?"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

_WILD = "*%?"


class Condition(msgspec.Struct, frozen=True):
    """A piece of SQL and the values for its question marks."""

    sql: str
    values: tuple[object, ...] = ()


def is_wild(text: str) -> bool:
    """True where a value has a wildcard: `*` and `%` any text, `?` one character; `_` is itself."""
    return any(character in text for character in _WILD)


def glob(text: str) -> str:
    """The value as a SQLite GLOB pattern, which is case-sensitive as PhEDEx was."""
    return text.replace("[", "[[]").replace("%", "*")


def named(column: str, texts: Sequence[str], op: str = "or") -> Condition | None:
    """The column is one of the values: positive ones joined by `op`, those with `!` excluded, `NULL` meaning none.

    A prefix before the first wildcard becomes a range, for SQLite uses an index for GLOB only with a literal pattern.
    None if there is no value.
    """
    if not texts:
        return None
    positive = [text for text in texts if not text.startswith("!")]
    parts = [_negated(column, text[1:]) for text in texts if text.startswith("!")]
    if positive:
        parts.append(_any_of(column, positive) if op == "or" else joined([_matches(column, t) for t in positive]))
    return joined(parts)


def joined(parts: Sequence[Condition], word: str = "AND") -> Condition:
    """All parts (or any, with `OR`) hold. No part: always true."""
    if not parts:
        return Condition("1")
    sql = f" {word} ".join(part.sql for part in parts)
    return Condition(f"({sql})", tuple(value for part in parts for value in part.values))


def listed(column: str, values: Sequence[object]) -> Condition:
    """The column is one of these exact values, of which there may be many: they take one question mark."""
    return Condition(f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(values),))  # noqa: S608 -- our name


def _any_of(column: str, texts: list[str]) -> Condition:
    exact = [text for text in texts if not is_wild(text) and text != "NULL"]
    parts = [_matches(column, text) for text in texts if is_wild(text) or text == "NULL"]
    if exact:
        parts.append(listed(column, exact))
    return joined(parts, "OR")


def _matches(column: str, text: str) -> Condition:
    if text == "NULL":
        return Condition(f"{column} IS NULL")
    if not is_wild(text):
        return Condition(f"{column} = ?", (text,))
    prefix = text[: min(text.index(c) for c in _WILD if c in text)]
    if not prefix:
        return Condition(f"{column} GLOB ?", (glob(text),))
    after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    return Condition(f"({column} >= ? AND {column} < ? AND {column} GLOB ?)", (prefix, after, glob(text)))


def _negated(column: str, text: str) -> Condition:
    if text == "NULL":
        return Condition(f"{column} IS NOT NULL")
    match = _matches(column, text)
    return Condition(f"({column} IS NULL OR NOT {match.sql})", match.values)
