"""What would a sync of a node do? The plan is a value: shown, counted, cut in batches, never acting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from msgspec import Struct

from common.sync.catalogue import BlockAtNode, Reading, RuleAtRse
from common.sync.diff import Difference
from common.sync.guard import Ruling
from common.sync.marks import DESTROYING, Removal

# So long after its plan began to read a batch may still remove; after that it only adds. Ten minutes less than the
# usual time of grace, for a write that is under way and clocks that differ: when a mark is due, all marks are there of
# plans that did not see it.
PERMISSION = timedelta(minutes=50)


class Limits(Struct, frozen=True, kw_only=True):
    """How large a page of a plan and a batch may be. A block with more files than `files` is a batch alone."""

    page: int = 10_000
    blocks: int = 100
    files: int = 5_000
    name_bytes: int = 48 * 1024


class Sizes(Struct, frozen=True):
    """Blocks, files and bytes of one part of a plan."""

    blocks: int = 0
    files: int = 0
    bytes: int = 0


class Plan(Struct, frozen=True, kw_only=True):
    """What a sync of one node would do, in order of name."""

    node: str
    rse: str
    account: str
    dataset: str
    missing: list[str]
    update: dict[str, str]
    remove: dict[str, str]  # what should not be there, with the reason
    pending: dict[str, datetime | None]  # marked already: when it may be swept (None: never by itself)
    empty: list[str]
    same: int
    existing: int  # our rules at the RSE
    present: int  # complete blocks that PhEDEx says are there
    work: list[str]  # the missing and to-update names of this page
    after: str  # the last name of a page that has more behind it
    left: int
    adds: Sizes
    as_of: datetime | None
    ignored: list[str]
    doubts: list[str]
    kept: dict[str, str]  # what should not be there and stays, for it may be the last copy: why
    unmark: list[str]  # whose mark or hold is to go, or to be of a milder reason
    removals: str  # why this plan removes nothing at all, "" where it may
    ruling: Ruling | None  # then the guard's word on `remove`
    sweep: list[str]  # the marked blocks that are due
    unswept: list[str]  # those that stay: PhEDEx's list is not believed, too many were marked, a rule is locked
    approve: list[str]  # marked blocks whose marks a person approves with this plan
    files: str  # why files that PhEDEx lists no more stay in their blocks, "" where they may leave
    files_held: bool  # that is since there are too many of them

    @property
    def in_sync(self) -> bool:
        """True where nothing is to add, update or remove, and nothing was doubted or is kept."""
        return not (self.missing or self.update or self.remove or self.doubts or self.kept)

    @property
    def mark(self) -> list[str]:
        """The blocks that the guard lets be marked."""
        return self.ruling.allowed if self.ruling else []


class Removals(Struct, frozen=True, kw_only=True):
    """What a plan may remove, and how long marks last."""

    at: datetime  # the time before the first of the two readings
    none: str = ""  # why nothing at all, if so
    ruling: Ruling | None = None  # the guard's word
    grace: float = 0
    apart: float = 0  # so long after its mark what destroys is read a second time, where nobody approved it
    keep_partial: bool = False  # a marked block of which PhEDEx has some files at the node is not swept
    files: str = ""  # why no files that PhEDEx lists no more may leave
    files_held: bool = False  # that is since they are too many


class Marks(Struct, frozen=True, kw_only=True):
    """What becomes of the marked blocks: from when on each may be swept, which are now, and which are not though due.

    `approve`: those that a person approves with this plan and whose marks do not say so yet.
    """

    due_at: dict[str, datetime | None]
    sweep: list[str]
    unswept: list[str]
    approve: list[str]


def make_plan(
    where: tuple[str, str, str, str],
    reading: Reading,
    rules: Mapping[str, RuleAtRse],
    found: Difference,
    *,
    limits: Limits,
    removals: Removals,
    deep: Iterable[str] = (),
    after: str = "",
    limit: int | None = None,
) -> Plan:
    """The plan for (node, RSE, account, pattern) of two readings and what differs between them.

    `deep`: names to look at file by file, whatever their rules say. `after`: a later page, names beyond this one only.
    `limit`: a canary of so many blocks, without continuation.
    """
    names = [name for name in sorted({*found.missing, *found.update, *deep}) if name > after]
    work = names[: min(limits.page, limit or limits.page)]
    more = len(names) > len(work) and limit is None
    node, rse, account, dataset = where
    marks = marks_of(reading, rules, found, removals)
    return Plan(
        node=node,
        rse=rse,
        account=account,
        dataset=dataset,
        missing=found.missing,
        update={name: str(why) for name, why in found.update.items()},
        remove={name: str(why) for name, why in found.remove.items()},
        pending=marks.due_at,
        empty=found.empty,
        same=found.same,
        existing=len(rules),
        present=sum(block.complete for block in reading.blocks.values()),
        work=work,
        after=work[-1] if more else "",
        left=len(names) - len(work),
        adds=sizes(found.missing, reading.blocks),
        as_of=reading.as_of,
        ignored=reading.ignored,
        doubts=[f"{doubt.pattern}: {doubt.reason}" for doubt in reading.doubts],
        kept={name: str(why) for name, why in found.kept.items()},
        unmark=[] if removals.none else found.unmark,
        files=removals.files or removals.none,
        files_held=removals.files_held,
        removals=removals.none,
        ruling=removals.ruling,
        sweep=marks.sweep,
        unswept=marks.unswept,
        approve=marks.approve,
    )


def marks_of(reading: Reading, rules: Mapping[str, RuleAtRse], found: Difference, removals: Removals) -> Marks:
    """What may be swept: what was marked for the time of grace when the readings began, and the guard does not keep.

    The time before the readings, so that all marks of plans that overlapped are among them: a permission to mark is
    shorter than the time of grace.
    """
    due_at = {name: _due_at(rules[name], one.why, removals) for name, one in found.pending.items()}
    partial = reading.blocks if removals.keep_partial else {}
    due = [
        name
        for name, at in due_at.items()
        if at and at <= removals.at and name not in partial and not found.pending[name].stays
    ]
    ruling = removals.ruling
    kept = set(ruling.kept) if ruling and ruling.sweep else set(due)
    sweep = [name for name in due if name not in kept] if ruling else []
    approved = [name for name in ruling.approved if name in found.pending] if ruling else []
    return Marks(
        due_at=due_at,
        sweep=sweep,
        unswept=[] if removals.none else sorted(set(due).difference(sweep)),
        approve=[name for name in approved if not (rules[name].approved or rules[name].ending)],
    )


def _due_at(rule: RuleAtRse, why: Removal, removals: Removals) -> datetime | None:
    """When a marked rule's time of grace is over; None for a mark whose time nobody can read."""
    grace = removals.grace
    if why in DESTROYING and not rule.approved:
        grace = max(grace, removals.apart)
    try:
        return datetime.fromtimestamp(rule.counts_from, UTC) + timedelta(seconds=grace)
    except (OverflowError, ValueError):
        return None


def sizes(names: Iterable[str], blocks: Mapping[str, BlockAtNode]) -> Sizes:
    """Blocks, files and bytes of some names."""
    listed = [blocks[name] for name in names]
    return Sizes(len(listed), sum(b.files for b in listed), sum(b.bytes for b in listed))


class HasFiles(Protocol):
    """What tells how many files a block has."""

    @property
    def files(self) -> int: ...


def batches(names: Iterable[str], blocks: Mapping[str, HasFiles], limits: Limits) -> Iterator[list[str]]:
    """Cut names, in their order, into batches within the limits; a block that alone is over a limit comes alone."""
    batch: list[str] = []
    files = size = 0
    for name in names:
        its_files, its_size = blocks[name].files, len(name.encode()) + 3
        full = len(batch) >= limits.blocks or files + its_files > limits.files or size + its_size > limits.name_bytes
        if batch and full:
            yield batch
            batch, files, size = [], 0, 0
        batch.append(name)
        files, size = files + its_files, size + its_size
    if batch:
        yield batch
