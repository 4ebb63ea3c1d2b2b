"""What counts as left by older tools, block by block and rule by rule?"""

import pytest

from common.sync.catalogue import RuleAtRse
from common.sync.findings import Finding, Kind
from common.sync.handover import Held
from common.sync.legacy import EXAMPLES, MEANING, Left, Legacy, carry_over, count_block, count_rule, count_rules

BLOCK = "/a/b/RAW#1"


def seen(*findings: Finding, has_rule: bool = True, strange: bool = False) -> Legacy:
    found = Legacy("N", "R")
    count_block(found, BLOCK, 3, list(findings), has_rule=has_rule, strange=strange)
    return found


def missing(number: int) -> list[Finding]:
    return [Finding(Kind.REPLICA_MISSING, BLOCK, f"/store/{n}") for n in range(number)]


def test_a_block_that_was_never_synced_is_nothing() -> None:
    ordinary = [Finding(Kind.RULE_MISSING, BLOCK), Finding(Kind.FILE_MISSING, BLOCK, "/store/1"), *missing(3)]
    assert seen(*ordinary, has_rule=False).is_clean
    assert not seen(*ordinary[1:], has_rule=True).is_clean


def test_replicas_without_a_rule_are_counted() -> None:
    found = seen(*missing(1), has_rule=False)
    assert (found.counts, found.to_mend) == ({"replica_no_rule": 2}, {BLOCK})
    assert seen(Finding(Kind.UNREAD, BLOCK), has_rule=False).counts == {"unread": 1}


def test_a_rule_without_meta_is_one_thing() -> None:
    differs = Finding(Kind.RULE_DIFFERS, BLOCK, detail="group or custodial flag")
    assert seen(differs, strange=True).is_clean
    assert seen(differs).counts == {"rule_differs": 1}


@pytest.mark.parametrize(
    ("rule", "owner", "has_meta", "kinds"),
    [
        (RuleAtRse("1", 3), "a", True, set()),
        (RuleAtRse("1", 3), "b", True, {"former_owner"}),
        (RuleAtRse("1", 3, plain=False), "b", False, {"former_owner", "no_meta", "old_expression"}),
        (RuleAtRse("1", 3, ending=True), "b", False, set()),
    ],
)
def test_rules(rule: RuleAtRse, owner: str, has_meta: bool, kinds: set[str]) -> None:
    found = Legacy("N", "R")
    count_rule(found, rule, Held("1", BLOCK, 3, "", "a"), owner=owner, has_meta=has_meta)
    assert found.counts.keys() == kinds
    assert len(found.former) == ("former_owner" in kinds)


@pytest.mark.parametrize(
    ("rules", "kinds"),
    [
        ([RuleAtRse("1", 3)], set()),
        ([RuleAtRse("1", 3), RuleAtRse("2", 3)], {"rule_doubled"}),
        ([RuleAtRse("1", 3), RuleAtRse("2", 3, ending=True)], set()),
        ([RuleAtRse("1", 3, ending=True)], {"expiring"}),
        ([RuleAtRse("1", 3, ending=True, gone_since=5)], set()),
    ],
)
def test_all_rules_of_a_block(rules: list[RuleAtRse], kinds: set[str]) -> None:
    found = Legacy("N", "R")
    count_rules(found, BLOCK, rules)
    assert found.counts.keys() == kinds


def test_notes_alone_are_clean_and_examples_are_few() -> None:
    found = Legacy("N", "R")
    for number in range(20):
        found.add(Left.OLD_EXPRESSION, f"{BLOCK}{number}")
    assert found.is_clean
    assert len(found.examples["old_expression"]) == EXAMPLES


def test_a_second_look_at_some_keeps_what_lasts_in_others() -> None:
    before, after = Legacy("N", "R", blocks=9, files=27), Legacy("N", "R", blocks=1)
    before.add(Left.NO_META, "/mended")
    for name in ("/mended", "/other"):
        before.add(Kind.CONFLICT, name)
    carry_over(before, after)
    assert (after.blocks, after.files, after.counts) == (9, 27, {"conflict": 1})


def test_every_kind_is_said_in_words() -> None:
    ours = {*Left, *Kind} - {Kind.RULE_MISSING, Kind.RULE_DOUBLED, Kind.RULE_SURPLUS}
    assert {str(kind) for kind in MEANING} >= {str(kind) for kind in ours}
