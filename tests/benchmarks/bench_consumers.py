"""Do more consumers do more? Sixteen against one, with 50 ms before every request to Rucio.

    python tests/benchmarks/bench_consumers.py --delay 50 --consumers 1 --consumers 4 --consumers 16

The delay stands for the network and for a Rucio that has its own machines; here it shares ours, so the work is the
smallest that is real: batches of one block that is in sync, looked at on both sides and left alone. Each consumer is a
thread for batches, `--threads` of them in a worker process. Beside it the same requests are sent by as many processes
that do nothing else: what these lose is Rucio's and this machine's, the rest is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).parents[2]))

import tests.conftest as fixtures  # first: it decides where the client's token files lie
from common.broker.connection import blocking
from common.broker.publisher import command_message
from common.broker.topology import COMMANDS, declare
from common.messages.commands import SyncBlocks
from common.messages.meta import Meta
from common.settings.model import Main
from consumers import sync_blocks
from tests.benchmarks import late
from tests.integration.messaging import eventually, publishing
from tests.stack.together import servers
from tests.two_sides import NODE, block, close, two_sides

WORKER = Path(__file__).with_name("measured_worker.py")
BARE = Path(__file__).with_name("bare_requests.py")


class Load:
    """The servers as the environment names them, and the blocks that are in sync on both."""

    def __init__(
        self, main: Main, names: list[str], requests: int, each: int, threads: int, later: dict[str, str]
    ) -> None:
        self.main, self.names, self.requests, self.each, self.threads = main, names, requests, each, threads
        self.env: dict[str, str] = os.environ | {
            "AMQP_URL": main.amqp_url,
            "PHEDEX_URL": main.phedex_url,
            "PHEDEX_RUCIO_LOG_LEVEL": "ERROR",
        }
        self.env |= later


def by_workers(load: Load, consumers: int) -> float:
    """Commands a second of so many consumers, from the first one's begin to the last one's end."""
    number, threads = consumers * load.each, min(load.threads, consumers)
    processes = consumers // threads
    command = [sys.executable, str(WORKER), "sync.blocks", str(threads + 1), "1000000"]  # one is kept for people
    with tempfile.TemporaryFile("w+") as output:
        workers = [subprocess.Popen(command, env=load.env, stdout=output) for _ in range(processes)]
        try:
            _attached(load.main, processes)
            _send(load, number)
            eventually(lambda: len(_lines(output)) == number, "all handled", 600)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        lines = [json.loads(line) for line in _lines(output)]
    return number / (max(line["ended"] for line in lines) - min(line["began"] for line in lines))


def _lines(output: TextIO) -> list[str]:
    """What all workers have written; each line is one write, so they do not mix. (`pread`: they share the position.)"""
    text = os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode()
    return text.splitlines() if text.endswith("\n") else []


def _attached(main: Main, workers: int) -> None:
    """All workers wait for messages."""
    with blocking(main, "benchmark counts") as connection:
        channel = connection.channel()
        eventually(
            lambda: channel.queue_declare("sync.blocks", passive=True).method.consumer_count == workers, "ready", 300
        )


def _send(load: Load, number: int) -> None:
    with publishing(load.main) as publisher:
        publisher.publish(
            command_message(
                SyncBlocks(node=NODE, blocks=[load.names[n % len(load.names)]], meta=Meta(id=f"{n}", cycle="c")),
                COMMANDS,
            )
            for n in range(number)
        )


def by_bare(load: Load, consumers: int) -> float:
    """The same number of small requests to Rucio a command, by as many processes with nothing around them."""
    command = [sys.executable, str(BARE), NODE, str(load.each * load.requests)]
    processes = [subprocess.Popen(command, env=load.env, stdout=subprocess.PIPE, text=True) for _ in range(consumers)]
    spans = [json.loads(process.communicate()[0]) for process in processes]
    return sum(load.each / (end - begin) for begin, end in spans)  # on a busy machine not all begin together


def measure(consumers: list[int], delay: float, each: int, threads: int) -> None:
    """Prints a row for each number of consumers."""
    with ExitStack() as stack:
        both = stack.enter_context(servers())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = stack.enter_context(two_sides(both.rucio, folder, amqp_url=both.amqp_url))
        names = [sides.put(block(n)) for n in range(20)]
        sides.sync(*names)
        world = sides.world()
        result = sync_blocks.handle(SyncBlocks(node=NODE, blocks=names[:1]), world)
        close(world)
        requests = result.counts["rucio_requests"]
        declare(sides.main)
        load = Load(sides.main, names, requests, each, threads, {late.SECONDS: str(delay), late.URL: both.rucio.url})
        print(f"a command: {result.outcome}, {requests} requests to Rucio, each {1000 * delay:.0f} ms late")
        print("consumers  commands/s  efficiency  bare/s  its efficiency  ours of it", flush=True)
        first: tuple[float, float] | None = None
        for number in consumers:
            rate, other = by_workers(load, number), by_bare(load, number)
            first = first or (rate / number, other / number)
            mine, theirs = rate / number / first[0], other / number / first[1]
            print(f"{number:9} {rate:11.2f} {mine:11.2f} {other:7.2f} {theirs:15.2f} {mine / theirs:11.2f}", flush=True)


def main() -> None:
    """Measures what the command line asks for and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--consumers", type=int, action="append", help="repeatable; else 1, 2, 4, 8, 16")
    parser.add_argument("--delay", type=float, default=50, help="milliseconds before every request to Rucio")
    parser.add_argument("--each", type=int, default=40, help="commands for each consumer")
    parser.add_argument("--threads", type=int, default=4, help="consumers in a worker process")
    options = parser.parse_args()
    measure(options.consumers or [1, 2, 4, 8, 16], options.delay / 1000, options.each, options.threads)


__all__ = ["fixtures"]

if __name__ == "__main__":
    main()
