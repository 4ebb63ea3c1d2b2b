"""What would a sync of a node do? The plan is a value: shown, counted, cut in batches, never acting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from msgspec import Struct

from common.sync.catalogue import BlockAtNode, Reading, RuleAtRse
from common.sync.diff import Difference


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
    """What a sync of one node would do, in order of name. `after`: the last name of a page that has more behind it.

    `work`: the missing and to-update names of this page. `remove` is shown and left alone.
    `existing`: our rules at the RSE; `present`: complete blocks that PhEDEx says are there.
    """

    node: str
    rse: str
    account: str
    dataset: str
    missing: list[str]
    update: dict[str, str]
    remove: dict[str, str]
    pending: list[str]
    empty: list[str]
    same: int
    existing: int
    present: int
    work: list[str]
    after: str
    left: int
    adds: Sizes
    as_of: datetime | None
    ignored: list[str]
    doubts: list[str]

    @property
    def in_sync(self) -> bool:
        """True where nothing is to add, update or remove, and nothing was doubted."""
        return not (self.missing or self.update or self.remove or self.doubts)


def make_plan(
    where: tuple[str, str, str, str],
    reading: Reading,
    rules: Mapping[str, RuleAtRse],
    found: Difference,
    *,
    limits: Limits,
    after: str = "",
    limit: int | None = None,
) -> Plan:
    """The plan for (node, RSE, account, pattern) of two readings and what differs between them.

    `after`: a later page, names beyond this one only. `limit`: a canary of so many blocks, without continuation.
    """
    names = [name for name in sorted([*found.missing, *found.update]) if name > after]
    work = names[: min(limits.page, limit or limits.page)]
    more = len(names) > len(work) and limit is None
    node, rse, account, dataset = where
    return Plan(
        node=node,
        rse=rse,
        account=account,
        dataset=dataset,
        missing=found.missing,
        update={name: str(why) for name, why in found.update.items()},
        remove={name: str(why) for name, why in found.remove.items()},
        pending=found.pending,
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
    )


def sizes(names: Iterable[str], blocks: Mapping[str, BlockAtNode]) -> Sizes:
    """Blocks, files and bytes of some names."""
    listed = [blocks[name] for name in names]
    return Sizes(len(listed), sum(b.files for b in listed), sum(b.bytes for b in listed))


def batches(names: Iterable[str], blocks: Mapping[str, BlockAtNode], limits: Limits) -> Iterator[list[str]]:
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
