"""What does a cycle cost in which nothing is to do? One site, a real Rucio, the snapshot service, a worker.

    python tests/benchmarks/bench_cycle.py --blocks 1000 --blocks 10000 --blocks 100000

The snapshot is generated. One block is synced, its rows in Rucio's database are copied for all others (`filled.py`), so
that Rucio holds what the sync would have made of them. Then `sync.site` is sent, twice, to a worker in a process of
its own; told is the second, for the first also logs in. On a busy machine believe processor seconds, not the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import tests.conftest as fixtures  # first: it decides where the client's token files lie
from common.broker.publisher import command_message
from common.broker.topology import COMMANDS, declare
from common.messages.commands import SyncBlocks, SyncSite
from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Main, Settings
from consumers import sync_blocks
from consumers.engine.world import World
from datasvc.generate import Size, generate, node_names
from datasvc.serve import running
from tests.benchmarks.filled import fill, whole_blocks
from tests.benchmarks.processor import used
from tests.integration.messaging import publishing
from tests.stack.rucio_server import RucioServer
from tests.stack.together import Servers, servers
from tests.stack.world import client_environment, make_site
from tests.two_sides import close

WORKER = Path(__file__).with_name("measured_worker.py")


def prepare(rucio: RucioServer, snapshot: Path, url: str, node: str) -> int:
    """Rucio has all that PhEDEx has complete at the node; how many blocks."""
    make_site(rucio, node)
    template = next(whole_blocks(snapshot, node))[0].name
    main = Main(phedex_url=url)
    world = World(Phedex(main), Rucio(main), Settings(main=main), lambda: None)
    result = sync_blocks.handle(SyncBlocks(node=node, blocks=[template]), world)
    close(world)
    assert result.counts["added"] == 1, result
    return fill(rucio, snapshot, node, template)


def cycles(both: Servers, url: str, node: str, number: int) -> list[dict[str, Any]]:
    """What a worker says of each of some cycles, one after the other."""
    main = Main(amqp_url=both.amqp_url, phedex_url=url)
    declare(main)
    env = os.environ | {"AMQP_URL": both.amqp_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_LOG_LEVEL": "ERROR"}
    command = [sys.executable, str(WORKER), "sync.site", "1", str(number)]
    found = []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as worker, publishing(main) as publisher:
        assert worker.stdout is not None
        for _ in range(number):
            publisher.publish([command_message(SyncSite(node=node), COMMANDS)])
            busy = used(both.rucio)
            found.append({**json.loads(worker.stdout.readline()), "server": -busy})
            found[-1]["server"] += used(both.rucio)
    return found


def measure(both: Servers, blocks: int) -> str:
    """The table row of one size."""
    both.rucio.reset()
    (node,) = node_names(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(client_environment(both.rucio))
        generate(folder / "snapshot.db", Size(nodes=1, blocks=blocks, files=2, replicas=1), seed=1)
        url = stack.enter_context(running(folder / "snapshot.db"))
        made = prepare(both.rucio, folder / "snapshot.db", url, node)
        floor = read_only(url, node)
        first, second = cycles(both, url, node, 2)
    assert second["outcome"] == "in_sync", second
    assert second["counts"]["same"] == made, second
    mine = second["processor"] - first["processor"]
    return (
        f"{blocks:>9,} {made:>9,} {second['asked']['phedex']:>7} {second['asked']['rucio']:>6} "
        f"{second['ended'] - second['began']:>8.1f} {mine:>8.2f} {second['server']:>8.2f} "
        f"{second['memory']:>6.0f} {floor:>8.2f} {mine / floor:>6.2f}"
    )


def read_only(url: str, node: str) -> float:
    """The floor: Rucio's own client reads the same rules, and nothing is done with them. Seconds of processor time."""
    from rucio.client import Client

    client = Client()
    began = time.process_time()
    for _ in client.list_account_rules(f"sync_{node.lower()}"):
        pass
    client.session.close()
    return time.process_time() - began


def main() -> None:
    """Measures the sizes of the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, action="append", help="repeatable; else 1,000 and 10,000")
    options = parser.parse_args()
    print("seconds by the clock, of the worker's processor time, of Rucio's and its database's; most memory of the")
    print("worker in MB; processor time of Rucio's own client for only reading the same rules, and ours in terms of it")
    print("   blocks  in Rucio  PhEDEx  Rucio    clock   worker    Rucio     MB     read  ratio", flush=True)
    with servers() as both:
        for blocks in options.blocks or (1_000, 10_000):
            print(measure(both, blocks), flush=True)


__all__ = ["fixtures"]

if __name__ == "__main__":
    main()
