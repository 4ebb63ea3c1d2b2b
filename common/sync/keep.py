"""How a mark is taken back: by a note in the rule's comment, until PhEDEx has the block again or it is cleared."""

from __future__ import annotations

from collections.abc import Container, Mapping
from enum import StrEnum

from common.sync.marks import GONE_CYCLE, GONE_SINCE, Keep, keep_of

Meta = Mapping[str, object]


class Undone(StrEnum):
    """What became of a block that a person asked about."""

    KEPT = "kept"
    CLEARED = "cleared"
    SWEPT = "swept"
    UNSURE = "unsure"
    NOT_MARKED = "not_marked"
    NO_RULE = "no_rule"


def is_meant(meta: Meta, comment: str | None, name: str, asked: Container[str], *, clear: bool) -> bool:
    """True for a rule whose block was named, or whose mark (or, to clear, whose keep) is of a cycle that was named."""
    if name in asked:
        return True
    if clear:
        keep = keep_of(meta, comment)
        return keep is not None and keep.cycle != "" and keep.cycle in asked
    return GONE_SINCE in meta and meta.get(GONE_CYCLE) in asked


def kept(meta: Meta, by: str, at: str) -> Keep | None:
    """A person's keep of a marked rule, with the cycle whose mark that is; None where it has no mark."""
    return Keep(by, at, str(meta.get(GONE_CYCLE) or "")) if GONE_SINCE in meta else None
