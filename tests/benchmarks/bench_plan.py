"""What does the plan of a very large site cost? Both readings decoded from the bytes of the wire, compared and cut.

    python tests/benchmarks/bench_plan.py --blocks 1000000

The bytes are invented, in the form of PhEDEx's and Rucio's own replies, and lie in files: no server, no network. The
plan is made in a process of its own, whose greatest memory is what the kernel says. Three cases: all in sync; a tenth
missing, 1 % of the rules out of date and 1 % of the blocks gone; and nothing in Rucio at all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import requests

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.messages import codec
from common.messages.commands import SyncSite
from common.phedex import replies, transport
from common.phedex.client import Phedex
from common.phedex.inventory import CHARACTERS
from common.phedex.replies import BlockReplicas
from common.phedex.trust import Answer, Question
from common.rucio import streamed
from common.rucio.session import Rucio
from common.settings.model import Main, Settings, Site
from consumers import sync_site
from consumers.engine.world import World
from consumers.planning import observe

NODE = "T2_IT_Pisa"
GROUPS = ("AnalysisOps", "DataOps", "FacOps")
TIERS = ("RAW", "AODSIM", "MINIAOD", "GEN-SIM-RECO")
CASES = {"in sync": (0, 0, 0), "mixed": (10, 1, 1), "first": (100, 0, 0)}  # percent missing, out of date, gone


def block(number: int) -> str:
    """A name of the usual length; 100 blocks a dataset, and datasets that begin with every letter alike."""
    dataset = number // 100
    first = CHARACTERS[dataset % 52]
    return (
        f"/{first}Primary_{dataset:06}/Run2018{first.upper()}-PromptReco-v2/{TIERS[dataset % 4]}"
        f"#{number:08x}-1b0c-4d3e-9a77-5c0d1e2f3a4b"
    )


def _group(number: int) -> str:
    return GROUPS[number // 100 % 3]


def phedex_row(number: int) -> bytes:
    """A block of `blockreplicas` as PhEDEx writes it."""
    size = {"files": number % 50 + 1, "bytes": (number % 50 + 1) * 2_500_000_000}
    times = {"time_create": 1500005481.4024, "time_update": 1500009081.4024}
    flags = {"complete": "y", "subscribed": "y", "custodial": "n", "group": _group(number)}
    replica = {"node": NODE, "node_id": "17", "se": "stormfe1.pi.infn.it", **size, **times, **flags}
    return msgspec.json.encode(
        {"id": str(number + 1), "name": block(number), **size, "is_open": "n", "replica": [replica]}
    )


def rucio_row(number: int, *, old: bool) -> bytes:
    """A rule of `list_account_rules` as Rucio 41 writes it; an old one has another group."""
    meta = json.dumps({"phedex_custodial": False, "phedex_group": "" if old else _group(number)})
    at = "Wed, 25 Nov 2026 02:13:48 UTC"
    empty = dict.fromkeys(
        [
            "stuck_at",
            "eol_at",
            "error",
            "deleted_at",
            "subscription_id",
            "source_replica_expression",
            "expires_at",
            "weight",
            "child_rule_id",
            "bytes",
        ]
    )
    off = dict.fromkeys(["locked", "purge_replicas", "split_container", "ignore_account_limit"], False)
    row = {
        "name": block(number),
        "did_type": "DATASET",
        "locks_ok_cnt": number % 50 + 1,
        "state": "OK",
        "locks_replicating_cnt": 0,
        "ignore_availability": True,
        "meta": json.dumps(meta),
        "locks_stuck_cnt": 0,
        "rse_expression": NODE,
        "priority": 3,
        "created_at": at,
        "id": f"{number:032x}",
        "copies": 1,
        "activity": "User Subscriptions",
        "updated_at": at,
        "account": "sync_t2_it_pisa",
        "grouping": "DATASET",
        "comments": "phedex-rucio: as PhEDEx has it",
        "scope": "cms",
        "notification": "NO",
        **empty,
        **off,
    }
    return msgspec.json.encode(row) + b"\n"


def write(folder: Path, blocks: int, case: str) -> None:
    """The rows of PhEDEx by first letter, and the stream of Rucio."""
    missing, old, gone = CASES[case]
    parts = {first: (folder / f"phedex-{first}").open("wb") for first in CHARACTERS[:52]}
    with (folder / "rules").open("wb") as rules:
        for number in range(blocks):
            percent = number % 100
            if percent < 100 - gone:
                part = parts[CHARACTERS[number // 100 % 52]]
                part.write((b"," if part.tell() else b"") + phedex_row(number))
            if percent >= missing:
                rules.write(rucio_row(number, old=percent < missing + old))
    for part in parts.values():
        part.close()


def post(folder: Path) -> Callable[..., Answer]:
    """In place of a POST to PhEDEx: the bytes of its reply, with the time of now."""

    def answer(_session: Any, _url: str, question: Question, **_: Any) -> Answer:
        options = dict(question.options)
        if question.call == "nodes":
            rows = b'"node":[' + msgspec.json.encode({"name": NODE, "kind": "Disk"})
        elif question.call == "data":
            asked = [{"name": value, "bytes": 1_000_000_000} for key, value in question.options if key == "block"]
            rows = b'"dbs":[' + msgspec.json.encode({"dataset": [{"name": "/A/B/C", "block": asked}]})
        else:
            path = folder / f"phedex-{options['dataset'][1]}"
            rows = b'"block":[' + (path.read_bytes() if path.exists() else b"")
        return Answer(200, reply(question.call, rows), time.time(), time.time())

    return answer


def reply(call: str, rows: bytes) -> bytearray:
    """The document around some rows, which is still open."""
    head = f'{{"phedex":{{"instance":"prod","request_call":"{call}","request_timestamp":{time.time()},'
    return bytearray(head.encode() + rows + b'],"call_time":"1.5"}}')


class Fed(Rucio):
    """A door behind which lies a file: the stream of rules is read as it would be from a connection."""

    folder: Path

    def call(self, verb: str, *args: Any, about: str = "", **options: Any) -> Any:
        if verb == "list_rses":
            return iter([{"rse": NODE}])
        if verb == "list_account_rules":
            return streamed.Rows(stream(self.folder / "rules"))
        return {"rse": NODE, "rse_type": "DISK"}


def stream(path: Path) -> requests.Response:
    """A response whose body is a file."""
    response = requests.Response()
    response.raw = path.open("rb")
    return response


class Laps:
    """Seconds of processor time by part, of the thread that does it: both sides are read at once."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def of(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.parts[name] = self.parts.get(name, 0.0) + time.thread_time() - began

        return timed


def plan(folder: Path) -> dict[str, Any]:
    """The plan and its messages are made; what that took."""
    laps = Laps()
    transport.post = post(folder)
    for name in ("read_node", "rules_at", "diff", "_removals", "_plan"):
        setattr(observe, name, laps.of(name.strip("_"), getattr(observe, name)))
    settings = Settings(main=Main(), default=Site(multi_das_calls=True, allow_clean=True))
    rucio = Fed(settings.main)
    rucio.folder = folder
    world = World(Phedex(settings.main), rucio, settings, lambda: None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, busy = time.perf_counter(), time.process_time()
    result = sync_site.handle(SyncSite(node=NODE), world)
    sizes = laps.of("messages", lambda: [len(codec.encode(command)) for command in result.follow])()  # type: ignore[arg-type]
    return {
        "outcome": result.outcome.value,
        "counts": result.counts,
        "messages": len(sizes),
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - busy,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "before": before * 1024 / 1e6,
        "parts": laps.parts,
    }


def decoding(folder: Path) -> dict[str, Any]:
    """The floor: the same bytes, only decoded, with no look at what they say."""
    busy = time.process_time()
    for path in sorted(folder.glob("phedex-*")):
        replies.decode(BlockReplicas, reply("blockreplicas", b'"block":[' + path.read_bytes()))
    decoder = msgspec.json.Decoder()
    with (folder / "rules").open("rb") as lines:
        for line in lines:
            decoder.decode(line)
    return {"processor": time.process_time() - busy}


def measure(folder: Path, what: str) -> dict[str, Any]:
    """What a fresh process says of itself."""
    command = [sys.executable, __file__, "--in", str(folder), "--child", what]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def report(blocks: int, case: str) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, blocks, case)
        size = sum(path.stat().st_size for path in folder.iterdir())
        found, floor = measure(folder, "plan"), measure(folder, "decoding")
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in found["parts"].items())
    return (
        f"{blocks:,} blocks, {case}: {found['seconds']:.1f} s, {found['processor']:.1f} s of processor time, "
        f"{found['memory']:,.0f} MB at most ({found['before']:.0f} before)\n"
        f"    {size / 1e6:,.0f} MB of replies; only decoding them takes {floor['processor']:.1f} s of processor time "
        f"(ratio {found['processor'] / floor['processor']:.2f})\n"
        f"    seconds of processor time: {parts}\n"
        f"    {found['outcome']}, {found['messages']} messages, {found['counts']}"
    )


def main() -> None:
    """Measures with the sizes of the command line and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--case", choices=list(CASES), action="append", help="repeatable; else all")
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=["plan", "decoding"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps({"plan": plan, "decoding": decoding}[options.child](options.folder)))
        return
    for case in options.case or CASES:
        print(report(options.blocks, case), flush=True)


if __name__ == "__main__":
    main()
