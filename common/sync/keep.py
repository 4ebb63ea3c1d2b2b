"""How is a mark taken back? A person's note in its place, until PhEDEx has the block again or a person clears it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import StrEnum

from common.sync.catalogue import GONE_CYCLE, GONE_SINCE, KEEP, MARK

Meta = Mapping[str, object]


class Undone(StrEnum):
    """What became of a block that a person asked about."""

    KEPT = "kept"
    CLEARED = "cleared"
    SWEPT = "swept"
    NOT_MARKED = "not_marked"
    NO_RULE = "no_rule"


def is_meant(meta: Meta, name: str, asked: Container[str], *, clear: bool) -> bool:
    """True for a rule whose block was named, or whose mark (or, to clear, whose note) is of a cycle that was named."""
    if name in asked:
        return True
    note = meta.get(KEEP)
    if clear:
        return isinstance(note, Mapping) and note.get("cycle") in asked
    return GONE_SINCE in meta and meta.get(GONE_CYCLE) in asked


def kept(meta: Meta, by: str, at: str) -> dict[str, object] | None:
    """The meta with who kept the block and when in place of its mark; all else as it was. None where it has no mark."""
    if GONE_SINCE not in meta:
        return None
    note = {"by": by, "at": at, "cycle": meta.get(GONE_CYCLE, "")}
    return {key: value for key, value in meta.items() if key not in MARK} | {KEEP: note}


def cleared(meta: Meta) -> dict[str, object] | None:
    """The meta without a person's note: the block may be marked again. None where there is none."""
    if KEEP not in meta:
        return None
    return {key: value for key, value in meta.items() if key != KEEP}
