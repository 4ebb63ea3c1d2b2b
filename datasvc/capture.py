"""How is a live data service saved in a snapshot? Step by step, each one transaction, so that it can go on later.

What is kept: nodes, groups, catalogues, links, transfer agents' logs, datasets, blocks and files that PhEDEx knows,
block replicas (which files where, for incomplete ones), deletions, and subscriptions of whole datasets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from common.errors import UsageError
from common.phedex.client import Phedex
from common.phedex.inventory import ALL, narrower
from common.phedex.transport import ReplyTooLarge
from common.phedex.trust import Malformed
from datasvc.build import Snapshot

ALWAYS = "0"  # of `create_since`: without it some calls answer about the last day only
FILES_AT_ONCE = 100  # blocks in one question about files
_RULE = (
    *("element_name", "protocol", "path-match", "result"),
    *("chain", "destination-match", "is_custodial", "space_token"),
)
_REPLICA = ("files", "bytes", "subscribed", "custodial", "group", "time_create", "time_update")
_DONE = "CREATE TABLE IF NOT EXISTS captured (step TEXT PRIMARY KEY) WITHOUT ROWID"
_BLOCKS_TODO = (
    "SELECT name FROM block b WHERE files > 0 AND NOT EXISTS (SELECT 1 FROM file f WHERE f.block_id = b.id) ORDER BY id"
)
_INCOMPLETE = (
    "SELECT b.name, n.name FROM replica r JOIN block b ON b.id = r.block_id JOIN node n ON n.id = r.node_id"
    " WHERE r.files < b.files AND r.files > 0 AND NOT EXISTS"
    " (SELECT 1 FROM absent a WHERE a.block_id = r.block_id AND a.node_id = r.node_id) ORDER BY b.id, n.id"
)


class Step(Struct, frozen=True):
    """How far it is: what was done last, and how many of how many of that kind."""

    what: str
    done: int
    of: int


def capture(phedex: Phedex, instance: str, url: str, output: Path) -> Iterator[Step]:
    """The service's data is in `output` when the last step was given; the steps as they are done.

    Until then it is in `output.part`: the same call goes on with that. Raises UsageError where `output` exists, or the
    part is of another service, and what the client raises; what is there stays for the next call.
    """
    if output.exists():
        raise UsageError(f"snapshot {output} exists: name another file, or remove it first")
    part = output.with_name(f"{output.name}.part")
    with Snapshot(part, instance=instance) as snapshot:
        _claim(snapshot, url)
        yield from _Capture(phedex, snapshot).steps()
        snapshot.connection.execute("DROP TABLE captured")
        snapshot.connection.execute("PRAGMA journal_mode=DELETE")  # one file, which can be moved
    part.rename(output)


def _claim(snapshot: Snapshot, url: str) -> None:
    """The part is of this service alone: two services in one snapshot would be neither."""
    with snapshot.transaction() as connection:
        connection.execute(_DONE)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('captured_from', ?)", (url,))
        found = connection.execute("SELECT value FROM meta WHERE key = 'captured_from'").fetchone()[0]
    if found != url:
        raise UsageError(f"{snapshot.path} was begun from {found}, not from {url}: remove it, or name another file")


class _Capture:
    """The state of one run: the client, the snapshot, and what was done before."""

    def __init__(self, phedex: Phedex, snapshot: Snapshot) -> None:
        self._phedex, self._snapshot = phedex, snapshot
        self._before = {row[0] for row in snapshot.connection.execute("SELECT step FROM captured")}

    def steps(self) -> Iterator[Step]:
        yield from self._each("nodes", [""], lambda _: self._nodes())
        nodes = [row[0] for row in self._snapshot.connection.execute("SELECT name FROM node ORDER BY id")]
        live = [node for node in nodes if not node.startswith("X")]
        yield from self._each("catalogues", live, self._catalogue)
        yield from self._each("agents", live, self._agents)
        yield from self._each("links", live, self._links)
        yield from self._each("datasets", narrower(ALL), self._datasets)
        yield from self._each("replicas", live, self._replicas)
        yield from self._each("deletions", live, self._deletions)
        yield from self._each("subscriptions", live, self._subscriptions)
        yield from self._rest("files", _BLOCKS_TODO, self._files)
        yield from self._rest("incomplete", _INCOMPLETE, self._incomplete)

    def _each(self, what: str, keys: list[str], work: Callable[[str], None]) -> Iterator[Step]:
        """A key at a time, each with its note that it is done in the same transaction."""
        for number, key in enumerate(keys, start=1):
            step = f"{what} {key}".strip()
            if step not in self._before:
                with self._snapshot.transaction() as connection:
                    work(key)
                    connection.execute("INSERT INTO captured VALUES (?)", (step,))
            yield Step(what, number, len(keys))

    def _rest(self, what: str, todo: str, work: Callable[[list[tuple[str, ...]]], None]) -> Iterator[Step]:
        """What is still missing in the snapshot itself, some at a time."""
        rows = self._snapshot.connection.execute(todo).fetchall()
        for first in range(0, len(rows), FILES_AT_ONCE):
            with self._snapshot.transaction():
                work(rows[first : first + FILES_AT_ONCE])
            yield Step(what, min(first + FILES_AT_ONCE, len(rows)), len(rows))

    def _nodes(self) -> None:
        for row in self._phedex.raw("nodes")["node"]:
            self._snapshot.add_node(row["name"], row["kind"], row["technology"] or "Other", row["se"], int(row["id"]))
        for row in self._phedex.raw("groups")["group"]:
            self._snapshot.add_group(row["name"], int(row["id"]))

    def _catalogue(self, node: str) -> None:
        rows = self._phedex.raw("tfc", node=node)["storage-mapping"]["array"]
        number = self._snapshot.node_id(node)
        self._snapshot.connection.executemany(
            "INSERT INTO tfc_rule VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            [(number, position, *(row.get(key) for key in _RULE)) for position, row in enumerate(rows)],
        )

    def _agents(self, node: str) -> None:
        agents = self._phedex.raw("agentlogs", node=node, agent="FileDownload", update_since=ALWAYS)["agent"]
        for agent in agents:
            for log in agent["log"]:
                about = {"user": agent["user"], "pid": int(agent["pid"]), "time": float(log["time"])}
                message = log["message"]["$t"]
                self._snapshot.add_agent_log(node, message, agent["name"], agent["host"], reason=log["reason"], **about)

    def _links(self, node: str) -> None:
        for row in self._phedex.raw("links", **{"from": node})["link"]:
            self._snapshot.add_link(row["from"], row["to"], int(row["distance"]), row["status"])

    def _datasets(self, pattern: str) -> None:
        for row in self._all("data", pattern, "dbs", level="block", create_since=ALWAYS):
            for dataset in row["dataset"]:
                self._dataset(dataset)

    def _all(self, call: str, pattern: str, key: str, **options: str) -> Iterator[dict[str, Any]]:
        """The rows of all datasets that match, in parts where one reply would be too large."""
        pending = [pattern]
        while pending:
            asked = pending.pop()
            try:
                yield from self._phedex.raw(call, dataset=asked, **options)[key]
            except ReplyTooLarge:
                finer = narrower(asked)
                if not finer:
                    raise
                pending += finer

    def _dataset(self, row: dict[str, Any]) -> None:
        connection = self._snapshot.connection
        connection.execute(
            "INSERT OR IGNORE INTO dataset VALUES (NULL, ?, ?, ?, ?, ?)",
            (row["name"], row["is_open"] == "y", row["is_transient"] == "y", row["time_create"], row["time_update"]),
        )
        number = connection.execute("SELECT id FROM dataset WHERE name = ?", (row["name"],)).fetchone()[0]
        keys = ("name", "files", "bytes", "is_open", "time_create", "time_update")
        connection.executemany(
            "INSERT OR IGNORE INTO block VALUES (NULL, ?, ?, ?, ?, ? = 'y', ?, ?, 0)",
            [(number, *(block[key] for key in keys)) for block in row["block"]],
        )

    def _replicas(self, node: str) -> None:
        number = self._snapshot.node_id(node)
        for row in self._all("blockreplicas", ALL, "block", node=node, create_since=ALWAYS):
            replica = next((each for each in row["replica"] if each["node"] == node), None)
            if replica is None:
                raise Malformed(f"blockreplicas of {node}: {row['name']} without a replica there")
            self._replica(row, replica, number)

    def _replica(self, row: dict[str, Any], replica: dict[str, Any], node: int) -> None:
        """A block that came after its dataset was asked for is left to the next capture: half of it is nothing."""
        connection = self._snapshot.connection
        found = connection.execute("SELECT dataset_id, id FROM block WHERE name = ?", (row["name"],)).fetchone()
        if found is None:
            return
        group = replica["group"]
        if group is not None and not connection.execute("SELECT 1 FROM user_group WHERE name = ?", (group,)).fetchone():
            self._snapshot.add_group(group)
        connection.execute(
            "INSERT OR REPLACE INTO replica VALUES"
            " (?, ?, ?, ?, ?, ? = 'y', ? = 'y', 0, (SELECT id FROM user_group WHERE name = ?), ?, ?)",
            (*found, node, *(replica[key] for key in _REPLICA)),
        )

    def _deletions(self, node: str) -> None:
        number = self._snapshot.node_id(node)
        for dataset in self._all("deletions", ALL, "dataset", node=node):
            self._snapshot.connection.executemany(
                "INSERT OR REPLACE INTO deletion SELECT id, ?, ?, ?, ? FROM block WHERE name = ?",
                [(number, *_deletion(row), block["name"]) for block in dataset["block"] for row in block["deletion"]],
            )

    def _subscriptions(self, node: str) -> None:
        for row in self._phedex.raw("subscriptions", node=node, create_since=ALWAYS)["dataset"]:
            if row.get("subscription"):
                self._snapshot.subscribe_dataset(row["name"], node)

    def _files(self, blocks: list[tuple[str, ...]]) -> None:
        names = [block[0] for block in blocks]
        for dbs in self._phedex.raw("data", block=names, level="file", create_since=ALWAYS)["dbs"]:
            for dataset in dbs["dataset"]:
                for block in dataset["block"]:
                    self._store_files(block)

    def _store_files(self, block: dict[str, Any]) -> None:
        """PhEDEx' own sums of the block stay; a list that does not fit them is refused."""
        if len(block["file"]) != int(block["files"]):
            raise Malformed(f"data of {block['name']}: {len(block['file'])} files listed, {block['files']} counted")
        connection = self._snapshot.connection
        number = connection.execute("SELECT id FROM block WHERE name = ?", (block["name"],)).fetchone()[0]
        connection.executemany(
            "INSERT INTO file VALUES (NULL, ?, ?, ?, ?, ?, (SELECT id FROM node WHERE name = ?), 0)",
            [
                (number, file["lfn"], int(file["size"]), file["checksum"], file["time_create"], file["node"])
                for file in block["file"]
            ],
        )

    def _incomplete(self, replicas: list[tuple[str, ...]]) -> None:
        """Which files are not there: all of the block but those that `filereplicas` lists at the node."""
        for node in sorted({node for _, node in replicas}):
            names = [block for block, at in replicas if at == node]
            for row in self._phedex.raw("filereplicas", node=node, block=names)["block"]:
                self._snapshot.set_replica_files(row["name"], node, [file["name"] for file in row["file"]])


def _deletion(row: dict[str, Any]) -> tuple[int, float, float | None]:
    """Its request, when it was asked for, and when it was done."""
    done = row["time_complete"]
    return int(row["request"]), float(row["time_request"]), None if done is None else float(done)
