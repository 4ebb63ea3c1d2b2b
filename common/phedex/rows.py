"""Are the rows about what was asked, and do they agree with themselves? Rows of a reply that `trust` has read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime

from msgspec import Struct

from common import names
from common.errors import Untrusted
from common.phedex import trust
from common.phedex.replies import (
    BlockReplica,
    BlockReplicas,
    BlockRow,
    Data,
    Envelope,
    FileReplicas,
    FilesRow,
    Node,
    Nodes,
)
from common.phedex.trust import Question, cut
from common.sync.catalogue import BlockAtNode, File
from common.sync.selection import Predicate
from common.sync.whereabouts import Whereabouts

Figures = tuple[int, int]  # a block's own number of files, and their bytes


class Listing(Struct, frozen=True):
    """Blocks at a node, the names that do not parse, and PhEDEx's own time of the reply."""

    blocks: dict[str, BlockAtNode]
    ignored: list[str]
    as_of: datetime


def nodes(question: Question, reply: Nodes) -> dict[str, Node]:
    """All nodes by name. Raises NoNodes."""
    if not reply.node:
        raise trust.NoNodes(f"{question}: came an empty list")
    return {node.name: node for node in reply.node}


def at_node(question: Question, reply: BlockReplicas, node: str, wanted: Predicate) -> Listing:
    """The blocks at one node that PhEDEx listed, complete or not. An empty reply is legal and gives an empty listing.

    A name that does not parse is no reason for distrust, as PhEDEx has such data: it stands in `ignored`.
    Raises OtherNode, OtherBlock, Repeated, Contradiction.
    """
    listing = Listing({}, [], as_of(reply))
    for row in reply.block:
        block = _at_node(question, row, node)
        if not names.is_block(row.name):
            listing.ignored.append(row.name)
            continue
        _check_row(question, row.name, wanted, listing.blocks)
        listing.blocks[row.name] = block
    return listing


def _at_node(question: Question, row: BlockRow, node: str) -> BlockAtNode:
    if not row.replica or any(replica.node != node for replica in row.replica):
        found = ", ".join(replica.node for replica in row.replica) or "no replica"
        raise trust.OtherNode(f"{question}: block {cut(row.name)} is listed with {cut(found)} instead of {node}")
    if len(row.replica) > 1:
        raise trust.Repeated(f"{question}: block {cut(row.name)} is listed {len(row.replica)} times at {node}")
    replica = row.replica[0]
    is_open, complete = row.is_open == "y", replica.complete == "y"
    if complete != (not is_open and replica.files == row.files):
        raise trust.Contradiction(
            f"{question}: block {cut(row.name)} has complete={replica.complete}, is_open={row.is_open}, "
            f"{replica.files} of {row.files} files"
        )
    group = sys.intern(replica.group or "")
    return BlockAtNode(row.files, row.bytes, replica.files, complete, is_open, group, replica.custodial == "y")


def _check_row(question: Question, name: str, wanted: Predicate, before: Collection[str]) -> None:
    if not wanted(name):
        raise trust.OtherBlock(f"{question}: came block {cut(name)}, which was not asked for")
    if name in before:
        raise trust.Repeated(f"{question}: block {cut(name)} is listed twice")


def check_asked(question: Question, found: Iterable[str], asked: Collection[str]) -> None:
    """Nothing came that was not asked for by its name. Raises OtherBlock."""
    for name in found:
        if name not in asked:
            raise trust.OtherBlock(f"{question}: came block {cut(name)}, which was not asked for")


def placed(question: Question, reply: BlockReplicas, wanted: Predicate) -> dict[str, list[str]]:
    """The blocks that are complete, by node, of a question with `complete=y`.

    Left out: names that do not parse, and retired nodes (`X…`), which PhEDEx shows here and nowhere else.
    Raises OtherBlock, Repeated, Contradiction.
    """
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for row in reply.block:
        if not names.is_block(row.name):
            continue
        _check_row(question, row.name, wanted, seen)
        seen.add(row.name)
        for node in _complete_at(question, row):
            found.setdefault(node, []).append(row.name)
    return found


def whereabouts(
    question: Question, reply: BlockReplicas, asked: Collection[str], controls: Collection[str]
) -> dict[str, Whereabouts]:
    """Where each block is that was asked for; `controls` were asked for with them, and are none of them.

    Raises OtherBlock, Repeated, Contradiction, OtherNode for a row without a replica, and ControlMissing.
    """
    rows: dict[str, BlockRow] = {}
    for row in reply.block:
        _check_row(question, row.name, lambda name: name in asked or name in controls, rows)
        _check_replicas(question, row)
        rows[row.name] = row
    missing = next((name for name in asked if name not in rows), None)
    controlled = any(name in rows for name in controls)
    if missing is not None and controls and not controlled:
        raise trust.ControlMissing(
            f"{question}: block {cut(missing)} has no row, and {cut(', '.join(controls))} has none either"
        )
    time = as_of(reply)
    nothing = Whereabouts(controlled=controlled, as_of=time)
    return {name: _whereabouts(rows[name], time) if name in rows else nothing for name in asked}


def _check_replicas(question: Question, row: BlockRow) -> None:
    """Where no replica was filtered out PhEDEx lists no block without one: such a row would look like "nowhere"."""
    if not row.replica:
        raise trust.OtherNode(f"{question}: block {cut(row.name)} is listed with no replica")
    if len({replica.node for replica in row.replica}) != len(row.replica):
        raise trust.Repeated(f"{question}: block {cut(row.name)} is listed twice at a node")
    for replica in row.replica:
        _check_complete(question, row, replica)


def _whereabouts(row: BlockRow, time: datetime) -> Whereabouts:
    complete = frozenset(replica.node for replica in row.replica if replica.complete == "y")
    with_files = frozenset(replica.node for replica in row.replica if replica.files)
    return Whereabouts(
        files=row.files,
        bytes=row.bytes,
        complete=complete,
        partial=with_files - complete,
        meant=frozenset(replica.node for replica in row.replica) - complete - with_files,
        listed=True,
        controlled=True,
        as_of=time,
    )


def _check_complete(question: Question, row: BlockRow, replica: BlockReplica) -> None:
    if (replica.complete == "y") != (row.is_open == "n" and replica.files == row.files):
        raise trust.Contradiction(
            f"{question}: block {cut(row.name)} at {replica.node} has complete={replica.complete}, "
            f"is_open={row.is_open}, {replica.files} of {row.files} files"
        )


def _complete_at(question: Question, row: BlockRow) -> list[str]:
    nodes_of = [replica.node for replica in row.replica]
    if len(set(nodes_of)) != len(nodes_of):
        raise trust.Repeated(f"{question}: block {cut(row.name)} is listed twice at a node")
    for replica in row.replica:
        if replica.complete == "n" or row.is_open == "y" or replica.files != row.files:
            raise trust.Contradiction(
                f"{question}: block {cut(row.name)} at {replica.node} has complete={replica.complete}, "
                f"is_open={row.is_open}, {replica.files} of {row.files} files"
            )
    return [node for node in nodes_of if names.is_node(node)]


def files(
    question: Question, reply: FileReplicas, node: str, asked: Collection[str], figures: Mapping[str, Figures]
) -> tuple[dict[str, list[File]], dict[str, Untrusted]]:
    """The whole file list of each block that was asked for, or why there is none: each block is in one of the two.

    A list that does not add up to the block's own number and bytes, or to its `figures`, is none.
    Raises OtherNode, OtherBlock, Repeated where the reply as a whole is about something else.
    """
    found: dict[str, list[File]] = {}
    doubts: dict[str, Untrusted] = {}
    seen: set[str] = set()
    for row in reply.block:
        _check_row(question, row.name, asked.__contains__, seen)
        seen.add(row.name)
        _check_file_nodes(question, row, node)
        doubt = _doubt(row, node, figures.get(row.name))
        if doubt is not None:
            doubts[row.name] = doubt
        else:
            found[row.name] = [File(file.name, file.bytes, names.adler32_of(file.checksum)) for file in row.file]
    for name in asked:
        if name not in seen:
            doubts[name] = trust.FilesMissing(f"block {name}: filereplicas does not list it at {node}")
    return found, doubts


def nodes_with_files(question: Question, reply: FileReplicas, asked: Collection[str]) -> dict[str, frozenset[str]]:
    """The nodes where any file of each block is listed, whether or not the list is whole. Raises OtherBlock."""
    check_asked(question, (row.name for row in reply.block), asked)
    found: dict[str, set[str]] = {name: set() for name in asked}
    for row in reply.block:
        found[row.name] |= {replica.node for file in row.file for replica in file.replica}
    return {name: frozenset(nodes) for name, nodes in found.items()}


def _check_file_nodes(question: Question, row: FilesRow, node: str) -> None:
    for file in row.file:
        for replica in file.replica:
            if replica.node != node:
                raise trust.OtherNode(f"{question}: file {cut(file.name)} is listed at {cut(replica.node)}, not {node}")


def _doubt(row: FilesRow, node: str, figures: Figures | None) -> Untrusted | None:
    if len(row.file) != row.files:
        return trust.FilesMissing(f"block {row.name}: {len(row.file)} of {row.files} files are listed at {node}")
    if len({file.name for file in row.file}) != row.files:
        return trust.BadFile(f"block {row.name}: a file is listed twice")
    for file in row.file:
        if not names.is_lfn(file.name):
            return trust.BadFile(f"block {row.name}: {cut(file.name)!r} is no file name that Rucio can hold")
        if file.bytes < 0:
            return trust.BadFile(f"block {row.name}: file {file.name} has {file.bytes} bytes")
        if not file.replica:
            return trust.BadFile(f"block {row.name}: file {file.name} has no replica at {node}")
    wrong = wrong_sum(row, figures)
    return trust.FilesMissing(f"block {row.name}: {wrong} at {node}") if wrong else None


def wrong_sum(row: FilesRow, figures: Figures | None) -> str:
    """How the listed files differ from what the block has by the same reply, or by `figures`; "" where they do not."""
    listed = (len({file.name for file in row.file}), sum(file.bytes for file in row.file))
    for said in ((row.files, row.bytes), figures or listed):
        if said != listed:
            return f"{listed[0]} files of {listed[1]} bytes are listed, the block has {said[0]} of {said[1]}"
    return ""


def known(question: Question, reply: Data, asked: Collection[str]) -> dict[str, int]:
    """The bytes of those blocks that PhEDEx knows, wherever they are or not. Raises OtherBlock."""
    found = {block.name: block.bytes for dbs in reply.dbs for dataset in dbs.dataset for block in dataset.block}
    check_asked(question, found, asked)
    return found


def known_files(question: Question, reply: Data, asked: Collection[str]) -> dict[str, str]:
    """Those of the files that PhEDEx knows, each with its block, wherever they are or not. Raises OtherBlock."""
    blocks = [block for dbs in reply.dbs for dataset in dbs.dataset for block in dataset.block]
    found = {file.lfn: block.name for block in blocks for file in block.file}
    for name in found:
        if name not in asked:
            raise trust.OtherBlock(f"{question}: came file {cut(name)}, which was not asked for")
    return found


def as_of(reply: Envelope) -> datetime:
    """When PhEDEx took the question, by its own clock."""
    return datetime.fromtimestamp(reply.request_timestamp, UTC)
