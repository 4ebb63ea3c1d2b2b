"""When may a file that PhEDEx lists no more leave its block? Only on more than one word of PhEDEx, read again."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.phedex.client import Phedex
from common.rucio import session
from common.rucio.session import TooLate
from common.settings.model import Settings, Site
from consumers.apply import rules
from consumers.engine.result import Result
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.integration.test_last_look import Meddled
from tests.integration.test_removals import ANCHOR, at_both, dids, rule_at, soon
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account
from tests.two_sides import DATASET, NODE, OTHER, TwoSides, block, files_of, two_sides

AT_ONCE = Site(removal_grace=0, max_removal_share=1)
READINGS = 3  # one is remembered, the second acts, the third is to find nothing


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path, nowhere_apart=0) as sides:
        sides.put(ANCHOR)
        yield sides


def read(sides: TwoSides, name: str, meddle: tuple[str, Callable[[], object]] | None = None, **changes: Any) -> Result:
    """One reading of a plan that permits files to leave."""
    world = replace(sides.world(site=AT_ONCE), **changes)
    if meddle:
        world = replace(world, rucio=Meddled(world.rucio, *meddle))
    return sides.sync(name, world=world, files_until=soon())


def locks_on_nothing(sides: TwoSides) -> int:
    (row,) = sides.rucio.sql(
        "SELECT count(*) FROM locks l LEFT JOIN replicas r USING (scope, name, rse_id) WHERE r.name IS NULL"
    )
    return int(row[0])


class Liar:
    """A client whose answers to some questions are those of another PhEDEx."""

    def __init__(self, honest: Phedex, lying: Phedex, *questions: str) -> None:
        self._honest, self._lying, self._questions = honest, lying, questions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lying if name in self._questions else self._honest, name)


@contextmanager
def lying(sides: TwoSides, tmp_path: Path, change: Callable[[Snapshot], None], *questions: str) -> Iterator[Any]:
    """The client, to whom another snapshot answers some questions."""
    copy = tmp_path / "other.db"
    with sqlite3.connect(sides.snapshot.path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    with Snapshot(copy) as other:
        change(other)
        with running(other.path) as url:
            honest = Phedex(sides.main, sleep=lambda _: None)
            liar = Phedex(msgspec.structs.replace(sides.main, phedex_url=url), sleep=lambda _: None)
            with honest, liar:
                yield Liar(honest, liar, *questions)
    shutil.rmtree(copy, ignore_errors=True)


ALL_BUT_THE_CATALOGUE = (
    *("blocks_at", "files_at", "block_replicas_at", "whereabouts", "replicas_of", "files_everywhere"),
    *("nodes_with", "nodes_with_blocks", "deletions_of", "subscribed"),
)


def test_a_file_leaves_everywhere_when_the_catalogue_has_it_no_more(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    gone = files_of(name)[0][0]
    sides.snapshot.remove_file(gone)
    first, second, third = (read(sides, name) for _ in range(READINGS))
    assert (first.counts["strangers"], second.counts["files_removed"]) == (1, 1)
    assert "strangers" not in third.counts
    assert gone not in {*sides.replicas(), *sides.replicas(OTHER)}
    assert sides.inside(name) == {lfn for lfn, *_ in files_of(name)} - {gone}
    sides.rucio.run_daemon("judge-evaluator")
    assert locks_on_nothing(sides) == 0


def test_a_shorter_block_that_two_calls_agree_upon_loses_nothing(sides: TwoSides, tmp_path: Path) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    with lying(sides, tmp_path, lambda other: other.remove_file(file), *ALL_BUT_THE_CATALOGUE) as phedex:
        notes = [read(sides, name, phedex=phedex).notes for _ in range(READINGS)]
    assert file in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)
    assert any(f"PhEDEx' catalogue has {file} in {name}" in note for note in notes[-1])


def test_a_list_with_another_name_for_a_file_takes_no_file_away(sides: TwoSides, tmp_path: Path) -> None:
    """The numbers agree; only `filereplicas` lies."""
    (name,) = at_both(sides, 1)
    file, size, adler = files_of(name)[0]

    def renamed(other: Snapshot) -> None:
        other.remove_file(file)
        other.add_file(name, f"{file}.other", size, adler)

    with lying(sides, tmp_path, renamed, "files_at") as phedex:
        for _ in range(READINGS):
            world = replace(sides.world(site=AT_ONCE), phedex=phedex)
            sides.sync(name, world=world, files_until=soon(), deep=True)
    assert file in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)


def test_a_file_that_phedex_has_in_another_block_stays(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0]
    sides.snapshot.remove_file(file[0])
    sides.snapshot.add_block(block(2), [file], is_open=True)
    sides.snapshot.add_replica(block(2), NODE)
    for _ in range(READINGS):
        result = read(sides, name)
    assert file[0] in sides.replicas().keys() & sides.inside(name)
    assert any(f"catalogue has {file[0]} in {block(2)}" in note for note in result.notes)


def test_a_catalogue_that_does_not_know_the_rest_of_the_block_is_not_believed(sides: TwoSides, tmp_path: Path) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    sides.snapshot.remove_file(file)
    with lying(sides, tmp_path, lambda other: other.remove_block(name), "known_files") as phedex:
        notes = [read(sides, name, phedex=phedex).notes for _ in range(READINGS)]
    assert any("PhEDEx' catalogue is not believed" in note for note in notes[-1])
    assert file in sides.replicas()


def test_a_file_that_is_listed_again_at_the_last_moment_stays(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0]
    sides.snapshot.remove_file(file[0])
    read(sides, name)
    result = read(sides, name, meddle=("add_rse_attribute", lambda: sides.snapshot.add_file(name, *file)))
    assert file[0] in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)
    assert result.outcome == "held"


@pytest.mark.parametrize("on", ["block", "dataset", "file"])
@pytest.mark.parametrize("where", [NODE, OTHER])
def test_an_account_that_is_only_called_like_ours_is_somebody_else(sides: TwoSides, on: str, where: str) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    make_account(sides.root, "sync_jdoe", where)
    held = {"block": name, "dataset": DATASET, "file": file}[on]
    (rule,) = sides.root.add_replication_rule(dids(held), 1, where, account="sync_jdoe")
    before = sides.root.get_replication_rule(rule)
    sides.snapshot.remove_file(file)
    for _ in range(READINGS):
        result = read(sides, name)
    assert file in sides.replicas().keys() & sides.replicas(OTHER).keys()
    assert any(f"rule {rule} of sync_jdoe ({where}) holds it" in note for note in result.notes)
    assert sides.root.get_replication_rule(rule) == before


def test_a_lock_of_a_person_holds_a_file_though_the_rule_has_an_end(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    sides.root.update_replication_rule(rule_at(sides, name, OTHER)["id"], {"locked": True, "lifetime": 86_400})
    sides.snapshot.remove_file(file)
    for _ in range(READINGS):
        result = read(sides, name)
    assert file in sides.replicas(OTHER)
    assert any("a person locked its rule" in note for note in result.notes)


def test_a_rule_that_is_made_while_the_file_goes_is_told(sides: TwoSides) -> None:
    (name,) = at_both(sides, 1)
    file = files_of(name)[0][0]
    make_account(sides.root, "jdoe", OTHER)
    sides.snapshot.remove_file(file)
    read(sides, name)

    def meddle() -> None:
        sides.root.add_replication_rule(dids(file), 1, OTHER, account="jdoe")

    result = read(sides, name, meddle=("detach_dids", meddle))
    assert (result.counts["hit"], result.counts["failed"]) == (1, 1)
    assert "of jdoe was made while its replicas went" in result.notes[0]
    assert file in sides.replicas()  # Rucio lets no file that has a rule of its own lose its last replica


@pytest.mark.parametrize("after", ["detach_dids", "delete_replicas"])
def test_a_process_that_is_stopped_on_the_way_deletes_no_file_that_came_back(
    sides: TwoSides, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """It was stopped while it waited for an answer, for longer than its announcements last."""
    (name,) = at_both(sides, 1)
    file = files_of(name)[0]
    sides.snapshot.remove_file(file[0])
    read(sides, name)
    real, stopped = session.clock, [0.0]
    for module in (session, rules):
        monkeypatch.setattr(module, "clock", lambda: real() + stopped[0])
    made = sides.world(site=AT_ONCE)

    def back() -> None:
        stopped[0] += 7200
        sides.snapshot.add_file(name, *file)
        sides.rucio.sql("DELETE FROM rse_attr_map WHERE key LIKE 'phedex_sweeping%' RETURNING 1")
        for node in (NODE, OTHER) * 2:
            sides.sync(name, node=node, deep=True)

    class After(Meddled):
        def call_by(self, limit: float, verb: str, *args: Any, **options: Any) -> Any:
            answer = self._rucio.call_by(limit, verb, *args, **options)
            self._meddle(verb)
            return answer

    result = sides.sync(name, world=replace(made, rucio=After(made.rucio, after, back)), files_until=soon())
    assert any("it took too long to look again" in note for note in result.notes)
    assert file[0] in sides.replicas(OTHER)
    for node in (NODE, OTHER) * 2:
        sides.sync(name, node=node, deep=True)
    assert file[0] in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)
    sides.rucio.run_daemon("judge-evaluator")
    assert locks_on_nothing(sides) == 0


@pytest.mark.parametrize(
    ("site", "says"),
    [
        (
            Site(removal_grace=0, max_removal_share=0),
            f"1 of 6 files at {OTHER}, more than its max_removal_share allows",
        ),
        (
            Site(removal_grace=0, max_removal_share=1, max_removal_bytes=1),
            f"at {OTHER}, more than its max_removal_bytes",
        ),
        (Site(removal_grace=604_800, max_removal_share=1), "leave when it says so again after the time of grace"),
    ],
)
def test_files_leave_no_site_whose_own_settings_keep_them(sides: TwoSides, site: Site, says: str) -> None:
    name, _ = at_both(sides, 1, 2)
    gone = files_of(name)[0][0]
    sides.snapshot.remove_file(gone)
    settings = Settings(main=sides.main, default=AT_ONCE, sites={OTHER: site})
    for _ in range(READINGS):
        result = read(sides, name, settings=settings)
    assert gone in sides.replicas().keys() & sides.replicas(OTHER).keys() & sides.inside(name)
    assert any(says in note for note in result.notes)


def test_a_small_site_does_not_lose_its_files_by_a_large_ones_cycle(sides: TwoSides) -> None:
    name = sides.put(block(1), files_of(block(1), 14))
    sides.snapshot.add_replica(name, OTHER)
    large = [sides.put(block(n), files_of(block(n), 40)) for n in range(10, 16)]
    sides.sync(name, *large)
    sides.sync(name, node=OTHER)
    for file, *_ in files_of(name, 14)[:13]:
        sides.snapshot.remove_file(file)
    for _ in range(READINGS):
        world = sides.world(site=Site(removal_grace=0))
        result = sides.sync(name, *large, world=world, files_until=soon())
    assert len(sides.replicas(OTHER)) == 14
    assert any(f"13 of 14 files at {OTHER}, more than its max_removal_share allows" in note for note in result.notes)


def test_a_file_stays_where_its_block_is_custodial_by_now_at_another_site(sides: TwoSides) -> None:
    """PhEDEx says so, and the rule there does not yet."""
    (name,) = at_both(sides, 1)
    gone = files_of(name)[0][0]
    sides.snapshot.remove_file(gone)
    sides.snapshot.add_replica(name, OTHER, custodial=True)
    for _ in range(READINGS):
        result = read(sides, name)
    assert gone in sides.replicas().keys() & sides.replicas(OTHER).keys()
    assert any(f"the block is custodial at {OTHER} (hold_custodial)" in note for note in result.notes)


def settle(sides: TwoSides, name: str) -> None:
    """More cycles than it takes at both sites, and Rucio's daemons between."""
    for _ in range(READINGS + 2):
        for node in (OTHER, NODE):
            world = sides.world(site=AT_ONCE)
            sides.sync(name, node=node, world=world, files_until=soon(), removable_until=soon())
        for daemon in ("judge-evaluator", "judge-cleaner", "judge-repairer"):
            sides.rucio.run_daemon(daemon)


def assert_is_there_alone(sides: TwoSides, name: str) -> None:
    """The block is at the other site alone, with the files that PhEDEx lists, and nothing of it waits."""
    kept = {lfn for lfn, *_ in files_of(name)} & {file.name for file in sides.snapshot.files(name)}
    assert not sides.replicas().keys() & {f"{lfn}{end}" for lfn, *_ in files_of(name) for end in ("", ".late")}
    assert sides.replicas(OTHER).keys() == sides.inside(name) == kept
    (rule,) = sides.rules(name)
    counts = tuple(rule[f"locks_{state}_cnt"] for state in ("ok", "replicating", "stuck"))
    assert (rule["rse_expression"], rule["state"], counts) == (OTHER, "OK", (len(kept), 0, 0))
    assert (sides.rucio.sql("SELECT name FROM requests"), locks_on_nothing(sides)) == ([], 0)


@pytest.mark.parametrize("first", [NODE, OTHER])
def test_a_block_that_moves_while_a_file_leaves_it_comes_to_rest(sides: TwoSides, first: str) -> None:
    """In Rucio the file is in the block where that goes; where it comes to PhEDEx does not list it any more."""
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.add_replica(name, OTHER)
    if first == OTHER:
        sides.sync(name, node=OTHER)
    sides.snapshot.remove_file(files_of(name)[0][0])
    sides.snapshot.remove_replica(name, NODE)
    settle(sides, name)
    assert_is_there_alone(sides, name)


def test_a_file_that_never_came_to_a_place_does_not_keep_its_block_where_that_left(sides: TwoSides) -> None:
    """Its lock waits there for a replica; and the block, marked, waits here for that place."""
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.add_replica(name, OTHER)
    late = f"{files_of(name)[0][0]}.late"

    def joins() -> None:
        sides.snapshot.add_file(name, late, 1000, "00000001")
        sides.sync(name)

    world = sides.world()
    sides.sync(name, node=OTHER, world=replace(world, rucio=Meddled(world.rucio, "add_replication_rule", joins)))
    assert sides.rucio.sql("SELECT name FROM requests") == [(late,)]
    sides.snapshot.remove_file(late)
    sides.snapshot.remove_replica(name, NODE)
    settle(sides, name)
    assert_is_there_alone(sides, name)


def cut_short(sides: TwoSides, name: str) -> str:
    """A file of a block that moves from here is out of the block; its replica here was not deleted any more."""
    gone = files_of(name)[0][0]
    sides.snapshot.remove_file(gone)
    sides.snapshot.remove_replica(name, NODE)

    def cut() -> None:
        raise TooLate(sent=False)

    for _ in range(READINGS):
        world = sides.world(site=AT_ONCE)
        cutting = replace(world, rucio=Meddled(world.rucio, "delete_replicas", cut))
        sides.sync(name, node=OTHER, world=cutting, files_until=soon())
    assert gone not in sides.inside(name)
    assert gone in sides.replicas()
    return gone


@pytest.mark.parametrize("there", [False, True])
def test_a_file_whose_leaving_is_cut_between_detach_and_delete_keeps_no_block(sides: TwoSides, there: bool) -> None:
    """`there`: the block is in Rucio at the other site too, before the file leaves."""
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.add_replica(name, OTHER)
    if there:
        sides.sync(name, node=OTHER)
    cut_short(sides, name)
    settle(sides, name)
    assert_is_there_alone(sides, name)


@pytest.mark.parametrize("by", ["PhEDEx, in another block", "a colleague, elsewhere"])
def test_a_file_whose_leaving_was_cut_stays_where_it_is_wanted(sides: TwoSides, by: str) -> None:
    name = sides.put(block(1))
    sides.sync(name)
    sides.snapshot.add_replica(name, OTHER)
    gone = cut_short(sides, name)
    if by == "a colleague, elsewhere":
        make_account(sides.root, "jdoe", OTHER)
        sides.root.add_replication_rule(dids(gone), 1, OTHER, account="jdoe", ignore_availability=True)
    else:
        sides.snapshot.add_block(block(2), [files_of(name)[0]], is_open=True)
        sides.snapshot.add_replica(block(2), NODE)
    settle(sides, name)
    assert gone in sides.replicas()
