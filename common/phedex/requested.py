"""What was asked of PhEDEx: to delete a block at a node, or to have it there? Rows of replies that `trust` has read."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from common.names import dataset_of
from common.phedex import trust
from common.phedex.replies import DeletionRow, Deletions, Subscriptions
from common.phedex.rows import as_of
from common.phedex.trust import Question, cut
from common.sync.whereabouts import Deletion

# A deletion is dated by the clock of the site that does it. Later than this after the reply it cannot be.
AHEAD = timedelta(hours=1)


def deletions(question: Question, reply: Deletions, asked: Collection[str]) -> dict[str, dict[str, Deletion]]:
    """Of each block that was asked for, by node, the newest deletion; of two of one time the one that is not done.

    Raises OtherBlock, Repeated, Malformed, Contradiction.
    """
    latest = as_of(reply) + AHEAD
    found: dict[str, dict[str, Deletion]] = {}
    for block in (block for dataset in reply.dataset for block in dataset.block):
        if block.name not in asked:
            raise trust.OtherBlock(f"{question}: came block {cut(block.name)}, which was not asked for")
        if block.name in found:
            raise trust.Repeated(f"{question}: block {cut(block.name)} is listed twice")
        newest = found[block.name] = {}
        for row in block.deletion:
            one = _deletion(question, block.name, row, latest)
            newest[row.node] = max(one, newest.get(row.node, one), key=_age)
    return {name: found.get(name, {}) for name in asked}


def _age(deletion: Deletion) -> tuple[datetime, bool, datetime]:
    return deletion.requested, deletion.completed is None, deletion.completed or deletion.requested


def _deletion(question: Question, block: str, row: DeletionRow, latest: datetime) -> Deletion:
    requested = _time(question, row.time_request)
    completed = None if row.time_complete is None else _time(question, row.time_complete)
    done = completed is not None and completed >= requested
    if done != (row.complete == "y") or max(requested, completed or requested) > latest:
        raise trust.Contradiction(
            f"{question}: the deletion of block {cut(block)} at {cut(row.node)} has complete={row.complete}, "
            f"asked for at {row.time_request}, done at {row.time_complete}"
        )
    return Deletion(requested, completed if done else None)


def _time(question: Question, seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise trust.Malformed(f"{question}: {seconds} is no time") from None


def subscribed(question: Question, reply: Subscriptions, asked: Collection[str]) -> dict[str, set[str]]:
    """The nodes that each block that was asked for is subscribed to, by itself or with all of its dataset.

    Raises OtherBlock.
    """
    found: dict[str, set[str]] = {name: set() for name in asked}
    of_dataset: dict[str, list[str]] = {}
    for name in asked:
        of_dataset.setdefault(dataset_of(name), []).append(name)
    for dataset in reply.dataset:
        if dataset.name not in of_dataset:
            raise trust.OtherBlock(f"{question}: came dataset {cut(dataset.name)}, which was not asked for")
        for name in of_dataset[dataset.name]:
            found[name].update(row.node for row in dataset.subscription)
        for block in dataset.block:
            if block.name not in found:
                raise trust.OtherBlock(f"{question}: came block {cut(block.name)}, which was not asked for")
            found[block.name].update(row.node for row in block.subscription)
    return found
