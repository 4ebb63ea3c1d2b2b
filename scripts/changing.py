"""A PhEDEx that changes all the time and remembers since when it has what: the truth to hold removals against."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from common.messages.events import Closed
from datasvc.build import Snapshot

CUSTODIAL = 0.06  # of all replicas: these leave only where a person approves

At = tuple[str, str]
Span = tuple[datetime, datetime | None]

_COMPLETE = """SELECT n.name, b.name FROM replica r JOIN node n ON n.id = r.node_id JOIN block b ON b.id = r.block_id
    WHERE b.is_open = 0 AND b.files > 0 AND r.files = b.files"""


class Source:
    """In a snapshot with these nodes and the group DataOps: blocks come, go, move (alone and with their whole dataset),
    grow, shrink, lose files, get them back, and are forgotten. `with_person`: also what may need a person before it
    leaves Rucio: custodial replicas, and blocks that are deleted everywhere.
    """

    def __init__(
        self, snapshot: Snapshot, nodes: Sequence[str], rng: random.Random, *, with_person: bool = True
    ) -> None:
        self.changes = 0
        self.with_person = with_person
        self.blocks: list[str] = []
        self._snapshot, self._nodes, self._rng = snapshot, nodes, rng
        self._known: set[str] = set()
        self._left: list[At] = []
        self._spans: dict[At, list[Span]] = {}

    def change(self) -> None:
        """One thing is different now."""
        steps = [self._new, self._new, self._come, self._come, self._go, self._move, self._grow, self._shrink]
        steps += [self._incomplete, self._complete, self._forget, self._move_dataset]
        steps += [self._vanish] if self.with_person else []
        self._rng.choice(steps)()
        self.changes += 1
        self._note(datetime.now(UTC))

    def leave(self) -> None:
        """Something leaves a site, and stays elsewhere; or it comes back to where it left a moment ago."""
        self._rng.choice([self._go, self._move, self._move, self._return])()
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
            group, custodial = self._rng.choice([None, "DataOps"]), self.with_person and self._rng.random() < CUSTODIAL
            self._snapshot.add_replica(block, node, group=group, custodial=custodial)
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
                node = self._rng.choice(nodes)
                self._snapshot.remove_replica(block, node)
                self._left.append((block, node))

    def _move(self) -> None:
        for block in self._some():
            nodes = self._snapshot.nodes_of(block)
            absent = [node for node in self._nodes if node not in nodes]
            if nodes and absent:
                self._moved(block, self._rng.choice(nodes), self._rng.choice(absent))

    def _moved(self, block: str, here: str, there: str) -> None:
        self._snapshot.add_replica(block, there, group="DataOps")
        self._snapshot.remove_replica(block, here)
        self._left.append((block, here))

    def _move_dataset(self) -> None:
        """All that a node has of a dataset is at another node, or both had it already."""
        for chosen in self._some():
            here, there = self._rng.sample(list(self._nodes), 2)
            for block in sorted(self._known):
                if block.partition("#")[0] == chosen.partition("#")[0] and here in self._snapshot.nodes_of(block):
                    self._moved(block, here, there)

    def _return(self) -> None:
        """What left a site is there again, and gone from another that has it."""
        for block, node in self._left[-5:][:1]:
            nodes = self._snapshot.nodes_of(block) if block in self._known else [node]
            if node not in nodes and nodes:
                self._moved(block, self._rng.choice(nodes), node)

    def _vanish(self) -> None:
        """A block is deleted at all nodes; PhEDEx still knows it."""
        for block in self._some():
            if self._rng.random() < 0.5:
                for node in self._snapshot.nodes_of(block):
                    self._snapshot.remove_replica(block, node)

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
