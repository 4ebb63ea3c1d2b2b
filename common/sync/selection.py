"""Which blocks is a command about? Patterns and regular expressions that only narrow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import re2

from common.errors import UsageError

Predicate = Callable[[str], bool]

# What it refuses we say ourselves; otherwise the library writes it to stderr as well.
_options = re2.Options()
_options.log_errors = False


def compiled(expression: str, what: str) -> Predicate:
    """A search for a regular expression from outside, in linear time (RE2).

    Raises UsageError that names `what` for an expression that RE2 refuses.
    """
    regex = _regex(expression, what)
    return lambda name: regex.search(name) is not None


def whole(expression: str, what: str) -> Predicate:
    """The same for an expression that must match all of a name."""
    regex = _regex(expression, what)
    return lambda name: regex.fullmatch(name) is not None


def _regex(expression: str, what: str) -> Any:
    try:
        return re2.compile(expression, _options)
    except re2.error as error:
        detail = error.args[0] if error.args else error
        text = detail.decode() if isinstance(detail, bytes) else str(detail)
        raise UsageError(f"{what}: {expression!r} is no regular expression that RE2 takes: {text}") from None


def like(pattern: str) -> Predicate:
    """A dataset pattern as PhEDEx reads it (`*` and `%` any text, `?` one character), on a block's or dataset's name.

    A block matches by its dataset. `*` alone matches all.
    """
    if pattern in ("*", "/*/*/*"):
        return lambda _: True
    parts = (".*" if c in "*%" else "." if c == "?" else re.escape(c) for c in pattern)
    regex = re2.compile("".join(parts))

    @lru_cache(maxsize=1000)  # a dataset has many blocks, one after the other
    def is_like(dataset: str) -> bool:
        return regex.fullmatch(dataset) is not None

    return lambda name: is_like(name.partition("#")[0])


def selection(dataset: str, select: Iterable[str], ignore: Iterable[str]) -> Predicate:
    """True for a block name that the pattern and every `select` match and no `ignore` does. Empty texts count not."""
    inside = like(dataset)
    wanted = [compiled(text, "select") for text in select if text]
    unwanted = [compiled(text, "ignore") for text in ignore if text]
    if not (wanted or unwanted):
        return inside

    def chosen(name: str) -> bool:
        return inside(name) and all(w(name) for w in wanted) and not any(u(name) for u in unwanted)

    return chosen
