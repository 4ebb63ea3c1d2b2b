"""Any history with removals, two sites at work in any order, some killed: no last copy goes, nothing is torn.

PhEDEx is the real snapshot service; Rucio is the model that the contract suite holds to the real server.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from common.errors import RucioError
from common.messages.commands import SyncBlocks
from common.phedex.client import Phedex
from common.rucio import announcements, session
from common.rucio.session import Counter, Rucio, TooLate
from common.settings.model import Main, Settings, Site
from consumers import sync_blocks
from consumers.apply import sweep
from consumers.engine.world import World
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.model.rucio_model import RucioModel

NODES = ["T2_IT_Pisa", "T2_US_MIT"]
DATASET = "/Primary/Run2018A-v1/AOD"
FILES = 2
BLOCKS = [f"{DATASET}#{k}" for k in range(3)]
ANCHOR = "/Zero/Run2018A-v1/AOD#0"  # always somewhere in PhEDEx: what its lists leave out is believed beside it
Pick = Callable[[int], int]


class Killed(BaseException):
    """The process is gone."""


def files(block: str) -> list[str]:
    return [f"/store/data/{block.rpartition('#')[2]}/{i}.root" for i in range(FILES)]


@dataclass
class Turns:
    """Several workers of which one at a time makes one call to Rucio; which one is `pick`ed."""

    pick: Pick
    changed: threading.Condition = field(default_factory=threading.Condition)
    waiting: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    turn: str = ""

    def wait(self, name: str) -> None:
        with self.changed:
            self.waiting.add(name)
            self._choose()
            self.changed.wait_for(lambda: self.turn == name)
            self.turn = ""
            self.waiting.discard(name)

    def leave(self, name: str) -> None:
        with self.changed:
            self.running.discard(name)
            self._choose()

    def _choose(self) -> None:
        if self.waiting and self.waiting == self.running and not self.turn:
            self.turn = sorted(self.waiting)[self.pick(len(self.waiting))]
            self.changed.notify_all()


@dataclass
class Example:
    """PhEDEx' blocks by node (the files there), the model, and what was ever wrong."""

    snapshot: Snapshot
    url: str
    here: dict[tuple[str, str], int] = field(default_factory=dict)
    gone: dict[tuple[str, str], float] = field(default_factory=dict)
    rucio: RucioModel = field(default_factory=RucioModel)
    wrong: list[str] = field(default_factory=list)
    contained: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rucio.rses = {node: {"cms_type": "real", "pnn": node} for node in NODES}
        for block in BLOCKS:
            for node in self.snapshot.nodes_of(block):
                self.snapshot.remove_replica(block, node, deleted=False)

    def move(self, block: str, node: str, count: int) -> None:
        """The node has so many files of the block; that it was deleted where it has none is on record."""
        self.here[block, node] = count
        if node in self.snapshot.nodes_of(block):
            self.snapshot.remove_replica(block, node, deleted=not count)
            self.gone[block, node] = self.snapshot.now
        if count:
            self.snapshot.add_replica(block, node, files(block)[:count])

    def complete(self, block: str) -> set[str]:
        return {node for node in NODES if self.here.get((block, node)) == FILES}

    def known(self) -> set[str]:
        """The files that PhEDEx has somewhere, or whose block it has."""
        return {f for b in BLOCKS if any(self.here.get((b, node)) for node in NODES) for f in files(b)}

    def world(self, call: Callable[[Callable[[], Any]], Any]) -> World:
        main = Main(phedex_url=self.url, rucio_files=3, rucio_dids=2, rucio_rules=2, nowhere_apart=0)
        site = Site(removal_grace=0, max_removal_share=1, hold_nowhere=False, hold_unknown=False)
        door = Rucio(main)
        door._client = _Watched(self, call, door.counter)
        return World(Phedex(main), door, Settings(main=main, default=site), lambda: None)

    def an_hour_later(self) -> None:
        """What was announced has expired."""
        for attributes in self.rucio.rses.values():
            for key in [key for key in attributes if key.startswith(announcements.PREFIX)]:
                value = json.loads(attributes[key])
                attributes[key] = json.dumps(value | {"at": value["at"] - 3_700}, separators=(",", ":"))

    def is_proven(self, block: str) -> bool:
        """False where a rule was made after the block had gone from its node: nothing tells of a deletion after that.

        A block that is nowhere then waits for a person.
        """
        made = [(rule.rse, rule.created_at) for rule in self.rucio.rules.values() if rule.name == block]
        return all(
            at and self.gone.get((block, node), 0) >= int(at.replace(tzinfo=UTC).timestamp()) for node, at in made
        )


class _Watched:
    """The model, called by way of `call`; after each call no file is lost that PhEDEx has.

    What is sent too late is not sent, as the door's own transport does it.
    """

    def __init__(self, example: Example, call: Callable[[Callable[[], Any]], Any], counter: Counter) -> None:
        self.example, self.call, self.counter = example, call, counter

    def __getattr__(self, verb: str) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            return self.call(lambda: self._checked(verb, args, options))

        return called

    def _checked(self, verb: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        rucio = self.example.rucio
        if self.counter.send_by is not None and session.clock() > self.counter.send_by:
            raise TooLate(sent=False)
        self.counter.sent_at = session.clock()
        before = {name for _, name in rucio.replicas}
        result = getattr(rucio, verb)(*args, **options)
        lost = (before - {name for _, name in rucio.replicas}) & self.example.known()
        self.example.contained |= rucio.containers.get(DATASET, set())
        self.example.wrong += [f"{verb} took the last copy of {name}" for name in sorted(lost)]
        return list(result) if isinstance(result, Iterator) else result


def together(example: Example, pick: Pick, deaths: dict[str, int]) -> None:
    """Both nodes' batches at once, call by call in any order; a node dies at its so-manieth write."""
    turns = Turns(pick, running=set(NODES))
    until = datetime.now(UTC) + timedelta(hours=1)

    def work(node: str) -> None:
        left = deaths.get(node, 1_000_000)

        def call(action: Callable[[], Any]) -> Any:
            nonlocal left
            if left <= 0:
                raise Killed  # the dead take nothing back
            turns.wait(node)
            written = example.rucio.writes
            result = action()
            left -= example.rucio.writes - written
            if left <= 0:
                raise Killed
            return result

        world = example.world(call)
        try:
            sync_blocks.handle(SyncBlocks(node=node, blocks=BLOCKS, removable_until=until, controls=[ANCHOR]), world)
        except (RucioError, Killed):
            pass
        except Exception as error:
            example.wrong.append(repr(error))
            raise
        finally:
            turns.leave(node)
            world.phedex.close()

    threads = [threading.Thread(target=work, args=(node,)) for node in NODES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def torn(example: Example) -> set[str]:
    """The blocks that were in their container and are not any more."""
    return example.contained - example.rucio.containers.get(DATASET, set())


def differences(example: Example) -> list[str]:
    """What a quiet world still has wrong: rules too many are right only for what no other place can take."""
    found = []
    for node in NODES:
        ruled = {rule.name for rule in example.rucio.rules.values() if rule.rse == node}
        for block in BLOCKS:
            should, somewhere = node in example.complete(block), any(example.here.get((block, n)) for n in NODES)
            if should and block not in ruled:
                found.append(f"{node}: {block} has no rule")
            gone = not somewhere and example.is_proven(block)
            if not should and block in ruled and (example.complete(block) or gone):
                found.append(f"{node}: {block} should be gone")
            if should and not {(node, file) for file in files(block)} <= example.rucio.replicas.keys():
                found.append(f"{node}: {block} lacks replicas")
    return found


@pytest.fixture(scope="module")
def phedex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Snapshot, str]]:
    path: Path = tmp_path_factory.mktemp("phedex") / "world.sqlite"
    with Snapshot(path) as snapshot:
        for node in NODES:
            snapshot.add_node(node)
        for block in BLOCKS:
            snapshot.add_block(block, [(name, 100, "adler32:1") for name in files(block)])
        snapshot.add_block(ANCHOR, [("/store/data/zero.root", 1, "adler32:1")])
        for node in NODES:
            snapshot.add_replica(ANCHOR, node)
        with running(path) as url:
            yield snapshot, url


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps that met take turns here: neither has to wait for the other's."""
    monkeypatch.setattr(sweep, "PAUSE", 0)


moves = st.lists(
    st.tuples(st.sampled_from(BLOCKS), st.sampled_from(NODES), st.sampled_from([0, 0, 0, 1, 1, FILES])),
    min_size=1,
    max_size=6,
)
deaths = st.dictionaries(st.sampled_from(NODES), st.integers(1, 12), max_size=2)


# Both sites deleted the last copies of one block at once, which tore it out of its container; one died before it mended
# that, and whoever came next had nothing left to delete.
TORN = [
    (
        [
            *((BLOCKS[1], NODES[0], 0), (BLOCKS[1], NODES[1], 0), (BLOCKS[2], NODES[1], 0)),
            *((BLOCKS[0], NODES[1], 0), (BLOCKS[2], NODES[0], 0)),
        ],
        {NODES[1]: 9},
        False,
    )
]


# A run that found something is shown as it was: to make it smaller would take minutes of threads taking turns.
@pytest.mark.timeout(1200)  # threads take turns over a real snapshot service
@settings(
    max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(st.lists(st.tuples(moves, deaths, st.booleans()), min_size=1, max_size=3), st.integers(0, 1_000_000))
@example(TORN, 855)
def test_no_last_copy_goes_and_a_quiet_world_is_right(
    phedex: tuple[Snapshot, str], rounds: list[tuple[list[tuple[str, str, int]], dict[str, int], bool]], seed: int
) -> None:
    pick = random.Random(seed).randrange  # not Hypothesis' own, which belongs to the thread of the test
    example = Example(*phedex)
    for block in BLOCKS:
        for node in NODES:
            example.move(block, node, FILES)
    for _ in range(2):
        together(example, pick, {})
    example.rucio.judge()
    for changes, died, judged in rounds:
        for change in changes:
            example.move(*change)
        together(example, pick, died)
        if judged:
            example.rucio.judge()
            example.an_hour_later()
        assert example.wrong == []
    example.an_hour_later()
    for _ in range(5):
        together(example, pick, {})
        example.rucio.judge()
    assert example.wrong == []
    assert differences(example) == []
    assert torn(example) == set()
    assert example.rucio.transfers == 0
    assert example.rucio.locks_without_replica() == set()
