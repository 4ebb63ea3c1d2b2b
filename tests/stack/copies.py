"""How is what was made once through Rucio's API made again in no time? By the rows that it left in the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from .rucio_server import DATABASE, RucioServer

Rows = dict[str, list[str]]  # by table, each row as JSON
NOT_THESE = "tokens"  # of a login on the way
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename <> %s ORDER BY 1"


def written_by(rucio: RucioServer, action: Callable[[], object]) -> Rows:
    """The rows that the action adds. AssertionError where it changes others as well: then rows do not tell it all."""
    before = _all_rows(rucio)
    action()
    after = _all_rows(rucio)
    assert not before - after, "rows that were there were changed"
    found: Rows = {}
    for table, row in sorted(after - before):
        found.setdefault(table, []).append(row)
    return found


def write(rucio: RucioServer, rows: Rows) -> None:
    """The rows are there, in whatever order they depend on each other."""
    with _connected(rucio) as connection:
        connection.execute("SET LOCAL session_replication_role = replica")
        for table, group in rows.items():
            into = f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(null::{table}, %s::jsonb)"
            connection.execute(into.encode(), (f"[{','.join(group)}]",))


def _all_rows(rucio: RucioServer) -> set[tuple[str, str]]:
    with _connected(rucio) as connection:
        tables = [str(name) for (name,) in connection.execute(_TABLES, (NOT_THESE,))]
        query = " UNION ALL ".join(f"SELECT '{table}', to_jsonb(t)::text FROM {table} t" for table in tables)
        return {(str(table), str(row)) for table, row in connection.execute(query.encode())}


@contextmanager
def _connected(rucio: RucioServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(host=str(rucio.postgres.folder), user="rucio", dbname=DATABASE) as connection:
        yield connection
