"""The demo: an empty Rucio is set up for recorded PhEDEx sites and filled, by the program's own commands alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.names import sync_account
from datasvc import recording
from datasvc.serve import running
from tests import checker
from tests.stack import together
from tests.stack.rucio_server import RucioServer

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "phedex_rucio.main"]
DAEMONS = ("judge-evaluator", "judge-cleaner", "abacus-rse", "abacus-account", "abacus-collection-replica")

# What the judge goes by: node → its RSE, and the node whose inventory counts. A tape's RSE stands for the buffer.
SITES = {
    "T1_US_FNAL_Buffer": ("T1_US_FNAL_Tape", "T1_US_FNAL_MSS"),
    "T1_IT_CNAF_Buffer": ("T1_IT_CNAF_Tape", "T1_IT_CNAF_MSS"),
    "T2_CH_CERN": ("T2_CH_CERN", "T2_CH_CERN"),
    "T2_DE_DESY": ("T2_DE_DESY", "T2_DE_DESY"),
}
WORKERS = 2


def main() -> int:
    """0 where everything worked and the final check found no difference. Nothing is left running, whatever happens."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phedex-rucio-demo-")))
        code = _demo(stack, folder)
    say(f"Done in {time.monotonic() - began:.0f} s. Nothing of it runs any more.")
    return code


def _demo(stack: ExitStack, folder: Path) -> int:
    say("Starting a RabbitMQ, a Rucio with PostgreSQL and its daemons, and the PhEDEx snapshot service")
    servers = stack.enter_context(together.servers())
    counts = recording.load(folder / "phedex.sqlite")
    url = stack.enter_context(running(folder / "phedex.sqlite"))
    print(f"PhEDEx of 2016: {counts.replicas} block replicas of {counts.blocks} blocks at {url}")
    for name in DAEMONS:
        servers.rucio.start_daemon(name)
    env = os.environ | servers.rucio.client_environment()
    env |= {"AMQP_URL": servers.amqp_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(ROOT / "scripts/demo.yaml")}
    stack.enter_context(workers(env, folder))
    code = use(env)
    return code or judge(servers.rucio, url)


@contextmanager
def workers(env: dict[str, str], folder: Path) -> Iterator[None]:
    """Some workers run; at the end they are told to stop, and have."""
    with ExitStack() as logs:
        running_now = []
        for number in range(WORKERS):
            log = logs.enter_context((folder / f"worker{number}.log").open("w"))
            running_now.append(subprocess.Popen([*PROGRAM, "worker"], env=env, stderr=log, stdout=log))
        try:
            yield
        finally:
            for worker in running_now:
                worker.terminate()
            codes = [worker.wait() for worker in running_now]
            print(f"workers told to stop, exit codes {codes}")


def use(env: dict[str, str]) -> int:
    """The commands a person would type, with what they print; the first exit code that is not as it should be."""
    nodes = list(SITES)
    steps: list[tuple[Sequence[str], int]] = [
        (["setup", *nodes, "--phedex-links", "--no-sync"], 0),
        (["plan", "T2_CH_CERN"], 3),
        (["sync", "site", "T2_CH_CERN", "--limit", "5", "--reason", "a canary", "--wait"], 0),
        (["sync", "site", *nodes, "--wait"], 0),
        (["sync", "site", *nodes, "--wait"], 0),
        (["plan", "T1_US_FNAL_Buffer"], 0),
    ]
    for arguments, expected in steps:
        say(f"$ phedex-rucio {' '.join(arguments)}")
        code = subprocess.run([*PROGRAM, *arguments], env=env, check=False).returncode
        if code != expected:
            print(f"exit code {code}, expected {expected}")
            return code or 1
    return 0


def judge(rucio: RucioServer, phedex_url: str) -> int:
    """1 and the differences, if an independent reading of Rucio's own tables finds any; else 0."""
    say("Checking Rucio's own tables against the data service, file by file")
    tables = checker.read_tables(rucio.sql)
    sites = {
        node: checker.expected(phedex_url, inventory, rse, sync_account(rse))
        for node, (rse, inventory) in SITES.items()
    }
    found = checker.differences(tables, sites)
    for node, site in sites.items():
        print(f"{node}: {len(site.blocks)} blocks, {sum(map(len, site.blocks.values()))} files")
    print("\n".join(found[:20]) if found else "no difference")
    return 1 if found else 0


def say(text: str) -> None:
    """A step begins."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
