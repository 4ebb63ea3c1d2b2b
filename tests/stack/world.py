"""What does a test find in Rucio to begin with? Sites, set up by the product's own `rse` and `account`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from rucio.client import Client
from rucio.common import config
from rucio.common.exception import Duplicate

from common.messages.setup import Account, Rse, RseOptions
from common.names import sync_account
from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Main, Settings
from consumers import account, rse
from consumers.engine.world import World
from datasvc import invented
from datasvc.build import Snapshot
from datasvc.serve import running

from . import copies
from .rucio_server import RucioServer

RseType = Literal["DISK", "TAPE"]
_THERE = "SELECT 1 FROM rses WHERE rse = %s UNION ALL SELECT 1 FROM accounts WHERE account = %s"
_rows: dict[tuple[str, str, RseType], copies.Rows] = {}


def make_site(rucio: RucioServer, node: str, name: str = "", rse_type: RseType = "DISK") -> str:
    """The node's RSE of type real and its sync account are as the product's handlers make them; the RSE's name.

    `name` is the node's unless given. PhEDEx has a made catalogue of the node (`datasvc.invented`). What the handlers
    write into an empty Rucio is remembered: the next one gets the same rows, which takes no time.
    """
    site = (node, name or node, rse_type)
    if rucio.sql(_THERE, (site[1], sync_account(site[1]))):
        _set_up(rucio, *site)
    elif site in _rows:
        copies.write(rucio, _rows[site])
    else:
        _rows[site] = copies.written_by(rucio, lambda: _set_up(rucio, *site))
    return site[1]


def _set_up(rucio: RucioServer, node: str, name: str, rse_type: RseType) -> None:
    with client_environment(rucio), _phedex(node) as url:
        main = Main(phedex_url=url)
        with Phedex(main) as phedex:
            world = World(phedex, Rucio(main), Settings(main=main), lambda: None)
            rse.handle(Rse(node=node, options=RseOptions(rse=name, rse_type=rse_type)), world)
            account.handle(Account(rse=name), world)
            world.rucio.close()


@contextmanager
def _phedex(node: str) -> Iterator[str]:
    """A PhEDEx that knows the node, its catalogue and its FTS server."""
    with tempfile.TemporaryDirectory() as folder, Snapshot(Path(folder, "phedex.db")) as snapshot:
        snapshot.add_node(node)
        snapshot.add_tfc(node, invented.storage_xml(node))
        snapshot.add_agent_log(node, invented.fts_message(node))
        with running(snapshot.path) as url:
            yield url


def make_account(client: Client, name: str, at: str) -> None:
    """Somebody's account exists, no site's, and may have any number of bytes at the RSE."""
    with suppress(Duplicate):
        client.add_account(name, "USER", "somebody@example.org")
    client.set_local_account_limit(name, at, -1)


@contextmanager
def client_environment(rucio: RucioServer, url: str | None = None) -> Iterator[None]:
    """New clients of this process go to the server (or to `url`). Rucio reads its configuration once a process."""
    before = dict(os.environ)
    os.environ.update(rucio.client_environment(url=url))
    config.clean_cached_config()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        config.clean_cached_config()
