"""How do recorded tables and storage.xml files become a snapshot?"""

from __future__ import annotations

import csv
import gzip
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

from common.errors import UsageError
from datasvc import invented
from datasvc.build import Snapshot, fresh
from datasvc.hosts import host_in
from datasvc.made import ID_STRIDE

RECORDED = Path(__file__).parent / "recorded"

# Storage hosts of the recorded replies of `blockreplicas` (2009, 2011) and `filereplicas` (2009).
RECORDED_HOSTS = {
    "T1_IT_CNAF": "storm-fe-cms.cr.cnaf.infn.it",
    "T1_US_FNAL": "cmssrm.fnal.gov",
    "T1_UK_RAL": "srm-cms.gridpp.rl.ac.uk",
}


class Counts(msgspec.Struct, frozen=True):
    """How many of each were imported."""

    nodes: int
    datasets: int
    blocks: int
    replicas: int
    catalogues: int


def load(output: Path, tables: Path | None = None, catalogues: Path | None = None) -> Counts:
    """A new snapshot of the recorded tables, with the packaged ones by default.

    Names, ids, counts, bytes and times are as recorded, also those that break CMS' naming. File lists were not
    recorded: they are made, adding up to each block's count and bytes. Links, agents and the catalogues of nodes
    without a storage.xml are made too; all made rows are marked. Raises UsageError.
    """
    folder = tables or RECORDED / "tables"
    with fresh(output) as snapshot:
        connection = snapshot.connection
        connection.execute("INSERT INTO meta VALUES ('made_from', ?)", ("recorded tables of PhEDEx",))
        nodes = _rows(folder, "nodes_*.csv*")
        connection.executemany("INSERT INTO node VALUES (:id, :name, NULL, :kind, :technology)", nodes)
        connection.executemany("INSERT INTO user_group VALUES (:id, :name)", _rows(folder, "groups_*.csv*"))
        blocks, replicas, datasets = _load_replicas(connection, _rows(folder, "block_replicas_*.csv*"))
        names = [str(row["name"]) for row in nodes]
        recorded = add_catalogues(snapshot, names, catalogues or RECORDED / "tfc")
        add_invented(snapshot, names)
    return Counts(len(names), datasets, blocks, replicas, recorded)


def add_catalogues(snapshot: Snapshot, nodes: Iterable[str], folder: Path) -> int:
    """Each node has a catalogue: that of its site's storage.xml, else a made one. Returns how many were recorded."""
    by_site = {path.name.removesuffix(".storage.xml"): path for path in sorted(folder.glob("*.storage.xml"))}
    recorded = 0
    for node in nodes:
        site = invented.site_of(node)
        path = by_site.get(node) or by_site.get(site) or by_site.get(site.partition("_")[2])
        recorded += path is not None
        snapshot.add_tfc(node, path.read_bytes() if path else invented.storage_xml(node), made=path is None)
        host = RECORDED_HOSTS.get(site) or _srm_host(snapshot.connection, node)
        snapshot.connection.execute("UPDATE node SET se = ? WHERE name = ?", (host, node))
    return recorded


def add_invented(snapshot: Snapshot, nodes: Iterable[str]) -> None:
    """Links between the nodes in use, and one agent's log for each of them; marked as made."""
    live = [node for node in nodes if not invented.is_retired(node)]
    numbers = {node: snapshot.node_id(node) for node in live}
    snapshot.connection.executemany(
        "INSERT INTO link VALUES (?, ?, ?, ?, 1)",
        [(numbers[k.source], numbers[k.sink], k.distance, k.status) for k in invented.links(live)],
    )
    for node in live:
        host = invented.host_of(node).replace("se.", "phedex.", 1)
        snapshot.add_agent_log(node, invented.fts_message(node), host=host, made=True)


def _srm_host(connection: sqlite3.Connection, node: str) -> str | None:
    rows = connection.execute(
        "SELECT result FROM tfc_rule JOIN node n ON n.id = node_id WHERE n.name = ? AND tfc_rule.kind = 'lfn-to-pfn'"
        " AND protocol = 'srmv2' ORDER BY position",
        (node,),
    )
    return next((host for (result,) in rows if (host := host_in(result))), None)


def _rows(folder: Path, pattern: str) -> list[dict[str, str | None]]:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UsageError(f"{folder}: {len(found)} files match {pattern}, wanted one")
    raw = found[0].read_bytes()
    text = gzip.decompress(raw) if found[0].suffix == ".gz" else raw
    lines = csv.DictReader(text.decode().splitlines())
    return [{key: None if value == "null" else value for key, value in row.items()} for row in lines]


def _load_replicas(connection: sqlite3.Connection, rows: list[dict[str, str | None]]) -> tuple[int, int, int]:
    datasets = {row["dataset_id"]: row for row in rows}
    blocks = {row["block_id"]: row for row in rows}
    connection.executemany(
        "INSERT INTO dataset VALUES (:dataset_id, :dataset_name, :dataset_is_open = 'y', 0, :dataset_time_create,"
        " :dataset_time_update)",
        datasets.values(),
    )
    connection.executemany(
        "INSERT INTO block VALUES (:block_id, :dataset_id, :block_name, :block_files, :block_bytes,"
        " :block_is_open = 'y', :block_time_create, :block_time_update, 1)",
        blocks.values(),
    )
    connection.executemany(
        "INSERT INTO replica VALUES (:dataset_id, :block_id, :node_id, :node_files, :node_bytes,"
        " CAST(:dest_files AS INTEGER) <> 0, :is_custodial = 'y', :is_active = 'y', :user_group,"
        " :replica_time_create, :replica_time_update)",
        rows,
    )
    _load_absent(connection, rows)
    return len(blocks), len(rows), len(datasets)


def _load_absent(connection: sqlite3.Connection, rows: list[dict[str, str | None]]) -> None:
    """Of an incomplete replica the last files of the block are absent; its bytes stay as recorded."""
    for row in rows:
        block, node, whole, there = (int(row[k] or 0) for k in ("block_id", "node_id", "block_files", "node_files"))
        connection.executemany(
            "INSERT INTO absent VALUES (?, ?, ?)",
            [(block, node, block * ID_STRIDE + position) for position in range(there, whole)],
        )
