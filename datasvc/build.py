"""How is a snapshot put together, item by item? For exact small worlds, and for changes to large ones."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from common.errors import UsageError
from common.phedex import tfc
from datasvc import contents, store
from datasvc.made import Block, File

FileSpec = tuple[str, int, str | None]  # LFN, bytes, adler32 (or a whole PhEDEx checksum text, or None)


class Snapshot:
    """A snapshot file open for writing; made if it is not there. A context manager, which closes it.

    Each method is one transaction; `with snapshot.transaction():` makes several into one. Names must exist where a
    method refers to them, else UsageError; groups are added on first use. `now` (epoch seconds) dates what is made.
    """

    def __init__(self, path: str | Path, now: float | None = None, instance: str = "prod") -> None:
        self.path = Path(path)
        self.connection = store.writer(self.path) if self.path.exists() else store.create(self.path, instance)
        self._now = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The file is closed; all that was done is in it."""
        self.connection.close()

    @property
    def now(self) -> float:
        """The time that changes are dated with, epoch seconds, 5 decimals as PhEDEx has them."""
        return round(time.time() if self._now is None else self._now, 5)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside becomes visible at once, or not at all if it raises."""
        if self.connection.in_transaction:
            yield self.connection
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    # --- nodes and what belongs to them

    def add_node(
        self,
        name: str,
        kind: str | None = None,
        technology: str = "Other",
        se: str | None = None,
        number: int | None = None,
    ) -> int:
        """A node; its kind (Disk, Buffer, MSS) follows from the name's suffix if not given. Returns its id."""
        row = (number, name, se, kind or kind_of(name), technology)
        return self._inserted("INSERT INTO node VALUES (?, ?, ?, ?, ?)", row, f"node {name}")

    def add_group(self, name: str, number: int | None = None) -> int:
        """A group. Returns its id."""
        return self._inserted("INSERT INTO user_group VALUES (?, ?)", (number, name), f"group {name}")

    def add_tfc(self, node: str, document: bytes | str, made: bool = False) -> None:
        """The node's catalogue is this storage.xml, in place of what it had. Raises CatalogueError."""
        rules = tfc.parse(document, f"storage.xml of {node}").rules
        number = self.node_id(node)
        with self.transaction() as connection:
            connection.execute("DELETE FROM tfc_rule WHERE node_id = ?", (number,))
            connection.executemany(
                "INSERT INTO tfc_rule VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(number, n, *_rule_columns(rule), made) for n, rule in enumerate(rules)],
            )

    def add_link(self, source: str, sink: str, distance: int = 1, status: str = "ok", made: bool = False) -> None:
        """A directed link. Status: ok, deactivated, from_excluded, to_excluded, from_down or to_down."""
        row = (self.node_id(source), self.node_id(sink), distance, status, made)
        self._inserted("INSERT OR REPLACE INTO link VALUES (?, ?, ?, ?, ?)", row, f"link {source} to {sink}")

    def add_agent_log(
        self, node: str, message: str, agent: str = "FileDownload", host: str = "phedex.example.org", **rest: Any
    ) -> None:
        """A log entry of an agent; `rest`: user, pid, time (None: an hour before it is asked for), reason, made."""
        row = (
            *(None, self.node_id(node), agent, host, rest.get("user", "phedex"), rest.get("pid", 4711)),
            *(rest.get("time"), rest.get("reason", "AGENT STARTED"), "/home/phedex", f"/home/phedex/{agent}"),
            *(message, rest.get("made", False)),
        )
        self._inserted("INSERT INTO agent_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row, f"log of {node}")

    # --- datasets, blocks, files

    def add_dataset(self, name: str, is_open: bool = False, number: int | None = None) -> int:
        """A dataset that is there after the call; one that is there already is left as it is. Returns its id."""
        found = self.connection.execute("SELECT id FROM dataset WHERE name = ?", (name,)).fetchone()
        if found is not None:
            return int(found[0])
        row = (number, name, is_open, self.now)
        return self._inserted("INSERT INTO dataset VALUES (?, ?, ?, 0, ?, NULL)", row, f"dataset {name}")

    def add_block(
        self, name: str, files: Iterable[FileSpec] = (), is_open: bool = False, dataset: str | None = None
    ) -> int:
        """A block with exactly these files, at no node yet; its dataset (the part before `#`) is added. Its id."""
        with self.transaction():
            number = self._new_block(name, 0, 0, is_open, dataset, made=False)
            for lfn, size, checksum in files:
                self._store_file(number, lfn, size, checksum)
            contents.recount(self.connection, number, self.now)
        return number

    def add_made_block(
        self, name: str, files: int, size: int, is_open: bool = False, dataset: str | None = None
    ) -> int:
        """A block whose `files` files (`size` bytes in all) follow from its name. Returns its id."""
        with self.transaction():
            return self._new_block(name, files, size, is_open, dataset, made=True)

    def add_file(
        self, block: str, lfn: str, size: int, adler32: str | None, nodes: Iterable[str] | None = None
    ) -> None:
        """The block has one more file, at these of its nodes (default: at all of them)."""
        with self.transaction() as connection:
            held = contents.store_files(connection, self.block(block))
            file = self._store_file(held.id, lfn, size, adler32)
            present = None if nodes is None else {self.node_id(node) for node in nodes}
            for node in self._nodes_of(held):
                if present is not None and node not in present:
                    connection.execute("INSERT INTO absent VALUES (?, ?, ?)", (held.id, node, file))
            contents.recount(connection, held.id, self.now)

    def remove_file(self, lfn: str) -> None:
        """The file is in no block and at no node any more."""
        with self.transaction() as connection:
            block = contents.block_with_file(connection, lfn)
            if block is None:
                raise UsageError(f"file {lfn} is not in snapshot {self.path}")
            contents.store_files(connection, block)
            number = connection.execute("SELECT id FROM file WHERE name = ?", (lfn,)).fetchone()[0]
            connection.execute("DELETE FROM absent WHERE block_id = ? AND file_id = ?", (block.id, number))
            connection.execute("DELETE FROM file WHERE id = ?", (number,))
            contents.recount(connection, block.id, self.now)

    def set_open(self, block: str, is_open: bool) -> None:
        """The block is open or closed. (The real service never reopens one.)"""
        with self.transaction() as connection:
            row = (is_open, self.now, self.block(block).id)
            connection.execute("UPDATE block SET is_open = ?, time_update = ? WHERE id = ?", row)

    def remove_block(self, block: str) -> None:
        """PhEDEx does not know the block, its files, replicas and deletions any more; its dataset stays."""
        with self.transaction() as connection:
            held = self.block(block)
            connection.execute("DELETE FROM absent WHERE block_id = ?", (held.id,))
            connection.execute("DELETE FROM deletion WHERE block_id = ?", (held.id,))
            connection.execute("DELETE FROM file WHERE block_id = ?", (held.id,))
            connection.execute("DELETE FROM replica WHERE dataset_id = ? AND block_id = ?", (held.dataset_id, held.id))
            connection.execute("DELETE FROM block WHERE id = ?", (held.id,))

    # --- replicas

    def add_replica(
        self,
        block: str,
        node: str,
        files: Iterable[str] | None = None,
        *,
        group: str | None = None,
        custodial: bool = False,
        subscribed: bool = True,
        active: bool = False,
        time_create: float | None = None,
    ) -> None:
        """The node has the block: all its files, or only these LFNs. A replica that was there is replaced."""
        with self.transaction() as connection:
            held = self.block(block)
            number = self.node_id(node)
            self._delete_replica(held, number)
            created = self.now if time_create is None else time_create
            connection.execute(
                "INSERT INTO replica VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(held.dataset_id, held.id, number, held.files, held.bytes),
                    *(subscribed, custodial, active, self._group_id(group), created, self.now),
                ),
            )
            if files is not None:
                self._set_present(held, number, set(files))

    def set_replica_files(self, block: str, node: str, files: Iterable[str]) -> None:
        """The node has exactly these files of the block; the replica must be there."""
        with self.transaction():
            self._set_present(self._held(block, node), self.node_id(node), set(files))

    def remove_replica(self, block: str, node: str, *, deleted: bool = True) -> None:
        """The node has nothing of the block and is meant to have nothing. The replica must be there.

        `deleted`: that it was deleted there is on record, asked for and done now; else its record is just gone.
        """
        with self.transaction():
            self._delete_replica(self._held(block, node), self.node_id(node))
            if deleted:
                now = self.now
                self.add_deletion(block, node, requested=now, completed=now)

    def add_deletion(
        self, block: str, node: str, *, requested: float | None = None, completed: float | None = None
    ) -> None:
        """The block was to be deleted at the node, asked for by a request of its own (default: now), done or not yet.

        Replicas stay as they are.
        """
        with self.transaction() as connection:
            number = connection.execute("SELECT coalesce(max(request), 0) + 1 FROM deletion").fetchone()[0]
            row = (self.block(block).id, self.node_id(node), number, self.now if requested is None else requested)
            connection.execute("INSERT INTO deletion VALUES (?, ?, ?, ?, ?)", (*row, completed))

    def subscribe_dataset(self, dataset: str, node: str) -> None:
        """The whole dataset is subscribed to the node, which makes one record of `subscriptions` at that level."""
        number = self.connection.execute("SELECT id FROM dataset WHERE name = ?", (dataset,)).fetchone()
        if number is None:
            raise UsageError(f"dataset {dataset} is not in snapshot {self.path}: add it first")
        row = (number[0], self.node_id(node))
        self._inserted("INSERT OR IGNORE INTO dataset_subscription VALUES (?, ?)", row, f"subscription of {dataset}")

    # --- looking

    def node_id(self, name: str) -> int:
        """The id of a node. Raises UsageError."""
        found = self.connection.execute("SELECT id FROM node WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise UsageError(f"node {name} is not in snapshot {self.path}: add it first")
        return int(found[0])

    def block(self, name: str) -> Block:
        """The block of that name. Raises UsageError."""
        found = contents.block_named(self.connection, name)
        if found is None:
            raise UsageError(f"block {name} is not in snapshot {self.path}: add it first")
        return found

    def files(self, block: str) -> list[File]:
        """The block's files in order."""
        return list(contents.files_of(self.connection, self.block(block)))

    def files_at(self, block: str, node: str) -> list[str]:
        """The LFNs of the block's files that the node has, in order. The replica must be there."""
        held = self._held(block, node)
        absent = contents.absent_of(self.connection, held.id).get(self.node_id(node), set())
        return [file.name for file in contents.files_of(self.connection, held) if file.id not in absent]

    def nodes_of(self, block: str) -> list[str]:
        """The names of the nodes that have a replica record of the block, sorted."""
        held = self.block(block)
        return sorted(
            row[0]
            for row in self.connection.execute(
                "SELECT n.name FROM replica r JOIN node n ON n.id = r.node_id WHERE dataset_id = ? AND block_id = ?",
                (held.dataset_id, held.id),
            )
        )

    # --- inside

    def _inserted(self, statement: str, row: tuple[Any, ...], what: str) -> int:
        with self.transaction() as connection:
            try:
                return int(connection.execute(statement, row).lastrowid or 0)
            except sqlite3.IntegrityError as error:
                raise UsageError(f"{what} cannot be added to snapshot {self.path}: {error}") from error

    def _new_block(self, name: str, files: int, size: int, is_open: bool, dataset: str | None, *, made: bool) -> int:
        number = self.add_dataset(dataset or name.partition("#")[0])
        row = (None, number, name, files, size, is_open, self.now, self.now, made)
        return self._inserted("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row, f"block {name}")

    def _store_file(self, block: int, lfn: str, size: int, checksum: str | None) -> int:
        text = checksum if checksum is None or ":" in checksum else f"adler32:{checksum}"
        row = (None, block, lfn, size, text, self.now)
        return self._inserted("INSERT INTO file VALUES (?, ?, ?, ?, ?, ?, NULL, 0)", row, f"file {lfn}")

    def _group_id(self, name: str | None) -> int | None:
        if name is None:
            return None
        found = self.connection.execute("SELECT id FROM user_group WHERE name = ?", (name,)).fetchone()
        return self.add_group(name) if found is None else int(found[0])

    def _nodes_of(self, block: Block) -> list[int]:
        rows = self.connection.execute(
            "SELECT node_id FROM replica WHERE dataset_id = ? AND block_id = ?", (block.dataset_id, block.id)
        )
        return [row[0] for row in rows]

    def _held(self, block: str, node: str) -> Block:
        held = self.block(block)
        if self.node_id(node) not in self._nodes_of(held):
            raise UsageError(f"block {block} has no replica at {node} in snapshot {self.path}")
        return held

    def _delete_replica(self, block: Block, node: int) -> None:
        key = (block.dataset_id, block.id, node)
        self.connection.execute("DELETE FROM absent WHERE block_id = ? AND node_id = ?", key[1:])
        self.connection.execute("DELETE FROM replica WHERE dataset_id = ? AND block_id = ? AND node_id = ?", key)

    def _set_present(self, block: Block, node: int, present: set[str]) -> None:
        files = list(contents.files_of(self.connection, block))
        if unknown := present - {file.name for file in files}:
            raise UsageError(f"block {block.name} has no file {min(unknown)}: add it to the block first")
        there = [file.bytes for file in files if file.name in present]
        self.connection.execute("DELETE FROM absent WHERE block_id = ? AND node_id = ?", (block.id, node))
        self.connection.executemany(
            "INSERT INTO absent VALUES (?, ?, ?)",
            [(block.id, node, file.id) for file in files if file.name not in present],
        )
        self.connection.execute(
            "UPDATE replica SET files = ?, bytes = ?, time_update = ?"
            " WHERE dataset_id = ? AND block_id = ? AND node_id = ?",
            (len(there), sum(there), self.now, block.dataset_id, block.id, node),
        )


@contextmanager
def fresh(path: Path, now: float | None = None) -> Iterator[Snapshot]:
    """A new snapshot, there under its name only when the block has ended well. Raises UsageError if it exists."""
    if path.exists():
        raise UsageError(f"snapshot {path} exists: name another file, or remove it first")
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with Snapshot(part, now) as snapshot, snapshot.transaction():
            yield snapshot
        part.rename(path)
    finally:
        for leftover in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)


def kind_of(node: str) -> str:
    """Disk, Buffer or MSS, by the suffix of a node's name (CMS' naming)."""
    suffix = node.rpartition("_")[2]
    return {"MSS": "MSS", "Buffer": "Buffer", "Export": "Buffer"}.get(suffix, "Disk")


def _rule_columns(rule: tfc.Rule) -> tuple[str | None, ...]:
    return (
        *(str(rule.kind), rule.protocol, rule.path_match, rule.result, rule.chain),
        *(rule.destination_match, rule.is_custodial, rule.space_token),
    )
