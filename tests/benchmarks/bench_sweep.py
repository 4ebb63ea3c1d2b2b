"""What a sweep costs: requests and seconds for marked blocks whose time of grace is over, and how old a look gets.

    python tests/benchmarks/bench_sweep.py --blocks 100 --files 20

Another checkout is measured in the same run with `--against FOLDER`: its own code, on a Rucio of its own, one after the
other. The blocks are at two sites; the first one lets go of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, os.environ.get("MEASURED") or str(Path(__file__).parents[2]))

import tests.conftest as fixtures  # noqa: F401 -- first: it decides where the client's token files lie
from common.settings.model import Site
from tests.stack.rucio_server import launch
from tests.two_sides import NODE, OTHER, TwoSides, block, close, files_of, two_sides

_LOOK = re.compile(r"look to sending ([\d.]+) s, to answer ([\d.]+) s")


class Looks(logging.Handler):
    """The ages of the looks that the sweep logs: until the delete was sent, and until it was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[float] = []
        self.answered: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := _LOOK.search(record.getMessage()):
            self.sent.append(float(found[1]))
            self.answered.append(float(found[2]))


def measured(blocks: int, files: int) -> dict[str, Any]:
    """Requests and seconds of one sweep of so many blocks, on a new Rucio."""
    with ExitStack() as stack:
        rucio = launch()
        stack.callback(rucio.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = stack.enter_context(two_sides(rucio, folder))
        names = [sides.put(block(n), files_of(block(n), files)) for n in range(blocks)]
        for name in names:
            sides.snapshot.add_replica(name, OTHER)
        for node in (NODE, OTHER):
            assert sides.sync(*names, node=node).counts["added"] == blocks
        for name in names:
            sides.snapshot.remove_replica(name, NODE)
        assert removing(sides, names, 3600)["marked"] == blocks
        looks = Looks()
        logger = logging.getLogger("phedex_rucio.sweep")
        logger.addHandler(looks)
        logger.setLevel(logging.INFO)
        began = time.monotonic()
        counts = removing(sides, names, 0)
        seconds = time.monotonic() - began
        assert (counts["swept"], counts["files_removed"]) == (blocks, blocks * files)
        assert sides.replicas() == {}
        return {
            "blocks": blocks,
            "files": files,
            "seconds": round(seconds, 2),
            "requests": counts["rucio_requests"],
            "requests_a_block": round(counts["rucio_requests"] / blocks, 2),
            "phedex_requests": counts["phedex_requests"],
            "looks": len(looks.sent),
            "look_to_sending": max(looks.sent, default=None),
            "look_to_answer": max(looks.answered, default=None),
        }


def removing(sides: TwoSides, names: list[str], grace: float) -> dict[str, int]:
    """The counts of a removing batch."""
    world = sides.world(site=Site(removal_grace=grace, max_removal_share=1))
    try:
        return sides.sync(*names, world=world, removable_until=datetime.now(UTC) + timedelta(minutes=45)).counts
    finally:
        close(world)


def other(folder: Path, blocks: int, files: int) -> dict[str, Any]:
    """The same with the code of another checkout."""
    env = os.environ | {"MEASURED": str(folder), "PYTHONPATH": str(folder)}
    command = [sys.executable, __file__, "--blocks", str(blocks), "--files", str(files), "--json"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.benchmark
def test_a_sweep_looks_within_its_bound() -> None:
    found = measured(blocks=12, files=5)
    assert found["looks"] == 2  # ten blocks, and two
    assert found["look_to_sending"] < 5
    assert found["requests_a_block"] <= 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--against", type=Path, help="another checkout, measured in the same run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ours = measured(options.blocks, options.files)
    print(json.dumps(ours))
    if options.against:
        theirs = other(options.against, options.blocks, options.files)
        print(json.dumps(theirs))
        ratios = {key: round(ours[key] / theirs[key], 2) for key in ("seconds", "requests")}
        print(f"against {options.against}: {ratios}")


if __name__ == "__main__":
    main()
