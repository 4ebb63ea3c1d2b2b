"""Taking marks back on a real Rucio: the rule is as it was, and stays unmarked until PhEDEx has had the block back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from common.messages.meta import Meta
from common.rucio import announcements
from common.rucio.rses import find_site
from common.rucio.session import Rucio
from common.rucio.undo import Order
from common.rucio.undo import undo as undo_marks
from common.settings.model import Site
from common.sync.keep import Undone
from common.sync.marks import keep_of
from phedex_rucio.main import cli
from tests.stack.rucio_server import RucioServer
from tests.two_sides import NODE, OTHER, TwoSides, block, two_sides


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[TwoSides]:
    with two_sides(clean_rucio, tmp_path) as sides:
        yield sides


def leaving(sides: TwoSides, *numbers: int) -> list[str]:
    """Blocks at two sites that PhEDEx no more has at the first."""
    names = [sides.put(block(n)) for n in numbers]
    for name in names:
        sides.snapshot.add_replica(name, OTHER)
    for node in (NODE, OTHER):
        sides.sync(*names, node=node)
    for name in names:
        sides.snapshot.remove_replica(name, NODE)
    return names


def mark(sides: TwoSides, *names: str, cycle: str = "c-1", grace: float = 3600) -> dict[str, int]:
    until = datetime.now(UTC) + timedelta(hours=1)
    world = sides.world(site=Site(removal_grace=grace, max_removal_share=1))
    return sides.sync(*names, world=world, removable_until=until, meta=Meta(cycle=cycle)).counts


def undo(*arguments: str, code: int = 0) -> dict[str, str]:
    result: Result = CliRunner().invoke(cli, ["undo", "--node", NODE, "--json", *arguments], standalone_mode=False)
    assert (result.exception, result.return_value) == (None, code), result.output
    blocks: dict[str, str] = json.loads(result.stdout)["blocks"]
    return blocks


def rule_at(sides: TwoSides, name: str) -> dict[str, Any]:
    return next(rule for rule in sides.rules(name) if rule["rse_expression"] == NODE)


def whole(sides: TwoSides, name: str) -> tuple[Any, ...]:
    """A rule with its meta apart, its locks and what they lock."""
    rule = {key: value for key, value in rule_at(sides, name).items() if key not in ("meta", "comments", "updated_at")}
    locks = sides.rucio.sql("SELECT name, state FROM locks WHERE rule_id = %s ORDER BY 1", (rule["id"],))
    return rule, locks, sides.inside(name), sides.replicas()


def meta(rule: dict[str, Any]) -> dict[str, Any]:
    text = rule["meta"]
    while isinstance(text, str):
        text = json.loads(text)
    return {key: value for key, value in dict(text).items() if key != "phedex_seen"}


def test_a_cycles_marks_are_taken_back_and_only_those(sides: TwoSides) -> None:
    names = leaving(sides, 1, 2, 3)
    before = {name: (whole(sides, name), meta(rule_at(sides, name))) for name in names}
    mark(sides, *names[:2])
    mark(sides, names[2], cycle="c-2")
    assert undo("c-1", "--dry-run") == dict.fromkeys(names[:2], "kept")
    assert "phedex_gone_since" in meta(rule_at(sides, names[0]))
    assert undo("c-1") == dict.fromkeys(names[:2], "kept")
    for name in names[:2]:
        keep = keep_of({}, rule_at(sides, name)["comments"])
        assert keep is not None
        assert (keep.cycle, "@" in keep.by, keep.at[-1]) == ("c-1", True, "Z")
        assert meta(rule_at(sides, name))["phedex_gone_cycle"] == "c-1"  # the engine's register, which it clears itself
        assert whole(sides, name) == before[name][0]
    assert meta(rule_at(sides, names[2]))["phedex_gone_cycle"] == "c-2"
    assert mark(sides, *names[:2], grace=0)["not_at_node"] == 2
    assert [(whole(sides, name), meta(rule_at(sides, name))) for name in names[:2]] == [before[n] for n in names[:2]]
    assert set(sides.replicas()) == set(sides.replicas(OTHER))


def test_kept_until_it_is_cleared(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    before = whole(sides, name), meta(rule_at(sides, name))
    mark(sides, name)
    assert undo(name) == {name: "kept"}
    assert undo(name) == {name: "not_marked"}
    assert mark(sides, name)["not_at_node"] == 1
    assert undo("c-1", "--clear") == {name: "cleared"}
    assert (whole(sides, name), meta(rule_at(sides, name))) == before
    assert mark(sides, name)["marked"] == 1


def test_a_mark_that_is_older_than_what_was_cleared_has_its_grace_anew(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    mark(sides, name)
    undo(name)
    undo(name, "--clear")  # before a cycle has taken the mark away
    rule = rule_at(sides, name)
    old = meta(rule) | {"phedex_gone_since": 1}
    sides.root.update_replication_rule(rule["id"], {"meta": json.dumps(old)})
    assert mark(sides, name) == mark(sides, name)
    assert mark(sides, name)["pending"] == 1
    sides.root.update_replication_rule(rule["id"], {"comment": "phedex-rucio: cleared 2"})
    assert mark(sides, name)["swept"] == 1


def test_a_keep_of_before_is_honoured_and_can_be_cleared(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    rule = rule_at(sides, name)
    kept = meta(rule) | {"phedex_keep": {"by": "somebody", "at": "2026-01-01T00:00:00Z", "cycle": "c-0"}}
    sides.root.update_replication_rule(rule["id"], {"meta": json.dumps(kept)})
    assert mark(sides, name, grace=0)["not_at_node"] == 1
    assert undo("c-0", "--clear") == {name: "cleared"}
    assert mark(sides, name, grace=0)["swept"] == 1


def test_a_sweep_that_is_announced_is_waited_for_and_the_truth_is_told(sides: TwoSides) -> None:
    names = leaving(sides, 1, 2)
    mark(sides, *names)
    site = find_site(Rucio(sides.main), NODE, Site())
    assert site is not None
    announcements.announce(
        Rucio(sides.main), NODE, f"{announcements.PREFIX}x", [names[0]], by="w", cycle="c", at=time.time()
    )
    order = Order(asked=frozenset(names), by="me", at="now", wait=0.5)
    states = {one.block: one.state for one in undo_marks(Rucio(sides.main), site, order)}
    assert states == {names[0]: Undone.UNSURE, names[1]: Undone.KEPT}


def test_kept_until_phedex_has_had_it_back(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    mark(sides, name)
    undo(name)
    sides.snapshot.add_replica(name, NODE)
    assert mark(sides, name)["updated"] == 1
    assert "phedex_keep" not in meta(rule_at(sides, name))
    sides.snapshot.remove_replica(name, NODE)
    assert mark(sides, name)["marked"] == 1


def test_what_was_swept_is_told_and_not_touched(sides: TwoSides) -> None:
    names = leaving(sides, 1, 2)
    mark(sides, *names)
    half, rule = sorted(sides.inside(names[1]))[0], rule_at(sides, names[1])
    begun = json.dumps(meta(rule) | {"phedex_sweeping": 1})  # a sweep that was cut
    sides.root.update_replication_rule(rule["id"], {"meta": begun})
    assert mark(sides, names[0], grace=0)["swept"] == 1
    sides.root.delete_replicas(NODE, [{"scope": "cms", "name": half}])
    before = [whole(sides, name) for name in names]
    assert undo("c-1", code=1) == dict.fromkeys(names, "swept")
    assert [whole(sides, name) for name in names] == before
    sides.rucio.run_daemon("judge-cleaner")
    assert undo(names[0], code=1) == {names[0]: "no_rule"}


def test_a_lifetime_that_somebody_gave_a_rule_is_no_sweep(sides: TwoSides) -> None:
    """The batch says why it waits, and what is kept has no end."""
    names = leaving(sides, 1, 2)
    mark(sides, *names)
    rules = [rule_at(sides, name)["id"] for name in names]
    for rule, seconds in zip(rules, (30 * 86400, 0), strict=True):
        sides.root.update_replication_rule(rule, {"lifetime": seconds})
    until = datetime.now(UTC) + timedelta(hours=1)
    result = sides.sync(
        *names, world=sides.world(site=Site(removal_grace=0, max_removal_share=1)), removable_until=until
    )
    assert result.counts["pending"] == 2
    (note,) = [note for note in result.notes if "end at" in note]
    assert note.startswith(f"{names[0]}: somebody had its rule {rules[0]} end at ")
    assert f"`rucio rule update {rules[0]} --lifetime None`" in note
    assert undo(*names, "--dry-run", code=1) == {names[0]: "kept", names[1]: "swept"}
    assert rule_at(sides, names[0])["expires_at"] is not None
    assert undo(*names, code=1) == {names[0]: "kept", names[1]: "swept"}
    kept, over = (rule_at(sides, name) for name in names)
    assert (kept["expires_at"], keep_of({}, kept["comments"]) is not None) == (None, True)
    assert (over["expires_at"] is None, keep_of({}, over["comments"])) == (False, None)
    assert mark(sides, names[0], grace=0)["not_at_node"] == 1


def test_an_end_that_somebody_gave_a_rule_is_lifted_however_near_it_is(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    mark(sides, name)
    sides.root.update_replication_rule(rule_at(sides, name)["id"], {"lifetime": 300})
    assert undo("--node", NODE, name) == {name: "kept"}
    assert rule_at(sides, name)["expires_at"] is None


def test_people_are_told_in_words(sides: TwoSides) -> None:
    (name,) = leaving(sides, 1)
    mark(sides, name)
    said = CliRunner().invoke(cli, ["undo", name, "--node", NODE, "--dry-run"], standalone_mode=False).output
    assert name in said
    assert "kept" in said
    assert "nothing was written" in said
