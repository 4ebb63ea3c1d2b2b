"""A PhEDEx that changes all the time and remembers since when it has what: the truth to hold removals against."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from common.messages.events import Closed
from datasvc.build import Snapshot

At = tuple[str, str]
Span = tuple[datetime, datetime | None]

_COMPLETE = """SELECT n.name, b.name FROM replica r JOIN node n ON n.id = r.node_id JOIN block b ON b.id = r.block_id
    WHERE b.is_open = 0 AND b.files > 0 AND r.files = b.files"""


class Source:
    """In a snapshot with these nodes and the group DataOps: blocks come, go, move, grow, shrink, lose files, get them
    back, and are forgotten.
    """

    def __init__(self, snapshot: Snapshot, nodes: Sequence[str], rng: random.Random) -> None:
        self.changes = 0
        self.blocks: list[str] = []
        self._snapshot, self._nodes, self._rng = snapshot, nodes, rng
        self._known: set[str] = set()
        self._spans: dict[At, list[Span]] = {}

    def change(self) -> None:
        """One thing is different now."""
        steps = [self._new, self._new, self._come, self._come, self._go, self._move, self._grow, self._shrink]
        steps += [self._incomplete, self._complete, self._forget]
        self._rng.choice(steps)()
        self.changes += 1
        self._note(datetime.now(UTC))

    def rest(self) -> None:
        """Whatever is at a node is whole there: what is whole nowhere keeps its last copies, and has no end."""
        for block in sorted(self._known):
            for node in self._snapshot.nodes_of(block):
                self._all_files(block, node)
        self._note(datetime.now(UTC))

    def wrong(self, closed: Closed) -> list[str]:
        """The blocks that an execution swept although PhEDEx had them complete there all the while it ran."""
        node = closed.key.split()[0]
        begun = closed.at - timedelta(seconds=closed.seconds)
        return [
            f"wrongly removed: {node} {name} at {closed.at:%T}"
            for name in closed.names["swept"]
            if any(since < begun and (until is None or until > closed.at) for since, until in self._of(node, name))
        ]

    def _of(self, node: str, block: str) -> list[Span]:
        return self._spans.get((node, block), [])

    def _note(self, at: datetime) -> None:
        with self._snapshot.transaction() as sql:
            there = set(sql.execute(_COMPLETE).fetchall())
        for key, spans in self._spans.items():
            if spans[-1][1] is None and key not in there:
                spans[-1] = (spans[-1][0], at)
        for key in there:
            spans = self._spans.setdefault(key, [])
            if not spans or spans[-1][1] is not None:
                spans.append((at, None))

    # --- the changes ----------------------------------------------------------------------------------------------

    def _new(self) -> None:
        number = len(self.blocks)
        block = f"/{'PQR'[number % 3]}rimary{number % 7}/Run2018A-v1/AOD#{number}"
        files = [
            (f"/store/data/{number}/{i}.root", 1000 + i, f"adler32:{i + 1:x}") for i in range(self._rng.randint(1, 12))
        ]
        self._snapshot.add_block(block, files)
        for node in self._rng.sample(self._nodes, self._rng.randint(1, 2)):
            self._snapshot.add_replica(block, node, group=self._rng.choice([None, "DataOps"]))
        self.blocks.append(block)
        self._known.add(block)

    def _come(self) -> None:
        for block in self._some():
            absent = [node for node in self._nodes if node not in self._snapshot.nodes_of(block)]
            if absent:
                self._snapshot.add_replica(block, self._rng.choice(absent), group="DataOps")

    def _go(self) -> None:
        for block in self._some():
            nodes = self._snapshot.nodes_of(block)
            if len(nodes) > 1:
                self._snapshot.remove_replica(block, self._rng.choice(nodes))

    def _move(self) -> None:
        for block in self._some():
            nodes = self._snapshot.nodes_of(block)
            absent = [node for node in self._nodes if node not in nodes]
            if nodes and absent:
                self._snapshot.add_replica(block, self._rng.choice(absent), group="DataOps")
                self._snapshot.remove_replica(block, self._rng.choice(nodes))

    def _grow(self) -> None:
        for block in self._some():
            self._snapshot.add_file(block, f"/store/data/grown/{self.changes}.root", 77, "adler32:9")
            for node in self._snapshot.nodes_of(block):
                self._all_files(block, node)

    def _shrink(self) -> None:
        for block in self._some():
            files = self._snapshot.files(block)
            if len(files) > 1:
                self._snapshot.remove_file(self._rng.choice(files).name)

    def _incomplete(self) -> None:
        for block in self._some():
            nodes, files = self._snapshot.nodes_of(block), self._snapshot.files(block)
            if len(nodes) > 1 and len(files) > 1:
                self._snapshot.set_replica_files(block, self._rng.choice(nodes), [file.name for file in files[1:]])

    def _complete(self) -> None:
        for block in self._some():
            for node in self._snapshot.nodes_of(block):
                self._all_files(block, node)

    def _forget(self) -> None:
        for block in self._some():
            if self._rng.random() < 0.3:
                self._snapshot.remove_block(block)
                self._known.discard(block)

    def _all_files(self, block: str, node: str) -> None:
        self._snapshot.set_replica_files(block, node, [file.name for file in self._snapshot.files(block)])

    def _some(self) -> Iterator[str]:
        if self._known:
            yield self._rng.choice(sorted(self._known))
