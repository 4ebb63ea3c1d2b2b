"""What is known of a batch, what became of each of its blocks, and how is that counted?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from common.errors import PhedexRucioError
from common.rucio.rses import Site
from common.sync.catalogue import BlockAtNode
from consumers.apply.contents import Files


class Fate(StrEnum):
    """What became of a block in this execution: the names of the counts."""

    IN_SYNC = "in_sync"
    ADDED = "added"
    UPDATED = "updated"
    REVIVED = "revived"
    WOULD_ADD = "would_add"
    WOULD_UPDATE = "would_update"
    WITHHELD = "withheld"
    CONFLICT = "conflicts"
    NOT_AT_NODE = "not_at_node"
    RULED_LATE = "ruled_late"
    LEFT_OUT = "left_out"
    EMPTY = "empty"
    DOUBTFUL = "doubtful"
    WOULD_MARK = "would_mark"
    WOULD_SWEEP = "would_sweep"
    MARKED = "marked"
    PENDING = "pending"
    SWEPT = "swept"
    KEPT_LAST_COPY = "kept_last_copy"
    LOCKED = "locked"


TOLD = {
    "added": (Fate.ADDED, Fate.RULED_LATE),
    "updated": (Fate.UPDATED,),
    "revived": (Fate.REVIVED,),
    "marked": (Fate.MARKED,),
    "swept": (Fate.SWEPT,),
    "held": (Fate.WITHHELD, Fate.KEPT_LAST_COPY, Fate.LOCKED),
    "conflicts": (Fate.CONFLICT,),
}


@dataclass
class Batch:
    """The blocks that are complete at the node, and the files of those whose files matter, as PhEDEx says.

    `partial`: the blocks of which PhEDEx has something at the node, but not all. `whole`: blocks without a rule whose
    files are all known to be available at the RSE. `attached`: the files of each block that were given a replica or a
    place in it. `removed`: the files of each swept block whose replicas went; `foreign`: those that others hold.
    `found_held`: kept for a last copy, and not said by an earlier batch. `wanted_at`: the blocks that other nodes
    should have in Rucio first. `hit`: swept blocks that others came to hold meanwhile.
    `strangers`: files of complete blocks that PhEDEx does not list. Of a deep look:
    `revived` replicas, `orphans` at the RSE in no block, and `surplus_rules` ended. `failed`: blocks that failed by
    themselves.
    """

    node: str
    site: Site
    blocks: Mapping[str, BlockAtNode]
    partial: Mapping[str, BlockAtNode] = field(default_factory=dict)
    deep: bool = False
    dry: bool = False
    files: dict[str, Files] = field(default_factory=dict)
    fates: dict[str, Fate] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    attached: dict[str, Files] = field(default_factory=dict)
    failed: dict[str, PhedexRucioError] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    removed: dict[str, Files] = field(default_factory=dict)
    foreign: dict[str, set[str]] = field(default_factory=dict)
    found_held: set[str] = field(default_factory=set)
    wanted_at: dict[str, set[str]] = field(default_factory=dict)
    revived: dict[str, list[str]] = field(default_factory=dict)
    orphans: dict[str, list[str]] = field(default_factory=dict)
    strangers: dict[str, Files] = field(default_factory=dict)
    hit: set[str] = field(default_factory=set)
    surplus_rules: int = 0
    written: bool = False

    def end(self, name: str, fate: Fate, note: str = "") -> None:
        """The block needs no more work in this execution. The note is for a person."""
        self.fates[name] = fate
        if note:
            self.notes[name] = note

    def attach(self, name: str, files: Files) -> None:
        """The files were attached to the block."""
        self.attached[name] = self.attached.get(name, {}) | files
        self.written = True

    def open(self, names: list[str]) -> list[str]:
        """Those of the names that still need work."""
        return [name for name in names if name not in self.fates and name not in self.failed]

    def named(self, *fates: Fate) -> list[str]:
        """The names that met one of the fates, in order."""
        return sorted(name for name, fate in self.fates.items() if fate in fates)

    def told(self) -> dict[str, list[str]]:
        """The blocks of which something is to be told, by what became of them: for the event, at most a batch's names.

        What was found as it should be, or waits for its time, is not among them.
        """
        named = {word: self.named(*fates) for word, fates in TOLD.items()} | {"failed": sorted(self.failed)}
        return {word: names for word, names in named.items() if names}

    def counts(self) -> dict[str, int]:
        """Blocks by fate, with the files and bytes attached and removed; what is nought is left out but `in_sync`."""
        files = [file for attached in self.attached.values() for file in attached.values()]
        counted = {fate.value: number for fate, number in Counter(self.fates.values()).items()}
        gone = [file for removed in self.removed.values() for file in removed.values()]
        more = {
            "adopted": len(self.adopted),
            "foreign": sum(len(files) for files in self.foreign.values()),
            "files_removed": len(gone),
            "bytes_removed": sum(file.bytes for file in gone),
            "files": len(files),
            "bytes": sum(file.bytes for file in files),
            "files_revived": sum(map(len, self.revived.values())),
            "orphans": sum(map(len, self.orphans.values())),
            "strangers": sum(map(len, self.strangers.values())),
            "hit": len(self.hit),
            "surplus_rules": self.surplus_rules,
            "failed": len(self.failed),
        }
        return {Fate.IN_SYNC.value: 0} | counted | {name: number for name, number in more.items() if number}
