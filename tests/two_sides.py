"""A small PhEDEx and an empty Rucio with one or two sites, and a world between them: for tests of the sync."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rucio.client import Client

from common.messages.commands import SyncBlocks
from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Main, Settings, Site
from consumers import sync_blocks
from consumers.engine.result import Result
from consumers.engine.world import World
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.stack.rucio_server import RucioServer
from tests.stack.world import client_environment, make_site

NODE = "T2_IT_Pisa"
OTHER = "T2_CH_CERN"
DATASET = "/Primary/Processed-v1/RAW"


def block(number: int, dataset: str = DATASET) -> str:
    """The name of a block."""
    return f"{dataset}#{number:05}"


def files_of(name: str, count: int = 3) -> list[tuple[str, int, str | None]]:
    """Some files for a block: name, bytes, adler32."""
    stem = name.replace("#", "/").replace("/", "_")
    return [(f"/store/data/{stem}/{n:04}.root", 1000 + n, f"{n:08x}") for n in range(count)]


@dataclass
class TwoSides:
    """Both servers and what to ask them with. `main` is for clients made here."""

    rucio: RucioServer
    snapshot: Snapshot
    main: Main
    root: Client

    def world(self, **options: Any) -> World:
        """New clients, as another thread would have. `site`, `checkpoint`, `main`: in place of the usual ones."""
        main = options.get("main", self.main)
        settings = Settings(main=main, default=options.get("site", Site()))
        phedex = Phedex(main, sleep=lambda _: None)
        return World(phedex, Rucio(main), settings, options.get("checkpoint", lambda: None))

    def sync(self, *names: str, node: str = NODE, world: World | None = None, **fields: Any) -> Result:
        """The batch of these blocks is handled."""
        made = world or self.world()
        try:
            return sync_blocks.handle(SyncBlocks(node=node, blocks=list(names), **fields), made)
        finally:
            close(made)

    def put(self, name: str, files: list[tuple[str, int, str | None]] | None = None, **replica: Any) -> str:
        """A closed block with its files (3 unless given) is at the node in PhEDEx."""
        self.snapshot.add_block(name, files_of(name) if files is None else files)
        self.snapshot.add_replica(name, replica.pop("node", NODE), **replica)
        return name

    def rules(self, name: str) -> list[dict[str, Any]]:
        """The rules of a block, as Rucio's API has them."""
        found = self.root.list_replication_rules({"scope": "cms", "name": name})
        return sorted(found, key=lambda rule: str(rule["id"]))

    def inside(self, name: str) -> set[str]:
        """The names in a block or container."""
        return {row[0] for row in self.rucio.sql("SELECT child_name FROM contents WHERE name = %s", (name,))}

    def replicas(self, rse: str = NODE) -> dict[str, tuple[int, str | None, str]]:
        """Bytes, adler32 and state of the replicas at an RSE."""
        query = "SELECT name, bytes, adler32, state FROM replicas JOIN rses ON rses.id = rse_id WHERE rse = %s"
        return {name: (size, adler, state) for name, size, adler, state in self.rucio.sql(query, (rse,))}

    def transfers(self) -> int:
        """What must be 0 for ever: requests, past requests, and locks and rules that wait for a transfer."""
        (row,) = self.rucio.sql(
            "SELECT (SELECT count(*) FROM requests) + (SELECT count(*) FROM requests_history)"
            " + (SELECT count(*) FROM locks WHERE state <> 'O') + (SELECT count(*) FROM rules WHERE state <> 'O')"
        )
        return int(row[0])


def close(world: World) -> None:
    """The connections of a world's clients are closed."""
    world.phedex.close()
    world.rucio.close()


@contextmanager
def two_sides(rucio: RucioServer, folder: Path, *, url: str | None = None, **main: Any) -> Iterator[TwoSides]:
    """A PhEDEx with two nodes and no blocks, a Rucio with an RSE for each. `url`: Rucio by way of a proxy."""
    root = rucio.client()
    for node in (NODE, OTHER):
        make_site(rucio, node)
    with client_environment(rucio, url), Snapshot(folder / "snapshot.db") as snapshot:
        for node in (NODE, OTHER):
            snapshot.add_node(node)
        with running(snapshot.path) as phedex:
            settings = msgspec.structs.replace(Main(phedex_url=phedex, phedex_instance="prod"), **main)
            yield TwoSides(rucio, snapshot, settings, root)
