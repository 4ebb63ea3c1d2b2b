"""What is in a snapshot file, and how is it opened?"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from common.errors import UsageError

SCHEMA_VERSION = "1"

# `made` marks what was not recorded but derived. A block with made = 1 has no rows in `file`: its files follow from
# its name, id, count and bytes (see made.py). `absent` lists the files of a block that a replica lacks, so a complete
# replica costs one row. `replica` starts with the dataset: replies are ordered by dataset, then block. Ids of blocks
# are never used twice.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, se TEXT, kind TEXT NOT NULL,
  technology TEXT NOT NULL);
CREATE TABLE user_group (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE dataset (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, is_open INTEGER NOT NULL,
  is_transient INTEGER NOT NULL, time_create REAL NOT NULL, time_update REAL);
CREATE TABLE block (id INTEGER PRIMARY KEY AUTOINCREMENT, dataset_id INTEGER NOT NULL REFERENCES dataset(id),
  name TEXT NOT NULL UNIQUE, files INTEGER NOT NULL, bytes INTEGER NOT NULL, is_open INTEGER NOT NULL,
  time_create REAL NOT NULL, time_update REAL, made INTEGER NOT NULL);
CREATE INDEX block_of_dataset ON block (dataset_id, id);
CREATE INDEX block_made ON block (id) WHERE made = 1;
CREATE TABLE file (id INTEGER PRIMARY KEY, block_id INTEGER NOT NULL REFERENCES block(id), name TEXT NOT NULL UNIQUE,
  bytes INTEGER NOT NULL, checksum TEXT, time_create REAL NOT NULL, node_id INTEGER, made INTEGER NOT NULL);
CREATE INDEX file_of_block ON file (block_id, id);
CREATE TABLE replica (dataset_id INTEGER NOT NULL, block_id INTEGER NOT NULL REFERENCES block(id),
  node_id INTEGER NOT NULL REFERENCES node(id), files INTEGER NOT NULL, bytes INTEGER NOT NULL,
  subscribed INTEGER NOT NULL, custodial INTEGER NOT NULL, active INTEGER NOT NULL,
  group_id INTEGER REFERENCES user_group(id), time_create REAL NOT NULL, time_update REAL NOT NULL,
  PRIMARY KEY (dataset_id, block_id, node_id)) WITHOUT ROWID;
CREATE INDEX replica_at_node ON replica (node_id, dataset_id, block_id);
CREATE TABLE absent (block_id INTEGER NOT NULL, node_id INTEGER NOT NULL, file_id INTEGER NOT NULL,
  PRIMARY KEY (block_id, node_id, file_id)) WITHOUT ROWID;
CREATE TABLE dataset_subscription (dataset_id INTEGER NOT NULL, node_id INTEGER NOT NULL,
  PRIMARY KEY (dataset_id, node_id)) WITHOUT ROWID;
CREATE TABLE tfc_rule (node_id INTEGER NOT NULL REFERENCES node(id), position INTEGER NOT NULL, kind TEXT NOT NULL,
  protocol TEXT NOT NULL, path_match TEXT NOT NULL, result TEXT NOT NULL, chain TEXT, destination_match TEXT,
  is_custodial TEXT, space_token TEXT, made INTEGER NOT NULL, PRIMARY KEY (node_id, position)) WITHOUT ROWID;
CREATE TABLE link (from_id INTEGER NOT NULL, to_id INTEGER NOT NULL, distance INTEGER NOT NULL, status TEXT NOT NULL,
  made INTEGER NOT NULL, PRIMARY KEY (from_id, to_id)) WITHOUT ROWID;
CREATE TABLE agent_log (id INTEGER PRIMARY KEY, node_id INTEGER NOT NULL REFERENCES node(id), agent TEXT NOT NULL,
  host TEXT NOT NULL, user TEXT NOT NULL, pid INTEGER NOT NULL, time REAL, reason TEXT NOT NULL,
  working_dir TEXT NOT NULL, state_dir TEXT NOT NULL, message TEXT NOT NULL, made INTEGER NOT NULL);
"""

# Not in every snapshot: those that were made by earlier versions have it only once they were opened for writing.
DELETIONS = """
CREATE TABLE IF NOT EXISTS deletion (block_id INTEGER NOT NULL REFERENCES block(id),
  node_id INTEGER NOT NULL REFERENCES node(id), request INTEGER NOT NULL, time_request REAL NOT NULL,
  time_complete REAL, PRIMARY KEY (block_id, node_id, request)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deletion_by_request ON deletion (request);
"""


def create(path: Path, instance: str = "prod") -> sqlite3.Connection:
    """A new empty snapshot, open for writing. Raises UsageError where the file exists already."""
    if path.exists():
        raise UsageError(f"snapshot {path} exists: name another file, or remove it first")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript("BEGIN;" + SCHEMA + DELETIONS)
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [("schema", SCHEMA_VERSION), ("instance", instance), ("version", "2.4.0pre1"), ("dbs", DBS)],
    )
    connection.execute("COMMIT")
    return _tuned(connection)


DBS = "https://cmsweb.cern.ch/dbs/prod/global/DBSReader"


def writer(path: Path) -> sqlite3.Connection:
    """An existing snapshot, open for writing, in autocommit: begin and commit by hand. Raises UsageError."""
    connection = _tuned(_opened(path, "mode=rw"))
    if not has_deletions(connection):
        connection.executescript(f"BEGIN IMMEDIATE;{DELETIONS}COMMIT;")
    return connection


def reader(path: Path) -> sqlite3.Connection:
    """An existing snapshot, open for reading, inside one read transaction: all it reads is one state of the file.

    May be handed from thread to thread, used by one at a time. Raises UsageError.
    """
    # A WAL database in a directory that takes no new file can only be read as one that nobody changes.
    mode = "mode=ro" if os.access(path.absolute().parent, os.W_OK) else "mode=ro&immutable=1"
    connection = _opened(path, mode)
    connection.execute("BEGIN")
    return connection


def has_deletions(connection: sqlite3.Connection) -> bool:
    """False for a snapshot of an earlier version, which knows of no deletion."""
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'deletion'").fetchone() is not None


def meta(connection: sqlite3.Connection) -> dict[str, str]:
    """What the snapshot says about itself: schema, instance, version, dbs, and how it was made."""
    return dict(connection.execute("SELECT key, value FROM meta").fetchall())


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{mode}"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path}: not a snapshot that can be opened ({error}): make one with `import`") from error
    if found is None or found[0] != SCHEMA_VERSION:
        raise UsageError(f"{path}: a snapshot of schema {found}, this program reads {SCHEMA_VERSION}: make it anew")
    return connection


def _tuned(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous=NORMAL")  # a snapshot can be made again; WAL keeps it consistent
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA busy_timeout=30000")
    return connection
