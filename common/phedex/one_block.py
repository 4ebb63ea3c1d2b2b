"""What does PhEDEx say of one block, wherever it is? Rows of replies that `trust` has read."""

from __future__ import annotations

from datetime import UTC, datetime

from common import names
from common.phedex import trust
from common.phedex.replies import BlocksInFull, FileReplicas, FilesRow, ReplicaInFull
from common.phedex.rows import Figures, as_of, check_asked, wrong_sum
from common.phedex.trust import Question
from common.sync.catalogue import File
from common.sync.one_block import InPhedex, Listed, Part


def places(question: Question, reply: BlocksInFull, block: str) -> InPhedex:
    """The block and each node's part of it; without places where PhEDEx has a record of it at no node.

    Raises OtherBlock, Repeated, Contradiction.
    """
    check_asked(question, (row.name for row in reply.block), {block})
    if len(reply.block) > 1:
        raise trust.Repeated(f"{question}: block {block} is listed {len(reply.block)} times")
    if not reply.block:
        return InPhedex(as_of=as_of(reply), known=False)
    row = reply.block[0]
    found: dict[str, Part] = {}
    for replica in row.replica:
        if replica.node in found:
            raise trust.Repeated(f"{question}: block {block} is listed twice at {replica.node}")
        if (replica.complete == "y") != (row.is_open == "n" and replica.files == row.files):
            raise trust.Contradiction(
                f"{question}: block {block} at {replica.node} has complete={replica.complete}, "
                f"is_open={row.is_open}, {replica.files} of {row.files} files"
            )
        if names.is_node(replica.node):
            found[replica.node] = _part(replica)
    return InPhedex(as_of=as_of(reply), files=row.files, bytes=row.bytes, is_open=row.is_open == "y", places=found)


def _part(replica: ReplicaInFull) -> Part:
    return Part(
        files=replica.files,
        bytes=replica.bytes,
        complete=replica.complete == "y",
        group=replica.group or "",
        custodial=replica.custodial == "y",
        subscribed=None if replica.subscribed is None else replica.subscribed == "y",
        created=_time(replica.time_create),
        changed=_time(replica.time_update),
    )


def _time(seconds: float | None) -> datetime | None:
    """None for what no calendar holds."""
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def listed(question: Question, reply: FileReplicas, block: str, figures: Figures | None = None) -> Listed:
    """The files with the nodes of each; where the list is not whole or has a file that Rucio cannot hold, the doubt.

    It is whole if it adds up to the block's own number and bytes, by this reply and, where given, by `figures`.
    Raises OtherBlock.
    """
    check_asked(question, (row.name for row in reply.block), {block})
    if not reply.block:
        return Listed(doubt="PhEDEx lists no file of it")
    row = reply.block[0]
    return Listed(
        files={file.name: File(file.name, file.bytes, names.adler32_of(file.checksum)) for file in row.file},
        nodes={file.name: frozenset(replica.node for replica in file.replica) for file in row.file},
        doubt=_doubt(row, len(reply.block), figures),
    )


def _doubt(row: FilesRow, rows: int, figures: Figures | None) -> str:
    listed = {file.name for file in row.file}
    if rows > 1 or len(listed) != len(row.file):
        return "something in it is listed twice"
    if len(listed) != row.files:
        return f"{len(listed)} of {row.files} files are listed"
    bad = next((file for file in row.file if file.bytes < 0 or not names.is_lfn(file.name)), None)
    return f"{trust.cut(bad.name)!r} is no file that Rucio can hold" if bad else wrong_sum(row, figures)
