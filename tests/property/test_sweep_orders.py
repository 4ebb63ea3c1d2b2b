"""Whatever the order of the calls: a person's word is true, no last copy goes, and all comes to rest."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from common.outcome import Outcome
from common.phedex.client import Phedex
from common.rucio import undo
from common.rucio.rses import find_site
from common.rucio.undo import Order
from common.settings.model import Main
from common.sync.keep import Undone
from consumers.engine.world import World
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.property import orders
from tests.property.orders import ANCHOR, BLOCK, GRACE, NODES, A, B, C, Clock, Memory, Piece, Scene, orders_of

FILES = [f"/store/data/{n}.root" for n in range(2)]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A block at A and B on both sides; a third node has none of it."""
    clock = Clock()
    orders.everywhere(monkeypatch, clock)
    scene = Scene(clock, Memory(clock=clock))
    scene.phedex.add(ANCHOR, ["/store/data/zero.root"], *NODES)
    scene.phedex.add(BLOCK, FILES, A, B)
    scene.rest()
    assert scene.differences() == []
    return scene


@pytest.fixture
def due(scene: Scene) -> bytes:
    """The block has left A, is marked there, and the time of grace is over."""
    scene.phedex.remove(BLOCK, A)
    scene.cycle()
    assert [rule.meta for rule in scene.ours(A)] != []
    scene.wait(GRACE + 1)
    return scene.saved()


def undoing(scene: Scene, *, wait: float = 1) -> Callable[[World], Undone]:
    def work(world: World) -> Undone:
        site = find_site(world.rucio, A, scene.site)
        assert site is not None
        (done,) = undo.undo(world.rucio, site, Order(asked=frozenset({BLOCK}), by="me", at="today", wait=wait))
        return done.state

    return work


def test_what_undo_says_is_true(scene: Scene, due: bytes) -> None:
    said = []

    def run(order: list[Piece]) -> orders.Played:
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A), "undo": undoing(scene)}, order)
        word = played.results["undo"]
        said.append(word)
        kept = [bool(scene.ours(A)) and scene.whole(A)]
        scene.rest()
        kept.append(bool(scene.ours(A)) and scene.whole(A))
        if word is Undone.KEPT:
            assert kept == [True, True], order
        else:
            assert kept in ([True, True], [False, False]), order
            assert kept == [False, False] or word is not Undone.SWEPT, order
        assert scene.differences(but=[A] if kept[1] else []) == [], order
        return played

    assert orders_of("sweep", "undo", run) > 300
    assert set(said) == {Undone.KEPT, Undone.SWEPT, Undone.UNSURE}


def making(scene: Scene, name: str, expression: str) -> Callable[[World], str]:
    """A colleague makes a rule."""

    def work(world: World) -> str:
        did = [{"scope": "cms", "name": name}]
        (rule,) = world.rucio.client.add_replication_rule(did, 1, expression, account="jdoe")
        return str(rule)

    return work


@pytest.mark.parametrize("on", [BLOCK, orders.DATASET, FILES[0]])
@pytest.mark.parametrize("expression", [A, f"{A}|{C}"])
def test_a_colleague_whose_rule_came_before_the_last_look_loses_nothing(
    scene: Scene, due: bytes, on: str, expression: str
) -> None:
    hit, safe = 0, 0

    def run(order: list[Piece]) -> orders.Played:
        nonlocal hit, safe
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A), "colleague": making(scene, on, expression)}, order)
        if "colleague" in played.errors:
            return played  # nothing is left that his rule could be about
        verbs = [one[:2] for one in played.trace]
        deleted = verbs.index(("sweep", "delete_replicas")) if ("sweep", "delete_replicas") in verbs else len(verbs)
        began = max(k for k in range(deleted) if verbs[k] == ("sweep", "get_rse"))
        made = verbs.index(("colleague", "add_replication_rule"))
        lost = {file for rule, _, file in scene.rucio.locks_without_replica() if rule == played.results["colleague"]}
        told = [note for note in played.results["sweep"].notes if "was made while its replicas went" in note]
        if lost:
            assert began < made < deleted, order
            assert told, order
            assert played.results["sweep"].outcome is Outcome.HELD
        hit, safe = hit + bool(lost), safe + (not lost)
        return played

    orders_of("sweep", "colleague", run)
    assert hit > 0
    assert safe > hit


def coming_back(scene: Scene, node: str) -> Callable[[World], object]:
    """PhEDEx brings the block to the node; a batch adds it."""

    def work(world: World) -> object:
        orders.change(world, node)
        return scene.batch(node)(world)

    return work


@pytest.mark.parametrize("node", [A, C])
def test_a_block_that_comes_back_meanwhile_is_there_at_the_end(scene: Scene, due: bytes, node: str) -> None:
    def run(order: list[Piece]) -> orders.Played:
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A), "adds": coming_back(scene, node)}, order)
        assert scene.unsettled() == [], order
        return played

    orders_of("sweep", "adds", run)


@pytest.mark.parametrize("pause", [30, 4_000])
def test_a_sweep_that_stood_still_looks_again(scene: Scene, due: bytes, pause: float) -> None:
    """Whatever the others did meanwhile: a person, a colleague, the block's return here or elsewhere."""
    others: dict[str, Callable[[World], object]] = {
        "undo": undoing(scene),
        "colleague": making(scene, BLOCK, A),
        "adds": coming_back(scene, A),
        "moves": moving(scene),
    }
    for name, work in others.items():

        def run(order: list[Piece], name: str = name, work: Callable[[World], object] = work) -> orders.Played:
            scene.load(due)
            played = scene.play({"sweep": scene.batch(A), name: work}, order)
            here = bool(scene.ours(A)) and scene.whole(A)
            if name == "undo":
                assert here or played.results[name] is not Undone.KEPT, order
                scene.rest()
                assert scene.differences(but=[A]) == [], order
            elif name == "colleague" and name in played.results:
                assert scene.rucio.locks_without_replica() == set(), order
            elif name != "colleague":
                scene.rest()
                assert scene.differences() == [], (name, order)
            return played

        orders.pauses_of("sweep", name, run, pause)


def moving(scene: Scene) -> Callable[[World], object]:
    """PhEDEx moves the block back from B to A, and B lets go of it, which needs A to be relied on."""

    def work(world: World) -> object:
        orders.change(world, A, B)
        scene.batch(A)(world)
        scene.batch(B)(world)  # marks
        scene.clock.at += GRACE + 1
        return scene.batch(B)(world)  # sweeps

    return work


def test_two_sites_that_rely_on_each_other_do_not_both_let_go(scene: Scene, due: bytes) -> None:
    swept = []

    def run(order: list[Piece]) -> orders.Played:
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A), "moves": moving(scene)}, order)
        swept.append((bool(scene.ours(A)), bool(scene.ours(B))))
        assert scene.whole(A) or scene.whole(B), order
        assert scene.unsettled() == [], order
        return played

    orders_of("sweep", "moves", run)
    assert (True, False) in swept
    assert (False, True) in swept


@pytest.mark.parametrize("where", ["nowhere", "elsewhere"])
def test_two_sweeps_of_a_block_at_two_sites(scene: Scene, where: str) -> None:
    if where == "elsewhere":
        scene.phedex.place(BLOCK, C)
        scene.cycle([C])
    scene.phedex.remove(BLOCK, A)
    scene.phedex.remove(BLOCK, B)
    scene.cycle([A, B])
    scene.wait(GRACE + 1)
    both = scene.saved()

    def run(order: list[Piece]) -> orders.Played:
        scene.load(both)
        played = scene.play({"one": scene.batch(A), "other": scene.batch(B)}, order)
        assert scene.unsettled() == [], order
        return played

    orders_of("one", "other", run)


@pytest.mark.parametrize("parts", [False, True])
def test_a_sweep_that_dies_at_any_call_is_ended_by_the_next(scene: Scene, due: bytes, parts: bool) -> None:
    if parts:
        scene.main = replace(scene.main, sweep_files=1)
    for at in range(200):
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A)}, [], {"sweep": orders.Fault(at)})
        scene.rest()
        assert scene.differences() == [], (at, played.trace[-3:])
        assert not scene.ours(A)
        if "sweep" in played.results:
            break
    assert at > 20


@pytest.mark.parametrize("number", [0, 1])
def test_undo_is_true_after_a_sweep_that_died_of_a_block_that_had_lost_a_replica(
    scene: Scene, due: bytes, number: int
) -> None:
    """At any call: it says swept just where the sweep took the other one."""
    lost, other = FILES[number], FILES[1 - number]
    said = []
    for at in range(200):
        scene.load(due)
        del scene.rucio.replicas[A, lost]
        played = scene.play({"sweep": scene.batch(A)}, [], {"sweep": orders.Fault(at)})
        if "sweep" in played.results:
            break
        scene.wait(4_000)
        said.append(undoing(scene)(scene.world()))
        is_there = (A, other) in scene.rucio.replicas
        assert said[-1] in ((Undone.KEPT,) if is_there else (Undone.SWEPT, Undone.NO_RULE)), (at, played.trace[-3:])
        if is_there:
            scene.rest()
            assert (A, other) in scene.rucio.replicas, at
    assert {Undone.KEPT, Undone.SWEPT} <= set(said)


@pytest.mark.parametrize("what", ["unsent", "unheard", "under way"])
@pytest.mark.parametrize("parts", [0, 1])
def test_a_delete_without_an_answer_harms_nobody(scene: Scene, due: bytes, what: str, parts: int) -> None:
    """Rucio may carry it out much later: whoever asks meanwhile is told that it is not sure, and may ask again."""
    if parts:
        scene.main = replace(scene.main, sweep_files=1)
    for keeps in (False, True):
        scene.load(due)
        fault = orders.Fault(parts, what)
        scene.play({"sweep": scene.batch(A)}, [], {"sweep": fault})
        assert scene.announced() != []
        word = undoing(scene)(scene.world()) if keeps else None
        scene.cycle()
        scene.wait(600)
        was_late = fault.carry_out()
        if keeps:
            assert word is (Undone.SWEPT if what == "unheard" or parts else Undone.UNSURE)
        if keeps and was_late:  # asked again, it is known
            assert undoing(scene)(scene.world()) is Undone.SWEPT
        scene.rest()
        assert scene.differences(but=[A]) == [], (what, keeps)


def test_undo_is_true_though_a_sweep_stood_still_for_longer_than_announcements_last(scene: Scene, due: bytes) -> None:
    """It stands still at any call from its announcement on, goes on for some calls, and then a person comes."""
    scene.main = replace(scene.main, announcement_lifetime=600)
    scene.load(due)
    verbs = scene.play({"sweep": scene.batch(A)}, []).calls("sweep")
    first, last = verbs.index("add_rse_attribute"), verbs.index("delete_replicas")
    said = []
    for k in range(first + 1, last + 1):
        for m in range(25):
            scene.load(due)
            order: list[Piece] = [("sweep", k, 700), ("sweep", m), ("undo", 1_000), ("sweep", orders.TO_ITS_END)]
            played = scene.play({"sweep": scene.batch(A), "undo": undoing(scene)}, order)
            word = played.results["undo"]
            said.append(word)
            scene.rest()
            assert word is not Undone.KEPT or (scene.ours(A) and scene.whole(A)), order
            if len(played.calls("sweep")) <= k + m:
                break
    assert set(said) == {Undone.KEPT, Undone.SWEPT, Undone.UNSURE}


def test_what_undo_says_of_a_block_that_goes_in_parts_is_true(scene: Scene, due: bytes) -> None:
    scene.main = replace(scene.main, sweep_files=1)
    said = []

    def run(order: list[Piece]) -> orders.Played:
        scene.load(due)
        played = scene.play({"sweep": scene.batch(A), "undo": undoing(scene)}, order)
        word = played.results["undo"]
        said.append(word)
        scene.rest()
        kept = bool(scene.ours(A)) and scene.whole(A)
        assert kept or word is not Undone.KEPT, order
        assert not kept or word is not Undone.SWEPT, order
        assert scene.differences(but=[A] if kept else []) == [], order
        return played

    orders_of("sweep", "undo", run)
    assert set(said) == {Undone.KEPT, Undone.SWEPT, Undone.UNSURE}


@pytest.fixture
def left(scene: Scene) -> bytes:
    """A file has left the block in PhEDEx; that is remembered, and the time of grace is over."""
    scene.phedex.invalidate(BLOCK, FILES[0])
    scene.cycle()
    scene.wait(GRACE + 1)
    return scene.saved()


def test_files_leave_their_block_though_the_process_dies_at_any_call(scene: Scene, left: bytes) -> None:
    for at in range(200):
        scene.load(left)
        played = scene.play({"leaves": scene.batch(A)}, [], {"leaves": orders.Fault(at)})
        scene.rest()
        assert scene.differences() == [], (at, played.trace[-3:])
        if "leaves" in played.results:
            break
    assert at > 30


@pytest.mark.parametrize(
    ("nth", "what"),
    [
        (0, "unsent"),
        (1, "unheard"),
        (1, "under way"),
        (0, "unheard"),
        (0, "under way"),
        (1, "unsent"),
    ],
)
def test_files_leave_their_block_though_an_answer_is_lost(scene: Scene, left: bytes, what: str, nth: int) -> None:
    scene.load(left)
    fault = orders.Fault(nth, what)
    scene.play({"leaves": scene.batch(A)}, [], {"leaves": fault})
    scene.cycle()
    scene.wait(600)
    fault.carry_out()
    scene.rest()
    assert scene.differences() == []


def test_files_leave_their_block_while_one_of_its_sites_is_swept(scene: Scene, left: bytes) -> None:
    scene.load(left)
    scene.phedex.remove(BLOCK, A)
    scene.batch(A)(scene.world())  # marks it
    scene.wait(GRACE + 1)
    both = scene.saved()

    def run(order: list[Piece]) -> orders.Played:
        scene.load(both)
        played = scene.play({"sweep": scene.batch(A), "leaves": scene.batch(B)}, order)
        assert scene.unsettled() == [], order
        return played

    orders_of("sweep", "leaves", run)


def test_files_leave_their_block_at_two_sites_at_once(scene: Scene, left: bytes) -> None:
    def run(order: list[Piece]) -> orders.Played:
        scene.load(left)
        played = scene.play({"one": scene.batch(A), "other": scene.batch(B)}, order)
        assert scene.unsettled() == [], order
        return played

    orders_of("one", "other", run)


def pieces(seed: int, *actors: str) -> list[Piece]:
    """An order in which the actors interrupt each other several times, and now and then stand still."""
    rng = random.Random(seed)
    return [
        (rng.choice(actors), rng.choice([0, 1, 1, 2, 3, 5, 8, 13, 20]), rng.choice([0, 0, 0, 0, 3, 6, 30]))
        for _ in range(rng.randint(2, 8))
    ]


@pytest.mark.parametrize("parts", [False, True])
def test_all_of_it_at_once_in_many_orders(scene: Scene, due: bytes, parts: bool) -> None:
    """Two sweeps of the block at A, its return, a move away from B, and a person."""
    if parts:
        scene.main = replace(scene.main, sweep_files=1)
    ends = set()
    for seed in range(250):
        scene.load(due)
        rng = random.Random(seed)
        moves = rng.choice([coming_back(scene, A), coming_back(scene, C), moving(scene)])
        every = {"sweep": scene.batch(A), "again": scene.batch(A), "phedex": moves, "undo": undoing(scene)}
        chosen = rng.sample(sorted(every), rng.randint(2, 4))
        played = scene.play({name: every[name] for name in chosen}, pieces(seed, *chosen))
        word = played.results.get("undo")
        scene.rest()
        kept = bool(scene.ours(A)) and scene.whole(A)
        assert kept or word is not Undone.KEPT, seed
        assert scene.differences(but=[A] if word and kept else []) == [], (seed, chosen)
        ends.add((word, kept))
    assert len(ends) >= 5


def test_the_small_phedex_says_what_the_service_says(scene: Scene, tmp_path: Path) -> None:
    """A block that is whole at one node, partly at another, gone from a third; and one that is nowhere."""
    nowhere = "/Primary/Run2018A-v1/AOD#gone"
    blocks = {ANCHOR: ["/store/data/zero.root"], BLOCK: FILES, nowhere: ["/store/data/gone.root"]}
    path = tmp_path / "world.sqlite"
    with Snapshot(path) as snapshot:
        for node in NODES:
            snapshot.add_node(node)
        memory = Memory(clock=Clock(time.time()))
        for name, listed in blocks.items():
            snapshot.add_block(name, [(file, 100, "adler32:1") for file in listed])
            memory.add(name, listed)
            for node in NODES:
                snapshot.add_replica(name, node)
                memory.place(name, node)
        for name, node in ((BLOCK, C), *((nowhere, node) for node in NODES)):
            snapshot.remove_replica(name, node)
            memory.remove(name, node)
        snapshot.set_replica_files(BLOCK, B, FILES[:1])
        memory.place(BLOCK, B, FILES[:1])
        with running(path) as url, Phedex(Main(phedex_url=url)) as phedex:
            asked = [*blocks, "/Not/Known-v1/AOD#1"]
            for sides in zip(*(_answers(one, asked) for one in (phedex, memory)), strict=True):
                assert sides[0] == sides[1]


def _answers(phedex: Phedex | Memory, blocks: list[str]) -> Iterator[object]:
    """Without times, which each has of its own."""
    yield sorted(phedex.nodes())
    for node in NODES:
        yield phedex.blocks_at(node, blocks)
        yield phedex.block_replicas_at(node, "/Primary/*/*").blocks
        files, doubts = phedex.files_at(node, blocks)
        yield {name: sorted(file.name for file in listed) for name, listed in files.items()}
        yield {name: type(doubt) for name, doubt in doubts.items()}
    for controls in ((), (ANCHOR,)):
        found = phedex.whereabouts([name for name in blocks if name not in controls], controls)
        yield {name: structs.replace(one, as_of=0) for name, one in found.items()}
    yield phedex.replicas_of(blocks)
    yield phedex.sizes_of(blocks)
    yield phedex.known_blocks(blocks)
    yield phedex.subscribed(blocks)
    yield {
        name: {node: one.completed is not None for node, one in found.items()}
        for name, found in phedex.deletions_of(blocks).items()
    }
