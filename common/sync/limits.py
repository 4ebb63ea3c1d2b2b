"""What may be removed without a person: the limits of a site, the words for them, and what is held block by block."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from common.sync.marks import Removal


class Limit(StrEnum):
    """What kept blocks from being marked, the weightiest first."""

    DOUBT = "doubt"
    APPROVAL = "approval"
    EMPTY = "empty"
    SHARE = "share"
    DATASET_SHARE = "dataset_share"
    BLOCKS = "blocks"
    BYTES = "bytes"
    SHRUNK = "shrunk"
    MARKED = "marked"
    LOCKED = "locked"
    TAPE = "tape"
    CUSTODIAL = "custodial"
    NOWHERE = "nowhere"
    UNPROVEN = "unproven"
    UNKNOWN = "unknown"


class Budget(Struct, frozen=True, kw_only=True):
    """A site's limits. `share` of 1; the holds stop single blocks, `allow_clean` lets an approval empty the site."""

    share: float = 0.1
    blocks: int = 1_000
    bytes: int = 1_000_000_000_000_000
    hold_custodial: bool = True
    hold_nowhere: bool = True
    hold_unknown: bool = True
    allow_clean: bool = False


class Stop(Struct, frozen=True):
    """One limit that was met: in words, and its value (a share of 1, blocks or bytes; 0 where it has none)."""

    limit: Limit
    says: str
    most: float = 0


def single_limit(why: Removal, budget: Budget, *, tape: bool, custodial: bool) -> Limit | None:
    """Why a person must approve one block's removal, whatever the numbers say; None where nobody need."""
    if budget.hold_custodial and tape:
        return Limit.TAPE
    if budget.hold_custodial and custodial:
        return Limit.CUSTODIAL
    if why is Removal.UNPROVEN:
        return Limit.UNPROVEN
    if why is Removal.NOWHERE and budget.hold_nowhere:
        return Limit.NOWHERE
    return Limit.UNKNOWN if why is Removal.UNKNOWN and budget.hold_unknown else None


WHY_SINGLE = {
    Limit.TAPE: "on tape: only a person removes such",
    Limit.CUSTODIAL: "custodial: only a person removes such",
    Limit.NOWHERE: "deleted everywhere in PhEDEx, so this is the last copy: only a person removes such",
    Limit.UNPROVEN: "listed nowhere in PhEDEx, and nothing tells of a deletion: only a person removes such",
    Limit.UNKNOWN: "not known to PhEDEx any more: only a person removes such",
}
WHY_LOCKED = "whose rule a person locked: it stays until that person unlocks it"
