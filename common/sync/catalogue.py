"""What is at a node, as PhEDEx says and as Rucio has it? Plain data, small enough for a million blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from common.sync.marks import CUSTODIAL, GROUP, Hold, Removal


class BlockAtNode(Struct, frozen=True, gc=False):
    """One block at one node as PhEDEx says: totals of the block, what of it is here, and whose it is.

    `files`, `bytes`: of the whole block. `here`: the files at the node. `complete`: closed and all files here
    (PhEDEx' own flag). `group`: the PhEDEx group or "" for none.
    """

    files: int
    bytes: int
    here: int
    complete: bool
    is_open: bool
    group: str = ""
    custodial: bool = False


class File(Struct, frozen=True, gc=False):
    """A file: its LFN, size in bytes, and adler32 as 8 hex digits or None where PhEDEx has none."""

    name: str
    bytes: int
    adler32: str | None = None


class RuleAtRse(Struct, frozen=True, gc=False):
    """One of our rules at an RSE, as much of it as the decisions need."""

    id: str
    files: int  # that it has a good lock on
    ending: bool = False  # it has an end: swept, or ended by somebody
    gone_since: float = 0  # since when it is marked for removal (epoch seconds), 0 for no mark
    approved: bool = False  # a person approved the mark
    keep: bool = False  # a person took a mark back, or forbade one
    group: str = ""
    custodial: bool = False
    plain: bool = True  # its expression is the RSE itself, not the `rse=X` of older tools
    why: Removal = Removal.GONE  # the reason of the mark
    held_since: float = 0  # since when a person is asked about it (epoch seconds), 0 for never
    held_why: Removal = Removal.GONE  # the reason that it was held for
    cleared: int = 0  # when a person took a keep back: an older mark's grace begins here
    locked: bool = False  # somebody locked it (at tape Rucio does that by itself)
    left: bool = False  # files of its block are remembered that PhEDEx lists no more
    ordering: bool = False  # Rucio has transfers queued for it
    begun: bool = False  # a sweep of it was about to begin, and may have
    seen: float = 0  # when it was last known to be here (epoch seconds), 0 where that was never written down
    made: str = ""  # when it was made, as Rucio writes it
    held_plan: float = 0  # when the plan began to read that put it on record as held
    held_custodial: bool = False  # it was custodial then
    marked_custodial: bool = False  # it was custodial as it was marked
    unlike: bool = False  # another rule of ours on the block that stands is not held, or for another reason

    @property
    def marked(self) -> bool:
        """True for a rule that is marked for removal."""
        return self.gone_since > 0

    @property
    def hold(self) -> Hold | None:
        """The hold that an approval can cover: the block's, where each of our rules on it that stands has it."""
        if not self.held_since or self.unlike:
            return None
        return Hold(self.held_since, self.held_why, self.held_plan, self.held_custodial)

    @property
    def counts_from(self) -> float:
        """From when on a mark's time of grace is counted (epoch seconds)."""
        return max(self.gone_since, self.cleared)


def is_custodial(rule: RuleAtRse, here: BlockAtNode | None) -> bool:
    """What PhEDEx says of the block at the node, and where it has nothing there any more what it said last."""
    return rule.custodial or (here is not None and here.custodial)


@dataclass(frozen=True)
class Doubt:
    """A part of PhEDEx' answer that is not trusted: the dataset pattern it was about, and why."""

    pattern: str
    reason: str


@dataclass
class Reading:
    """What PhEDEx says of a node. Names in a doubted pattern are missing from `blocks`, which proves nothing.

    `ignored`: names that do not parse. `as_of`: the oldest of PhEDEx' own timestamps of the replies used.
    """

    node: str
    blocks: dict[str, BlockAtNode] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    as_of: datetime | None = None


def rule_meta(block: BlockAtNode) -> dict[str, str | bool]:
    """What our rule's meta says of a block: PhEDEx' group and custodial flag."""
    return {GROUP: block.group, CUSTODIAL: block.custodial}
