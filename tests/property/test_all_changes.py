"""All that PhEDEx does, with faults between: nothing wrong is removed, no last copy goes, and in the end all is equal.

PhEDEx is the real snapshot service and really misbehaves; Rucio is the model that the contract suite holds to the real
server. Messages are doubled, late and reordered, their permissions run out, and workers die at any write.
"""

from __future__ import annotations

import json
import random
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from common.errors import PhedexRucioError
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.outcome import Outcome
from common.phedex.client import Phedex
from common.rucio import announcements, session
from common.rucio.session import Counter, Rucio, TooLate
from common.settings.model import Main, Settings, Site
from consumers import sync_blocks, sync_site
from consumers.engine.result import Failed, Result
from consumers.engine.world import World
from datasvc.build import Snapshot
from datasvc.serve import running
from scripts.changing import Source
from tests.model.rucio_model import RucioModel

NODES = ["T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY"]
ANCHOR = "/Zero/Run2018A-v1/AOD#0"  # always at every node: a list that is empty is then a lie, and held
LIES: tuple[str, ...] = (
    "truncated",
    "torn",
    "no_call_time",
    "error_document",
    "other_rows",
    "other_instance",
    "other_call",
    "stale",
)
LIES += ("status", "login")
TRIES = 3
tried: Tally[str] = Tally()


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Truth:
    """What PhEDEx has now: at each node the complete blocks, and the files that are anywhere."""

    complete: dict[str, dict[str, set[str]]]
    somewhere: set[str]

    def files_at(self, node: str) -> set[str]:
        return set().union(*self.complete[node].values())


@dataclass
class Story:
    """One example: a PhEDEx that begins anew, a Rucio of its own, and what was ever wrong."""

    snapshot: Snapshot
    url: str
    faults: Path
    rng: random.Random
    policy: Site
    rucio: RucioModel = field(default_factory=RucioModel)
    late: list[Command] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for block in blocks_of(self.snapshot):
            self.snapshot.remove_block(block)
        self.rucio.rses = {node: {"cms_type": "real", "pnn": node} for node in NODES}
        self.source = Source(self.snapshot, NODES, self.rng)
        self.snapshot.add_block(ANCHOR, [("/store/data/zero.root", 1, "adler32:1")])
        for node in NODES:
            self.snapshot.add_replica(ANCHOR, node)
        self.faults.write_text("[]")
        self.truth = truth_of(self.snapshot)
        self.main = Main(
            phedex_url=self.url,
            rucio_files=3,
            rucio_dids=2,
            rucio_rules=2,
            phedex_tries=1,
            phedex_blocks=4,
            nowhere_apart=0,
        )
        self.phedex = Phedex(self.main, sleep=lambda _: None)

    def change(self, number: int) -> None:
        for _ in range(number):
            self.source.change()
        tried["changes of PhEDEx"] += number
        self.truth = truth_of(self.snapshot)

    def lie(self) -> None:
        """PhEDEx misbehaves from now on: in one call or all, for one node or a part of the names, or once."""
        kind = self.rng.choice([*LIES, "empty"])
        entry: dict[str, object] = {
            "call": self.rng.choice(["*", "blockreplicas", "blockreplicas", "filereplicas", "data"])
        }
        entry |= {"kind": kind, "match": self.rng.choice(["", "", "node=T2_US_MIT", "dataset=/P", "block="])}
        if kind == "empty":  # a lie that only a whole site's reading shows: batches are asked the truth
            entry |= {"call": "blockreplicas", "match": "dataset=/"}
        if self.rng.random() < 0.5:
            entry["count"] = self.rng.randint(1, 3)
        self.faults.write_text(json.dumps([entry]))
        tried[f"PhEDEx: {kind}"] += 1

    def world(self, dies_after: int | None = None) -> World:
        door = Rucio(self.main)
        door._client = _Watched(self, dies_after, door.counter)
        return World(self.phedex, door, Settings(main=self.main, default=self.policy), lambda: None)

    def an_hour_later(self) -> None:
        """What was announced has expired."""
        for attributes in self.rucio.rses.values():
            for key in [key for key in attributes if key.startswith(announcements.PREFIX)]:
                value = json.loads(attributes[key])
                attributes[key] = json.dumps(value | {"at": value["at"] - 3_700}, separators=(",", ":"))

    def prove(self) -> None:
        """What is nowhere was deleted wherever a rule holds it: one that was made after that would ask for a person."""
        known = set(blocks_of(self.snapshot))
        for rule in self.rucio.rules.values():
            if rule.name in known and not self.snapshot.nodes_of(rule.name):
                at = self.snapshot.now  # once: what is done before it was asked for is not done
                self.snapshot.add_deletion(rule.name, rule.rse, requested=at, completed=at)


class _Watched:
    """The model; before and after each call it is compared with the truth, and at a given write the process dies."""

    def __init__(self, story: Story, dies_after: int | None, counter: Counter) -> None:
        self.story, self.left, self.counter = story, dies_after, counter

    def __getattr__(self, verb: str) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            if self.left is not None and self.left <= 0:
                raise Killed  # the dead take nothing back
            if self.counter.send_by is not None and session.clock() > self.counter.send_by:
                raise TooLate(sent=False)
            self.counter.sent_at = session.clock()
            rucio, written = self.story.rucio, self.story.rucio.writes
            before = {name for _, name in rucio.replicas}
            self._check(verb, args)
            result = getattr(rucio, verb)(*args, **options)
            lost = (before - {name for _, name in rucio.replicas}) & self.story.truth.somewhere
            self.story.wrong += [f"{verb} took the last copy of {name}" for name in sorted(lost)]
            if self.left is not None and rucio.writes > written:
                self.left -= 1
                if self.left <= 0:
                    raise Killed
            return list(result) if isinstance(result, Iterator) else result

        return called

    def _check(self, verb: str, args: tuple[Any, ...]) -> None:
        story = self.story
        if verb == "delete_replicas":
            there = {file["name"] for file in args[1]} & story.truth.files_at(args[0])
            story.wrong += [f"{args[0]}: {name} is there, and was deleted" for name in sorted(there)]
        if verb == "update_replication_rule" and args[1].get("lifetime", None) is not None:
            rule = story.rucio.rules[args[0]]
            if rule.name in story.truth.complete[rule.rse]:
                story.wrong.append(f"{rule.rse}: the rule of {rule.name} ended, and the block is there")


def blocks_of(snapshot: Snapshot) -> list[str]:
    with snapshot.transaction() as sql:
        return [name for (name,) in sql.execute("SELECT name FROM block")]


def truth_of(snapshot: Snapshot) -> Truth:
    complete: dict[str, dict[str, set[str]]] = {node: {} for node in NODES}
    somewhere: set[str] = set()
    for block in blocks_of(snapshot):
        files = {file.name for file in snapshot.files(block)}
        for node in snapshot.nodes_of(block):
            here = set(snapshot.files_at(block, node))
            somewhere |= here
            if here == files and files and not snapshot.block(block).is_open:
                complete[node][block] = files
    return Truth(complete, somewhere)


def run(story: Story, commands: list[Command], *, faults: bool) -> list[Result]:
    """The commands and all that follows from them, in any order; with faults some twice, late, cut, or given up."""
    rng, results = story.rng, []
    queue: deque[tuple[Command, int]] = deque((command, 1) for command in commands)
    while queue:
        queue.rotate(rng.randrange(len(queue)))
        command, attempt = queue.popleft()
        if faults and rng.random() < 0.1:
            story.late.append(aged(rng, command))
            tried["messages late"] += 1
        if faults and rng.random() < 0.1 and len(queue) < 30:
            queue.append((command, attempt))
            tried["messages doubled"] += 1
        try:
            result = handled(story, command, rng.randint(1, 8) if faults and rng.random() < 0.3 else None)
        except Killed:
            tried["workers killed"] += 1
            queue.append((command, attempt))  # the broker delivers it again
            continue
        except PhedexRucioError:
            if not faults:
                raise
            tried["attempts failed"] += 1
            if attempt < TRIES:
                queue.append((command, attempt + 1))
            continue
        results.append(result)
        children = [child.command if isinstance(child, Failed) else child for child in result.follow]
        queue += [(child, 1) for child in children]
        if faults and rng.random() < 0.1:  # died after it had published and before it acknowledged
            queue.append((command, attempt))
    return results


def handled(story: Story, command: Command, dies_after: int | None) -> Result:
    handler: Any = sync_site.handle if isinstance(command, SyncSite) else sync_blocks.handle
    result: Result = handler(command, story.world(dies_after))
    tried["blocks swept"] += len(result.names.get("swept", []))
    return Result(result.outcome, names=result.names, notes=result.notes, follow=list(result.follow))


def aged(rng: random.Random, command: Command) -> Command:
    """A message that comes much later: its permission may have run out meanwhile."""
    if isinstance(command, SyncBlocks) and command.removable_until and rng.random() < 0.5:
        return replace(command, removable_until=datetime.now(UTC) - timedelta(minutes=1))
    return command


def cycle(story: Story, *, faults: bool, **fields: Any) -> list[Result]:
    late, story.late = story.late, []
    return run(story, [*(SyncSite(node=node, **fields) for node in NODES), *late], faults=faults)


def differences(story: Story) -> list[str]:
    """Every way in which the model differs from what PhEDEx has complete."""
    found, rucio = [], story.rucio
    for node, complete in story.truth.complete.items():
        rules = {rule.name: rule for rule in rucio.rules.values() if rule.rse == node}
        found += [f"{node}: rules {sorted(rules.keys() ^ complete.keys())}"] if rules.keys() != complete.keys() else []
        here = {file for (rse, file), state in rucio.replicas.items() if rse == node and state == "A"}
        files = story.truth.files_at(node)
        found += [f"{node}: replicas differ in {sorted(here ^ files)}"] if here != files else []
        for name, inside in complete.items():
            dataset = name.partition("#")[0]
            found += [] if rucio.datasets.get(name) == inside else [f"{name} holds {rucio.datasets.get(name)}"]
            found += [] if name in rucio.containers.get(dataset, ()) else [f"{name} is not in its container"]
            found += [] if name in rules and rules[name].locks == inside else [f"{node}: {name}: locks"]
    return found


@pytest.fixture(scope="module")
def phedex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Snapshot, str, Path]]:
    folder = tmp_path_factory.mktemp("phedex")
    faults = folder / "faults.json"
    faults.write_text("[]")
    with Snapshot(folder / "world.sqlite") as snapshot, running(folder / "world.sqlite", faults) as url:
        snapshot.add_group("DataOps")
        for node in NODES:
            snapshot.add_node(node)
        yield snapshot, url, faults
    print("\nall changes:", ", ".join(f"{number} {what}" for what, number in sorted(tried.items())))


rounds = st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6)


# A block moved and lost files meanwhile: its last copies stayed where it was, and where it came the lost files kept it
# from a rule. Each waited for the other.
MOVED_AND_SHRUNK = [
    *((6, False, True, True), (3, True, False, True), (4, False, True, False)),
    *((2, True, False, True), (5, True, True, True), (5, False, False, True)),
]


# What is found is shown as it was: to make it smaller would take minutes of a real snapshot service.
@pytest.mark.timeout(1200)
@settings(
    max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(rounds, st.booleans(), st.integers(0, 1_000_000))
@example(MOVED_AND_SHRUNK, False, 346546)
@example([(5, True, False, False)], True, 508243)
def test_whatever_phedex_does_and_whatever_breaks(
    phedex: tuple[Snapshot, str, Path], rounds: list[tuple[int, bool, bool, bool]], split: bool, seed: int
) -> None:
    policy = Site(
        chunck=3,
        batch_blocks=2,
        batch_files=12,
        removal_grace=0,
        max_removal_share=1,
        hold_custodial=False,
        hold_nowhere=False,
        hold_unknown=False,
    )
    story = Story(*phedex, random.Random(seed), replace(policy, multi_das_calls=split and seed % 3 == 0))
    tried["histories"] += 1
    for number, lies, deep, judged in [(8, False, False, True), *rounds]:
        story.change(number)
        if lies:
            story.lie()
        cycle(story, faults=True, deep=deep)
        if judged:
            story.rucio.judge()
            story.an_hour_later()
        story.faults.write_text("[]")
        assert story.wrong == []
    for block in blocks_of(story.snapshot):
        for node in story.snapshot.nodes_of(block):  # what is complete nowhere has no end state but its last copies
            story.snapshot.set_replica_files(block, node, [file.name for file in story.snapshot.files(block)])
    story.change(0)
    story.an_hour_later()
    for _ in range(8):
        story.prove()
        written = story.rucio.writes
        cycle(story, faults=False, deep=True)
        story.rucio.judge()
        if story.rucio.writes == written and not differences(story):
            break
    assert story.wrong == []
    assert differences(story) == []
    assert story.rucio.tombstones == set()
    written = story.rucio.writes
    results = cycle(story, faults=False)
    assert {result.outcome for result in results} <= {Outcome.IN_SYNC}, [result.notes for result in results]
    assert (story.rucio.writes, story.rucio.transfers) == (written, 0)
    story.phedex.close()


def in_sync(phedex: tuple[Snapshot, str, Path], block: str, *, files: int) -> Story:
    """A story whose one block, of so many files, is at the first node on both sides."""
    story = Story(
        *phedex,
        random.Random(1),
        Site(removal_grace=0, max_removal_share=1, hold_unknown=False, hold_custodial=False, hold_nowhere=False),
    )
    story.snapshot.add_block(block, [(f"/store/data/{n}.root", 10 + n, "adler32:1") for n in range(files)])
    story.snapshot.add_replica(block, NODES[0])
    story.truth = truth_of(story.snapshot)
    cycle(story, faults=False)
    assert differences(story) == []
    return story


def test_a_block_that_moves_and_grows_comes_to_rest(phedex: tuple[Snapshot, str, Path]) -> None:
    """Where it came a file waits to join it until the site that it left has let go, which waits for a rule there."""
    block, (here, there, _) = "/Primary1/Run2018A-v1/AOD#1", NODES
    story = in_sync(phedex, block, files=3)
    story.snapshot.add_replica(block, there)
    story.snapshot.add_file(block, "/store/data/new.root", 99, "adler32:1", nodes=[there])
    story.snapshot.remove_replica(block, here)
    story.truth = truth_of(story.snapshot)
    for _ in range(4):
        cycle(story, faults=False)
        story.rucio.judge()
    assert (differences(story), story.wrong, story.rucio.transfers) == ([], [], 0)
    story.phedex.close()


def test_a_large_block_that_leaves_while_it_is_attached_leaves_nothing_behind(
    phedex: tuple[Snapshot, str, Path],
) -> None:
    """More files than one request holds. Rucio has it from elsewhere, so a part of it could not get a rule."""
    block, (_, there, _) = "/Primary1/Run2018A-v1/AOD#1", NODES
    story = in_sync(phedex, block, files=8)
    story.snapshot.add_replica(block, there)
    command = SyncBlocks(node=there, blocks=[block])
    with pytest.raises(Killed):
        handled(story, command, 1)
    story.snapshot.remove_replica(block, there)
    story.truth = truth_of(story.snapshot)
    handled(story, command, None)
    for _ in range(3):
        cycle(story, faults=False)
        story.rucio.judge()
    assert (differences(story), story.wrong, story.rucio.transfers) == ([], [], 0)
    story.phedex.close()
