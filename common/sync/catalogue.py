"""What is at a node, as PhEDEx says and as Rucio has it? Plain data, small enough for a million blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import Struct

GONE_SINCE = "phedex_gone_since"  # epoch seconds
GONE_CYCLE = "phedex_gone_cycle"
GONE_WHY = "phedex_gone_why"
GONE_BY = "phedex_gone_by"
GONE_APPROVED = "phedex_gone_approved"  # the checksum of the set that a person approved, for marks that one did
GONE_HELD = "phedex_gone_held"  # why a mark that was due was not acted on: said by the cycle that finds it
MARK = (GONE_SINCE, GONE_CYCLE, GONE_WHY, GONE_BY, GONE_APPROVED, GONE_HELD)
KEEP = "phedex_keep"
GROUP = "phedex_group"
CUSTODIAL = "phedex_custodial"


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
    """One of our rules at an RSE: its files with a good lock, whether it is to end, and what its meta says.

    `gone_since`: since when it is marked for removal (epoch seconds), 0 for no mark. `approved`: a person approved the
    mark. `keep`: a person took a mark back.
    `plain`: the rule's expression is the RSE itself, not the `rse=X` of older tools.
    """

    id: str
    files: int
    ending: bool = False
    gone_since: int = 0
    approved: bool = False
    keep: bool = False
    group: str = ""
    custodial: bool = False
    plain: bool = True

    @property
    def marked(self) -> bool:
        """True for a rule that is marked for removal."""
        return self.gone_since > 0


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


def parse_meta(meta: object) -> dict[str, object]:
    """A rule's meta as a dict; {} for none or for what is not ours to read.

    Rucio gives a text back JSON-encoded once more than it was given, and a dict once (seen on 41.5.1).
    """
    for _ in range(2):
        if not isinstance(meta, str):
            break
        try:
            meta = msgspec.json.decode(meta)
        except msgspec.DecodeError:
            return {}
    return dict(meta) if isinstance(meta, dict) else {}
