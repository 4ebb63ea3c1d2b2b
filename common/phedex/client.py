"""What does PhEDEx say? Its read calls, with every reply checked before it is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import msgspec
import tenacity
from msgspec.structs import replace

from common.errors import PhedexUnreachable, UnknownNode, Untrusted
from common.names import dataset_of, full_pattern, is_node
from common.phedex import one_block, requested, rows, transport, trust
from common.phedex.replies import (
    CALLS,
    BlockReplicas,
    BlocksInFull,
    Data,
    Deletions,
    Envelope,
    FileReplicas,
    Node,
    Nodes,
    Subscriptions,
)
from common.phedex.rows import Figures, Listing
from common.phedex.transport import PhedexBusy, ReplyTooLarge
from common.phedex.trust import Answer, Freshness, Question
from common.settings.model import Main
from common.sync.catalogue import BlockAtNode, File
from common.sync.one_block import InPhedex, Listed
from common.sync.selection import like
from common.sync.whereabouts import Deletion, Whereabouts
from common.telemetry import metrics

NODES_KEPT = 300.0  # seconds that the list of nodes is used again
# What PhEDEx lets be cached for longer than block replicas; an Envelope is what is asked as plain data.
HOUR = 3600.0
AGES: dict[type[Envelope], float] = {Nodes: 12 * HOUR, Envelope: 12 * HOUR, Deletions: HOUR}
NO_BLOCK = "/Probe/Probe-v1/PROBE#probe"

R = TypeVar("R", bound=Envelope)

for _each in Untrusted.__subclasses__():
    metrics.UNTRUSTED.labels(_each.__name__)  # at zero from the start


class Phedex:
    """A client of the data service for one thread, with one connection. Close it, or use it as a context manager.

    Every method may raise PhedexUnreachable, PhedexStatus, PhedexBadRequest, ReplyTooLarge and the Untrusted of
    `common.phedex.trust`, after `phedex_tries` tries where another try may help. `sleep` waits between tries.
    `requests` and `seconds` count what was asked and how long that took. Making one raises UsageError for a missing
    certificate file.
    """

    def __init__(self, main: Main, sleep: Callable[[float], None] = time.sleep) -> None:
        self.requests = 0
        self.seconds = 0.0
        self._main = main
        self._session = transport.session(main)
        self._nodes: dict[str, Node] = {}
        self._nodes_at = -NODES_KEPT
        self._retrying = tenacity.Retrying(
            sleep=sleep,
            reraise=True,
            wait=tenacity.wait_exponential(multiplier=0.5, max=10) + tenacity.wait_random(0, 1),
            stop=tenacity.stop_after_attempt(main.phedex_tries) | tenacity.stop_after_delay(main.phedex_timeout),
            retry=tenacity.retry_if_exception_type((PhedexUnreachable, PhedexBusy, *trust.TRANSPORT)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The connection is closed."""
        self._session.close()

    def probe(self) -> None:
        """PhEDEx answered a small question of the kind that all work needs, at the first try; raises if not."""
        self._once(BlockReplicas, self._question(BlockReplicas, block=NO_BLOCK))

    def nodes(self) -> dict[str, Node]:
        """All nodes by name, at most some minutes old."""
        if time.monotonic() - self._nodes_at >= NODES_KEPT:
            self._read_nodes()
        return self._nodes

    def _read_nodes(self) -> None:
        question = self._question(Nodes)
        self._nodes = rows.nodes(question, self._ask(Nodes, question))
        self._nodes_at = time.monotonic()

    def check_node(self, node: str) -> None:
        """PhEDEx knows the node: an unknown one would answer "no blocks", which looks like a node that lost all.

        Raises UnknownNode, but never from an old list of nodes.
        """
        if node in self.nodes():
            return
        self._read_nodes()
        if node not in self._nodes:
            raise UnknownNode(f"PhEDEx instance {self._main.phedex_instance} has no node {node}: look at its name")

    def block_replicas_at(self, node: str, pattern: str) -> Listing:
        """The blocks, complete or not, at a node, of the datasets that match a pattern. In one request.

        The node is not looked up (`check_node`).
        """
        question = self._question(BlockReplicas, node=node, dataset=full_pattern(pattern))
        return rows.at_node(question, self._ask(BlockReplicas, question), node, like(pattern))

    def blocks_at(self, node: str, blocks: Iterable[str]) -> dict[str, BlockAtNode]:
        """What is at a node of some blocks, complete or not. A block that is missing in the result is not there.

        Raises UnknownNode too.
        """
        self.check_node(node)
        found: dict[str, BlockAtNode] = {}
        for asked in self._chunks(blocks):
            question = self._question(BlockReplicas, node=node, block=asked)
            reply = self._ask(BlockReplicas, question)
            rows.check_asked(question, (row.name for row in reply.block), set(asked))
            found.update(rows.at_node(question, reply, node, lambda _: True).blocks)
        return found

    def files_at(
        self, node: str, blocks: Iterable[str], figures: Mapping[str, Figures] | None = None
    ) -> tuple[dict[str, list[File]], dict[str, Untrusted]]:
        """The whole file list of each block at a node, and the blocks without one with the reason.

        Each block is in exactly one of the two. A list adds up to the number and bytes that its own reply gives for
        the block, and to the block's `figures` (files, bytes), as `blockreplicas` gave them. At a node that cannot be
        asked by name (retired, `X…`) no list is to be had. Raises UnknownNode too.
        """
        if not is_node(node) and node not in self.nodes():
            reason = f"{node} cannot be asked for its files by name"
            return {}, {block: trust.FilesMissing(f"block {block}: {reason}") for block in blocks}
        self.check_node(node)
        found: dict[str, list[File]] = {}
        doubts: dict[str, Untrusted] = {}
        pending = list(self._chunks(blocks))
        while pending:
            asked = pending.pop()
            try:
                files, reasons = self._files_at(node, asked, figures or {})
            except ReplyTooLarge as error:
                if len(asked) == 1:
                    reasons, files = {asked[0]: Untrusted(str(error))}, {}
                else:
                    middle = len(asked) // 2
                    pending += [asked[:middle], asked[middle:]]
                    continue
            found |= files
            doubts |= reasons
        return found, doubts

    def _files_at(
        self, node: str, asked: Sequence[str], figures: Mapping[str, Figures]
    ) -> tuple[dict[str, list[File]], dict[str, Untrusted]]:
        question = self._question(FileReplicas, node=node, block=asked)
        return rows.files(question, self._ask(FileReplicas, question), node, set(asked), figures)

    def known_blocks(self, blocks: Iterable[str]) -> set[str]:
        """Those of the blocks that PhEDEx knows, whether they are anywhere or not."""
        return set(self.sizes_of(blocks))

    def sizes_of(self, blocks: Iterable[str]) -> dict[str, int]:
        """The bytes of those blocks that PhEDEx knows, whether they are anywhere or not."""
        found: dict[str, int] = {}
        for asked in self._chunks(blocks):
            question = self._question(Data, level="block", block=asked)
            found |= rows.known(question, self._ask(Data, question), set(asked))
        return found

    def known_files(self, files: Iterable[str], controls: Mapping[str, str]) -> dict[str, str]:
        """Those of the files that PhEDEx' catalogue has, each with its block, whether they are anywhere or not.

        `controls`: up to three files that it has for sure, with their blocks, in every request. A reply that does not
        know one of them is believed of nothing: ControlMissing.
        """
        found: dict[str, str] = {}
        for asked in self._chunks(files):
            question = self._question(Data, level="file", file=[*asked, *controls])
            known = rows.known_files(question, self._ask(Data, question), {*asked, *controls})
            if missing := next((file for file, block in controls.items() if known.get(file) != block), None):
                raise trust.ControlMissing(f"{question}: file {missing} is not in its block by this reply")
            found |= {file: block for file, block in known.items() if file in asked}
        return found

    def nodes_with(self, pattern: str) -> dict[str, list[str]]:
        """The complete blocks of the datasets that match a pattern, by node. Retired nodes are left out."""
        question = self._question(BlockReplicas, dataset=full_pattern(pattern), complete="y")
        return rows.placed(question, self._ask(BlockReplicas, question), like(pattern))

    def nodes_with_blocks(self, blocks: Iterable[str]) -> dict[str, list[str]]:
        """Where some blocks are complete: the blocks by node. Retired nodes are left out."""
        found: dict[str, list[str]] = {}
        for asked in self._chunks(blocks):
            question = self._question(BlockReplicas, block=asked, complete="y")
            reply = self._ask(BlockReplicas, question)
            rows.check_asked(question, (row.name for row in reply.block), set(asked))
            for node, names in rows.placed(question, reply, lambda _: True).items():
                found.setdefault(node, []).extend(names)
        return found

    def whereabouts(self, blocks: Iterable[str], controls: Iterable[str] = ()) -> dict[str, Whereabouts]:
        """Where PhEDEx has each block. `controls`: up to three blocks that are surely somewhere, in every request.

        A reply that lacks a block is believed no further than one of its controls came back in it: without any,
        ControlMissing is raised. A control that is one of the blocks is none.
        """
        names = list(dict.fromkeys(blocks))
        others = [name for name in dict.fromkeys(controls) if name not in names]
        found: dict[str, Whereabouts] = {}
        for asked in self._chunks(names):
            question = self._question(BlockReplicas, block=[*asked, *others])
            found |= rows.whereabouts(question, self._ask(BlockReplicas, question), asked, others)
        return found

    def replicas_of(self, blocks: Iterable[str]) -> dict[str, dict[str, bool]]:
        """Where PhEDEx has files of some blocks, each node with whether the block is complete there.

        Without the nodes that are only meant to have it; retired ones, which have other names than nodes in use, are
        there. A block that is nowhere is {}.
        """
        return {
            name: {node: node in found.complete for node in sorted(found.complete | found.partial)}
            for name, found in self.whereabouts(blocks).items()
        }

    def deletions_of(self, blocks: Iterable[str]) -> dict[str, dict[str, Deletion]]:
        """The newest deletion of each block at each node where one was asked for; retired nodes are left out.

        A reply may be an hour old.
        """
        found: dict[str, dict[str, Deletion]] = {}
        for asked in self._chunks(blocks):
            question = self._question(Deletions, block=asked)
            found |= requested.deletions(question, self._ask(Deletions, question), asked)
        return found

    def subscribed(self, blocks: Iterable[str]) -> dict[str, frozenset[str]]:
        """The nodes where each block is meant to be, by a subscription of its own or of its whole dataset.

        Two requests a chunk: asked by block PhEDEx need not tell of a subscription of all of the dataset.
        """
        found: dict[str, frozenset[str]] = {}
        for asked in self._chunks(blocks):
            single = self._question(Subscriptions, block=asked, collapse="n")
            whole = self._question(Subscriptions, dataset=list(dict.fromkeys(map(dataset_of, asked))))
            parts = [requested.subscribed(each, self._ask(Subscriptions, each), asked) for each in (single, whole)]
            found |= {name: frozenset().union(*(part[name] for part in parts)) for name in asked}
        return found

    def nodes_with_files(self, blocks: Iterable[str]) -> dict[str, frozenset[str]]:
        """The nodes where `filereplicas` lists any file of each block: another list than that of block replicas."""
        found: dict[str, frozenset[str]] = {}
        for asked in self._chunks(blocks):
            question = self._question(FileReplicas, block=asked)
            found |= rows.nodes_with_files(question, self._ask(FileReplicas, question), asked)
        return found

    def everywhere(self, block: str) -> InPhedex:
        """All that PhEDEx says of one block: what it is, and each node's part of it. Two requests at most."""
        question = self._question(BlocksInFull, block=block)
        found = one_block.places(question, self._ask(BlocksInFull, question), block)
        return found if found.places else replace(found, known=block in self.known_blocks([block]))

    def files_everywhere(self, block: str, figures: Figures | None = None) -> Listed:
        """The files of a block that is at some node, and the nodes where each is; doubted where they do not add up.

        `figures`: the block's number of files and bytes as `blockreplicas` gave them.
        """
        question = self._question(FileReplicas, block=block)
        return one_block.listed(question, self._ask(FileReplicas, question), block, figures)

    def raw(self, call: str, **options: str | Sequence[str]) -> dict[str, Any]:
        """What any read call answers, as plain data: whole, fresh, and of that call, its rows not looked at."""
        question = self._question(call, **options)
        found: dict[str, Any] = self._retrying(self._plain, question)
        return found

    def _plain(self, question: Question) -> dict[str, Any]:
        answer = self._answer(question)
        self._trusted(Envelope, question, answer)
        plain: dict[str, Any] = msgspec.json.decode(answer.body)["phedex"]
        return plain

    def _chunks(self, blocks: Iterable[str]) -> Iterator[list[str]]:
        """Each block once, in order, `phedex_blocks` a time."""
        names = list(dict.fromkeys(blocks))
        for start in range(0, len(names), self._main.phedex_blocks):
            yield names[start : start + self._main.phedex_blocks]

    def _question(self, kind: type[Envelope] | str, **options: str | Sequence[str]) -> Question:
        pairs = [
            (name, value)
            for name, values in options.items()
            for value in ([values] if isinstance(values, str) else values)
        ]
        return Question(kind if isinstance(kind, str) else CALLS[kind], self._main.phedex_instance, tuple(pairs))

    def _ask(self, kind: type[R], question: Question) -> R:
        reply: R = self._retrying(self._once, kind, question)
        return reply

    def _once(self, kind: type[R], question: Question) -> R:
        return self._trusted(kind, question, self._answer(question))

    def _answer(self, question: Question) -> Answer:
        main = self._main
        url = f"{main.phedex_url.rstrip('/')}/json/{main.phedex_instance}/{question.call}"
        began = time.monotonic()
        self.requests += 1
        try:
            return transport.post(
                self._session, url, question, timeout=main.phedex_timeout, limit=main.phedex_reply_bytes
            )
        finally:
            self.seconds += time.monotonic() - began

    def _trusted(self, kind: type[R], question: Question, answer: Answer) -> R:
        age = max(self._main.phedex_cache_age, AGES.get(kind, 0))
        try:
            return trust.read(kind, question, answer, Freshness(age, self._main.phedex_clock_skew))
        except Untrusted as error:
            metrics.UNTRUSTED.labels(type(error).__name__).inc()
            raise
