"""A small world in which several actors take turns by a given order, call by call, with a clock of its own.

Rucio is the model that the contract suite holds to the real server, PhEDEx a few dicts that a test holds to the real
snapshot service. One actor runs at a time; an order says how many calls each makes before the next one's turn, and for
how long nothing happens in between.
"""

from __future__ import annotations

import itertools
import math
import pickle
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from common.messages import meta
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.meta import Meta
from common.names import dataset_of
from common.phedex import trust
from common.phedex.replies import Node
from common.phedex.rows import Figures, Listing
from common.rucio import announcements, inventory, session, undo
from common.rucio.session import Counter, Rucio, TooLate
from common.settings.model import Main, Settings, Site
from common.sync.catalogue import BlockAtNode, File
from common.sync.selection import like
from common.sync.whereabouts import Deletion, Whereabouts
from consumers import sync_blocks, sync_site
from consumers.apply import sweep
from consumers.engine.result import Failed, Result
from consumers.engine.world import World
from consumers.planning import observe
from tests.model.rucio_model import RucioModel

A, B, C = NODES = ["T2_IT_Pisa", "T2_US_MIT", "T2_DE_DESY"]
DATASET = "/Primary/Run2018A-v1/AOD"
BLOCK = f"{DATASET}#1"
OTHER = "/Primary/Run2018A-v1/RAW#2"
ANCHOR = "/Zero/Run2018A-v1/AOD#0"  # whole at every node
GRACE = 60
CALL = 0.01  # seconds that a call takes
BEGIN = 1_800_000_000.0
SITE = Site(removal_grace=GRACE, max_removal_share=1, hold_nowhere=False, hold_unknown=False)
WRITES = ("add_", "attach_", "update_", "delete_", "detach_", "change")
PHEDEX = {
    "blocks_at",
    "files_at",
    "whereabouts",
    "replicas_of",
    "sizes_of",
    "known_blocks",
    "known_files",
    "nodes_with_files",
    "deletions_of",
    "subscribed",
}
PHEDEX |= {"check_node", "change"}
MAIN = Main(nowhere_apart=0, phedex_tries=1)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Clock:
    """The time of day and of spans, for all; it goes on with each call, and when a test says so."""

    at: float = BEGIN
    stage: Stage | None = None

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def time(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        """The others go on meanwhile."""
        self.at += seconds
        if self.stage is not None:
            name = threading.current_thread().name
            self.stage.trace.append((name, "sleep"))
            self.stage.step(name, sleeps=True)


def everywhere(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """All of the sync, and the model, go by this clock."""
    ours = (("now", meta.now, clock.now), ("clock", session.clock, clock.time))
    for module in list(sys.modules.values()):
        for name, own, other in ours:
            if getattr(module, "__dict__", {}).get(name) is own:
                patch.setattr(module, name, other)
    patch.setattr(observe, "ThreadPoolExecutor", _AtOnce)  # a thread takes longer than all that it would do
    for user in (sweep, undo, inventory):
        patch.setattr(user, "time", SimpleNamespace(time=clock.time, sleep=clock.sleep))
    patch.setattr(RucioModel, "now", lambda _: clock.now().replace(tzinfo=None))


class _AtOnce:
    """In place of a pool of threads: what is submitted is done."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _AtOnce:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> SimpleNamespace:
        result = work(*args)
        return SimpleNamespace(result=lambda: result)


# --- PhEDEx -------------------------------------------------------------------------------------------------------


@dataclass
class Memory:
    """What PhEDEx says, by the methods of the client: the files of each block, and those at each node."""

    files: dict[str, dict[str, File]] = field(default_factory=dict)
    here: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    deleted: dict[str, dict[str, float]] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    requests = 0

    def add(self, block: str, names: Iterable[str], *nodes: str) -> None:
        self.files[block] = {name: File(name, 100, "00000001") for name in names}
        self.here[block] = {}
        for node in nodes:
            self.place(block, node)

    def place(self, block: str, node: str, names: Iterable[str] | None = None) -> None:
        self.here[block][node] = set(self.files[block] if names is None else names)

    def remove(self, block: str, node: str) -> None:
        del self.here[block][node]
        self.deleted.setdefault(block, {})[node] = self.clock.at

    def invalidate(self, block: str, name: str) -> None:
        del self.files[block][name]
        for names in self.here[block].values():
            names.discard(name)

    def complete(self, block: str) -> set[str]:
        files = self.files[block].keys()
        return {node for node, names in self.here[block].items() if names == files}

    def somewhere(self) -> set[str]:
        return {name for places in self.here.values() for names in places.values() for name in names}

    def nodes(self) -> dict[str, Node]:
        return {name: Node(name, kind="Disk") for name in NODES}

    def check_node(self, node: str) -> None:
        assert node in NODES, node

    def _at(self, block: str, node: str) -> BlockAtNode:
        files = self.files[block]
        here = len(self.here[block][node])
        return BlockAtNode(len(files), 100 * len(files), here, here == len(files), False)

    def blocks_at(self, node: str, blocks: Iterable[str]) -> dict[str, BlockAtNode]:
        return {name: self._at(name, node) for name in blocks if node in self.here.get(name, {})}

    def block_replicas_at(self, node: str, pattern: str) -> Listing:
        wanted = filter(like(pattern), self.here)
        return Listing({name: self._at(name, node) for name in wanted if node in self.here[name]}, [], self.clock.now())

    def files_at(
        self, node: str, blocks: Iterable[str], figures: Mapping[str, Figures] | None = None
    ) -> tuple[dict[str, list[File]], dict[str, Exception]]:
        there = {name: name in self.here and node in self.complete(name) for name in blocks}
        found = {name: list(self.files[name].values()) for name, is_here in there.items() if is_here}
        return found, {name: trust.FilesMissing(name) for name, is_here in there.items() if not is_here}

    def whereabouts(self, blocks: Iterable[str], controls: Iterable[str] = ()) -> dict[str, Whereabouts]:
        controlled = any(self.here.get(name) for name in controls)
        return {name: self._where(name, controlled) for name in blocks}

    def _where(self, name: str, controlled: bool) -> Whereabouts:
        places = self.here.get(name, {})
        if not places:
            return Whereabouts(controlled=controlled, as_of=self.clock.now())
        complete, some = self.complete(name), {node for node, names in places.items() if names}
        number = len(self.files[name])
        return Whereabouts(
            files=number,
            bytes=100 * number,
            complete=frozenset(complete),
            partial=frozenset(some - complete),
            meant=frozenset(places.keys() - some - complete),
            listed=True,
            controlled=True,
            as_of=self.clock.now(),
        )

    def replicas_of(self, blocks: Iterable[str]) -> dict[str, dict[str, bool]]:
        return {
            name: {node: node in one.complete for node in sorted(one.complete | one.partial)}
            for name, one in self.whereabouts(blocks).items()
        }

    def sizes_of(self, blocks: Iterable[str]) -> dict[str, int]:
        return {name: 100 * len(self.files[name]) for name in blocks if name in self.files}

    def known_blocks(self, blocks: Iterable[str]) -> set[str]:
        return set(self.sizes_of(blocks))

    def known_files(self, files: Iterable[str], controls: Mapping[str, str]) -> dict[str, str]:
        where = {name: block for block, inside in self.files.items() for name in inside}
        if any(where.get(name) != block for name, block in controls.items()):
            raise trust.ControlMissing("a control")
        return {name: where[name] for name in files if name in where}

    def nodes_with_files(self, blocks: Iterable[str]) -> dict[str, frozenset[str]]:
        return {name: frozenset(n for n, files in self.here.get(name, {}).items() if files) for name in blocks}

    def deletions_of(self, blocks: Iterable[str]) -> dict[str, dict[str, Deletion]]:
        return {
            name: {
                node: Deletion(datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(at, UTC))
                for node, at in self.deleted.get(name, {}).items()
            }
            for name in blocks
        }

    def subscribed(self, blocks: Iterable[str]) -> dict[str, frozenset[str]]:
        return {name: frozenset(self.here.get(name, {})) for name in blocks}

    def change(self, block: str, to: str, away: str = "") -> None:
        """The block moves: a call like any other."""
        self.place(block, to)
        if away:
            self.remove(block, away)


# --- turns --------------------------------------------------------------------------------------------------------

TO_ITS_END = math.inf  # or until it waits for something
# Whose turn it is, for how many calls, and how many seconds nothing happens after them.
Piece = tuple[str, float] | tuple[str, float, float]


@dataclass
class Stage:
    """Actors of whom one at a time goes on; when the order is used up each goes on until it ends or waits."""

    clock: Clock
    names: list[str]
    order: list[Piece]
    trace: list[tuple[str, ...]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    _left: float = 0

    def __post_init__(self) -> None:
        self.order = list(self.order)
        self.gates = {name: threading.Semaphore(0) for name in self.names}
        self._left = self.order[0][1] if self.order else 0

    def begin(self) -> str:
        return self.order[0][0] if self.order else self.names[0]

    def step(self, name: str, *, sleeps: bool = False) -> None:
        """Returns when it is the actor's turn for one more call."""
        while True:
            turn = self._turn(name, sleeps=sleeps)
            if turn == name:
                self.clock.at += CALL
                return
            sleeps = False
            self.gates[turn].release()
            if not self.gates[name].acquire(timeout=60):
                raise AssertionError("nobody goes on")

    def _turn(self, name: str, *, sleeps: bool) -> str:
        while self.order:
            who = self.order[0][0]
            waits = sleeps and who == name and self._left == TO_ITS_END
            if who not in self.gone and self._left > 0 and not waits:
                self._left -= who == name
                return who
            self._next()
        others = [one for one in self.names if one not in self.gone and one != name]
        return others[0] if others and (sleeps or name in self.gone) else name

    def _next(self) -> None:
        piece = self.order.pop(0)
        self.clock.at += piece[2] if len(piece) > 2 else 0
        self._left = self.order[0][1] if self.order else 0

    def leave(self, name: str) -> None:
        self.gone.add(name)
        turn = self._turn(name, sleeps=False)
        if turn != name:
            self.gates[turn].release()


@dataclass
class Played:
    """What came of the actors: what each returned or raised, and every call."""

    results: dict[str, Any]
    errors: dict[str, BaseException]
    trace: list[tuple[str, ...]]

    def calls(self, name: str) -> list[str]:
        """The verbs of an actor, in order."""
        return [one[1] for one in self.trace if one[0] == name]


@dataclass
class Fault:
    """What befalls an actor at its `at`-th call (from 0): it is killed before it, or a delete gets no answer.

    `what`: `killed`, `unsent` (no answer, never done), `unheard` (done, no answer), `under way` (done
    later, by `carry_out`).
    """

    at: int
    what: str = "killed"
    made: int = 0
    dead: bool = False
    late: Callable[[], object] | None = None

    def carry_out(self) -> bool:
        """The request that was under way is carried out; False where none is."""
        late, self.late = self.late, None
        return late is not None and bool(late())

    def befalls(self) -> bool:
        self.made += 1
        return self.made > self.at


@dataclass
class Scene:
    """Both sides, the clock, and what was ever wrong."""

    clock: Clock
    phedex: Memory
    rucio: RucioModel = field(default_factory=RucioModel)
    main: Main = MAIN
    site: Site = SITE
    wrong: list[str] = field(default_factory=list)
    rested: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rucio.rses = {node: {"cms_type": "real", "pnn": node} for node in NODES}

    def saved(self) -> bytes:
        return pickle.dumps((self.clock.at, self.phedex.files, self.phedex.here, self.phedex.deleted, self.rucio))

    def load(self, saved: bytes) -> None:
        self.clock.at, self.phedex.files, self.phedex.here, self.phedex.deleted, self.rucio = pickle.loads(saved)
        self.wrong = []

    def world(self, name: str = "", stage: Stage | None = None, fault: Fault | None = None) -> World:
        door = Rucio(self.main)
        door._client = _Turning(self, self.rucio, name, stage, fault, door.counter)
        phedex: Any = _Turning(self, self.phedex, name, stage, fault, None)
        return World(phedex, door, Settings(main=self.main, default=self.site), lambda: None)

    # --- what happens

    def play(
        self,
        actors: Mapping[str, Callable[[World], Any]],
        order: Iterable[Piece],
        faults: Mapping[str, Fault] | None = None,
    ) -> Played:
        """The actors do their work, in this order; what one raises is no concern of the others."""
        stage = Stage(self.clock, list(actors), list(order))
        played = Played({}, {}, stage.trace)

        def work(name: str) -> None:
            if not stage.gates[name].acquire(timeout=60):
                raise AssertionError("nobody goes on")
            try:
                played.results[name] = actors[name](self.world(name, stage, (faults or {}).get(name)))
            except BaseException as error:  # noqa: BLE001 -- told by the main thread
                played.errors[name] = error
            finally:
                stage.leave(name)

        threads = [threading.Thread(target=work, args=(name,), name=name, daemon=True) for name in actors]
        self.clock.stage = stage
        for thread in threads:
            thread.start()
        stage.gates[stage.begin()].release()
        for thread in threads:
            thread.join()
        self.clock.stage = None
        for error in played.errors.values():
            if not isinstance(error, Killed | requests.RequestException) and not hasattr(error, "verdict"):
                raise error
        return played

    def wait(self, seconds: float) -> None:
        self.clock.at += seconds

    def batch(self, node: str) -> Callable[[World], Result]:
        """A batch of a plan that was made now: it may remove."""

        def work(world: World) -> Result:
            until = self.clock.now() + timedelta(minutes=30)
            command = SyncBlocks(
                node=node,
                blocks=[BLOCK],
                removable_until=until,
                files_until=until,
                controls=[ANCHOR],
                meta=Meta(cycle="cycle"),
            )
            return sync_blocks.handle(command, world)

        return work

    def cycle(self, nodes: Iterable[str] = NODES) -> list[Result]:
        """A plan of each node and all that follows from it, one after the other."""
        results = []
        queue: list[Command] = [SyncSite(node=node, meta=Meta(cycle="cycle")) for node in nodes]
        while queue:
            command = queue.pop(0)
            handler: Any = sync_site.handle if isinstance(command, SyncSite) else sync_blocks.handle
            result = handler(command, self.world())
            follow = list(result.follow)
            results.append(result)
            self.wrong += [str(child.error) for child in follow if isinstance(child, Failed)]
            queue += [child for child in follow if not isinstance(child, Failed)]
        return results

    def rest(self, rounds: int = 8) -> None:
        """Cycles, Rucio's daemons and time go on until nothing is written for longer than an announcement lasts."""
        quiet = 0
        for _ in range(rounds):
            written = self.rucio.writes
            for seconds in (GRACE + 1, 4_000):
                self.cycle()
                self.rucio.judge()
                self.wait(seconds)
            # What is announced may be over by now, and somebody's turn.
            quiet = quiet + 1 if self.rucio.writes == written else 0
            if quiet > bool(self.announced()):
                return
        self.wrong.append("it does not come to rest")

    def unsettled(self) -> list[str]:
        """What differs once all is at rest. An end that is like an earlier one but for its times is not tried again."""
        shape = self._shape()
        if shape in self.rested:
            return list(self.wrong)
        self.rest()
        found = self.differences()
        self.rested |= set() if found else {shape}
        return found

    def _shape(self) -> str:
        """All that both sides have, without times: what was written is by its words, ages are those of one order."""
        rucio, phedex = self.rucio, self.phedex
        rules = [
            (
                one.name,
                one.account,
                one.expression,
                one.state,
                one.ends,
                one.meta,
                one.comment,
                one.locked,
                sorted((file, sorted(locks.items())) for file, locks in one.held.items()),
                sorted(one.datasets),
            )
            for one in rucio.rules.values()
        ]
        parts = (sorted(map(repr, rules)), sorted(rucio.replicas.items()), sorted(rucio.tombstones), rucio.transfers,
                 sorted((name, sorted(inside)) for name, inside in {**rucio.datasets, **rucio.containers}.items()),
                 sorted(rucio.lock_counts.items()), sorted(rucio.fresh), sorted(rucio.changed),
                 sorted((rse, sorted(map(str, values.values()))) for rse, values in rucio.rses.items()),
                 sorted((block, sorted((node, sorted(names)) for node, names in places.items()))
                        for block, places in phedex.here.items()),
                 sorted((block, sorted(files)) for block, files in phedex.files.items()),
                 sorted((block, sorted(nodes)) for block, nodes in phedex.deleted.items()))  # fmt: skip
        return re.sub(r"1[0-9]{9}(?:\.[0-9]+)?", "time", repr(parts))

    def sweep_another(self) -> None:
        """Another block comes to all of the sites and goes: a sweep takes away what was announced there and is over."""
        self.phedex.add(OTHER, ["/store/data/other.root"], *NODES)
        self.cycle()
        for node in NODES:
            self.phedex.remove(OTHER, node)
        self.rest()
        assert not any(self.ours(node, OTHER) for node in NODES)

    # --- what holds

    def ours(self, node: str, block: str = BLOCK) -> list[Any]:
        """The rules of the sync on the block at the node that stand."""
        account = f"sync_{node.lower()}"
        rules = self.rucio.rules.values()
        return [one for one in rules if (one.account, one.name) == (account, block) and not one.ends]

    def whole(self, node: str, block: str = BLOCK) -> bool:
        """True where each file of the block is AVAILABLE at the node."""
        inside = self.rucio.datasets.get(block, set())
        return bool(inside) and all(self.rucio.replicas.get((node, name)) == "A" for name in inside)

    def announced(self) -> list[tuple[str, str]]:
        return [
            (rse, key) for rse, own in self.rucio.rses.items() for key in own if key.startswith(announcements.PREFIX)
        ]

    def differences(self, *, but: Collection[str] = ()) -> list[str]:
        """What both sides do not agree about; `but`: nodes where a person keeps what PhEDEx has not."""
        if self.announced():
            self.sweep_another()
        found = [*self.wrong, *(f"announced at {rse}: {key}" for rse, key in self.announced())]
        for block, places in self.phedex.here.items():
            complete = self.phedex.complete(block) if places else set()
            for node in NODES:
                ruled, there = self.ours(node, block), self.whole(node, block)
                if node in complete and not (len(ruled) == 1 and there):
                    found.append(f"{block} is not whole at {node}: {len(ruled)} rules, replicas {there}")
                if node not in complete and node not in but and ruled:
                    found.append(f"{block} is at {node} still")
            inside = self.rucio.datasets.get(block, set())
            if complete and inside != self.phedex.files[block].keys():
                found.append(f"{block} has {sorted(inside)}")
            if complete and block not in self.rucio.containers.get(dataset_of(block), set()):
                found.append(f"{block} is in its container no more")
        found += [f"lock without replica: {lock}" for lock in sorted(self.our_empty_locks())]
        found += [f"tombstone: {one}" for one in sorted(self.rucio.tombstones)]
        found += [f"{self.rucio.transfers} transfers"] if self.rucio.transfers else []
        stray = {(rse, file) for rse, file in self.rucio.replicas if not self._is_held(rse, file)}
        return found + [f"nothing leads to the replica {one}" for one in sorted(stray)]

    def our_empty_locks(self) -> set[tuple[str, str]]:
        empty = self.rucio.locks_without_replica()
        return {(rse, file) for rule, rse, file in empty if self.rucio.rules[rule].account.startswith("sync_")}

    def _is_held(self, rse: str, file: str) -> bool:
        return any((rse, file) in rule.replicas() for rule in self.rucio.rules.values())


class _Turning:
    """One side of an actor's world: each call waits for the actor's turn, and may be the last that it makes."""

    def __init__(
        self, scene: Scene, side: Any, name: str, stage: Stage | None, fault: Fault | None, counter: Counter | None
    ) -> None:
        self.__dict__ |= {"scene": scene, "side": side, "name": name, "stage": stage, "fault": fault}
        self.__dict__ |= {"counter": counter, "requests": 0, "seconds": 0.0}

    def __getattr__(self, verb: str) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            if self.stage is not None:
                self.stage.step(self.name)
                self.stage.trace.append((self.name, verb, *map(str, args)))
            return self._befallen(verb, lambda: self._made(verb, args, options))

        return called

    def _befallen(self, verb: str, action: Callable[[], Any]) -> Any:
        fault = self.fault
        if fault is None:
            return action()
        if fault.what == "killed":
            if fault.dead or fault.befalls():
                fault.dead = True
                raise Killed
            return action()
        if verb != "delete_replicas" or not fault.befalls():
            return action()
        fault.at = 1_000_000
        if fault.what == "unheard":
            action()
        elif fault.what == "under way":
            fault.late = action
        raise requests.ReadTimeout("no answer")

    def _made(self, verb: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        scene, rucio = self.scene, self.scene.rucio
        if self.counter is not None:
            if self.counter.send_by is not None and scene.clock.at > self.counter.send_by:
                raise TooLate(sent=False)
            self.counter.sent_at = scene.clock.at
        if verb != "delete_replicas":
            result = getattr(self.side, verb)(*args, **options)
            return list(result) if isinstance(result, Iterator) else result
        if len(args[1]) > scene.main.sweep_files:
            scene.wrong.append(f"{len(args[1])} files in one request to delete")
        before = {file for _, file in rucio.replicas}
        result = rucio.delete_replicas(*args, **options)
        lost = (before - {file for _, file in rucio.replicas}) & scene.phedex.somewhere()
        scene.wrong += [f"the last copy of {file} went" for file in sorted(lost)]
        return result


def change(world: World, to: str, away: str = "") -> None:
    """The block comes to a node in PhEDEx, and leaves another: a call like any other."""
    phedex: Any = world.phedex
    phedex.change(BLOCK, to, away)


def orders_of(first: str, second: str, run: Callable[[list[Piece]], Played]) -> int:
    """All orders in which one of two actors is interrupted once by a part of the other's work; how many were run.

    Of each: the one makes k calls, the other m, then the one ends, then the other. Left out is one that differs from
    another only in which of two calls came first that have nothing to do with each other.
    """
    number = 0
    for one, other in ((first, second), (second, first)):
        before: list[Played] = []
        for k in itertools.count():
            row: list[Played] = []
            for m in itertools.count():
                if m < len(before) and _is_same(before[m], (one, k), (other, m)):
                    row.append(before[m])
                else:
                    row.append(run([(one, k), (other, m), (one, TO_ITS_END)]))
                    number += 1
                if len(row[-1].calls(one)) <= k or len(row[-1].calls(other)) <= m:
                    break
            if len(row[0].calls(one)) <= k:
                break
            before = row
    return number


def _is_same(played: Played, one: tuple[str, int], other: tuple[str, int]) -> bool:
    """True where the one's k-th call could as well be made after the other's l calls: it was, in this order."""
    calls, others = played.calls(one[0]), played.calls(other[0])[: other[1]]
    return len(calls) >= one[1] and not any(_meet(calls[one[1] - 1], each) for each in others)


def _meet(one: str, other: str) -> bool:
    """False for two calls of which neither can change what the other finds."""
    writes = [verb.startswith(WRITES) for verb in (one, other)]
    same_side = (one in PHEDEX) == (other in PHEDEX)
    return any(writes) and (same_side or all(writes))


def pauses_of(one: str, other: str, run: Callable[[list[Piece]], Played], pause: float) -> int:
    """All orders in which the one stands still for so many seconds, in which the other does all its work."""
    for k in itertools.count():
        if len(run([(one, k, pause), (other, TO_ITS_END), (one, TO_ITS_END)]).calls(one)) <= k:
            return k + 1
    raise AssertionError
