"""What is at a node, all of it? In one request, or by the first characters of the names where that is too much."""

from __future__ import annotations

import string
from collections.abc import Callable

from common.errors import PhedexError, Untrusted
from common.names import full_pattern
from common.phedex.client import Phedex
from common.phedex.rows import Listing
from common.phedex.transport import ReplyTooLarge
from common.sync.catalogue import Doubt, Reading

ALL = "/*/*/*"
CHARACTERS = string.ascii_letters + string.digits + "-_"  # all that a primary dataset's name may hold
PREFIX = 30  # characters; a longer prefix that is still too much is doubted, not split


def read_node(
    phedex: Phedex, node: str, pattern: str, *, split: bool, checkpoint: Callable[[], None] = lambda: None
) -> Reading:
    """The blocks, complete or not, at a node, of the datasets that match a pattern (`*` for all).

    `split`: everything is asked for by first character from the start, for nodes whose whole list is too much for
    PhEDEx. A part whose reply is not trusted, or too large and not to be split, becomes a doubt and the rest is read.
    `checkpoint` is called before each request; only one reply is held at a time.

    Raises UnknownNode; the first doubt's error where nothing could be trusted; and what `Phedex` raises else.
    """
    phedex.check_node(node)
    reading = Reading(node)
    whole = full_pattern(pattern)
    pending = narrower(whole) if split and whole == ALL else [whole]
    first: PhedexError | None = None
    while pending:
        checkpoint()
        part = pending.pop()
        try:
            _add(reading, phedex.block_replicas_at(node, part))
        except (Untrusted, ReplyTooLarge) as error:
            finer = narrower(part) if isinstance(error, ReplyTooLarge) else []
            pending += finer
            if not finer:
                reading.doubts.append(Doubt(part, f"{type(error).__name__}: {error}"))
                first = first or error
    if first is not None and reading.as_of is None:
        raise first
    return reading


def _add(reading: Reading, listing: Listing) -> None:
    reading.blocks.update(listing.blocks)
    reading.ignored.extend(listing.ignored)
    reading.as_of = min(reading.as_of or listing.as_of, listing.as_of)


def narrower(pattern: str) -> list[str]:
    """Patterns that together match what `/PREFIX*/…` matches, each of them less; [] for what cannot be split so.

    They do not overlap, and cover every name that parses: the prefix itself, and each character after it.
    """
    _, primary, rest = pattern.split("/", 2)
    prefix = primary[:-1]
    if not primary.endswith(("*", "%")) or set("*%?") & set(prefix) or len(prefix) >= PREFIX:
        return []
    exact = [f"/{prefix}/{rest}"] if prefix else []
    return exact + [f"/{prefix}{character}*/{rest}" for character in CHARACTERS]
