"""Any history of additions: after a sync Rucio equals PhEDEx, a second sync writes nothing, nothing is transferred.

PhEDEx is the real snapshot service; Rucio is the model that the contract suite holds to the real server.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.messages.commands import Command, SyncBlocks, SyncSite
from common.outcome import Outcome
from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Main, Settings, Site
from consumers import sync_blocks, sync_site
from consumers.engine.result import Failed, Result
from consumers.engine.world import World
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.model.rucio_model import RucioModel

NODES = ["T2_IT_Pisa", "T2_US_MIT"]
_numbers = itertools.count()


@dataclass
class History:
    """One example: blocks of its own in the shared snapshot, a Rucio of its own, and what should be where."""

    snapshot: Snapshot
    url: str
    number: int = field(default_factory=lambda: next(_numbers))
    rucio: RucioModel = field(default_factory=RucioModel)

    def __post_init__(self) -> None:
        self.rucio.rses = {node: {"cms_type": "real", "pnn": node} for node in NODES}

    @property
    def dataset(self) -> str:
        return f"/Primary{self.number}/Run2018A-v1/AOD"

    def block(self, k: int) -> str:
        return f"{self.dataset}#{k}"

    def world(self) -> World:
        site = Site(chunck=3, batch_blocks=2, batch_files=6)
        main = Main(phedex_url=self.url, rucio_files=3, rucio_dids=2, rucio_rules=2)
        door = Rucio(main)
        door._client = self.rucio
        return World(Phedex(main), door, Settings(main=main, default=site), lambda: None)

    def apply(self, step: tuple[str, int, int]) -> None:
        what, k, size = step
        known = {name for (name,) in self._blocks()}
        if what == "block" and self.block(k) not in known:
            self.snapshot.add_block(self.block(k), [self._file(k, i) for i in range(size)], is_open=size == 4)
        elif what == "replica" and self.block(k) in known and NODES[size % 2] not in self._nodes(k):
            self.snapshot.add_replica(self.block(k), NODES[size % 2], group="DataOps" if size > 2 else None)
        elif what == "grow" and self.block(k) in known:
            self.snapshot.add_file(self.block(k), *self._file(k, 10 + next(_numbers)))
        elif what == "close" and self.block(k) in known:
            self.snapshot.set_open(self.block(k), False)

    def _file(self, k: int, i: int) -> tuple[str, int, str]:
        return f"/store/data/{self.number}/{k}/{i}.root", 100 + i, f"adler32:{i + 1:x}"

    def _blocks(self) -> list[tuple[str]]:
        with self.snapshot.transaction() as sql:
            pattern = (f"{self.dataset}#%",)
            return list(sql.execute("SELECT name FROM block WHERE name LIKE ?", pattern))

    def _nodes(self, k: int) -> list[str]:
        return self.snapshot.nodes_of(self.block(k))


def run(history: History, command: Command, pick: Callable[[int], int]) -> list[Result]:
    """The command and all its children carried out, in any order and some of them twice."""
    results, queue = [], deque([command])
    while queue:
        queue.rotate(pick(len(queue)))
        one = queue.popleft()
        handler = sync_site.handle if isinstance(one, SyncSite) else sync_blocks.handle
        for _ in range(2 if isinstance(one, SyncBlocks) and not pick(5) else 1):
            result = handler(one, history.world())  # type: ignore[arg-type]
            results.append(result)
            queue.extend(child.command if isinstance(child, Failed) else child for child in result.follow)
    return results


def differences(history: History) -> list[str]:
    """What PhEDEx' own snapshot says is complete, against the model's dicts."""
    found = []
    for node in NODES:
        rules = {r.name: r for r in history.rucio.rules.values() if r.account == f"sync_{node.lower()}"}
        complete = dict(_complete(history, node))
        found += [f"{node}: rules {sorted(rules)}"] if rules.keys() != complete.keys() else []
        for name, files in complete.items():
            here = {f for (rse, f), state in history.rucio.replicas.items() if rse == node and state == "A"}
            inside = history.rucio.datasets.get(name)
            found += [] if inside == files <= here else [f"{node}: {name} holds {inside}, PhEDEx {files}"]
            found += [] if name in history.rucio.containers[history.dataset] else [f"{name} not in its container"]
            found += [] if name in rules and rules[name].locks == files else [f"{node}: {name}: locks"]
    return found


def _complete(history: History, node: str) -> Iterator[tuple[str, set[str]]]:
    for (name,) in history._blocks():
        block = history.snapshot.block(name)
        if not block.is_open and node in history.snapshot.nodes_of(name) and block.files:
            yield name, {file.name for file in history.snapshot.files(name)}


@pytest.fixture(scope="module")
def phedex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Snapshot, str]]:
    path: Path = tmp_path_factory.mktemp("phedex") / "world.sqlite"
    with Snapshot(path) as snapshot:
        for node in NODES:
            snapshot.add_node(node)
        for group in ("DataOps",):
            snapshot.add_group(group)
        with running(path) as url:
            yield snapshot, url


steps = st.lists(
    st.tuples(
        st.sampled_from(["block", "replica", "replica", "replica", "grow", "close"]),
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_after_a_sync_rucio_equals_phedex_and_a_second_one_writes_nothing(
    phedex: tuple[Snapshot, str], rounds: list[list[tuple[str, int, int]]], rng: object
) -> None:
    pick: Callable[[int], int] = lambda n: rng.randrange(max(n, 1))  # type: ignore[attr-defined] # noqa: E731
    history = History(*phedex)
    for changes in rounds:
        for step in changes:
            history.apply(step)
        for _ in range(2):  # a file that is to join a block which two sites hold waits for both
            for node in NODES:
                run(history, SyncSite(node=node, dataset=history.dataset), pick)
            history.rucio.judge()
        assert differences(history) == []
        written = history.rucio.writes
        for node in NODES:
            results = run(history, SyncSite(node=node, dataset=history.dataset), pick)
            assert {result.outcome for result in results} <= {Outcome.IN_SYNC}, json.dumps([r.notes for r in results])
        assert history.rucio.writes == written
        assert history.rucio.transfers == 0
