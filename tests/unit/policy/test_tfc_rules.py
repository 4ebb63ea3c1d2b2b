"""The rules of a Trivial File Catalogue one by one: which applies, which way, with which chain, and to what."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cms_rucio_policy.tfc import Catalogue, Kind, Resolved, Rule, TfcError, apply, catalogue

LFN, PFN = Kind.LFN_TO_PFN, Kind.PFN_TO_LFN


def rule(path: str, result: str, protocol: str = "p", kind: Kind = PFN, **more: Any) -> Rule:
    return Rule(kind=kind, protocol=protocol, path_match=path, result=result, **more)


def mapped(rules: list[Rule], name: str, kind: Kind = PFN, protocol: str = "p", **question: Any) -> str | None:
    found = apply(catalogue(rules), kind, protocol, name, **question)
    return None if found is None else found.name


def test_the_directions_are_called_as_in_storage_xml() -> None:
    assert list(Kind) == ["lfn-to-pfn", "pfn-to-lfn"]


def test_rules_keep_their_order_in_their_direction_and_protocol() -> None:
    rules = [
        rule("x", "1"),
        rule("x", "2", kind=LFN),
        rule("x", "3"),
        rule("x", "4", protocol="q"),
        rule("x", "5", kind=LFN),
    ]
    book = catalogue(rules)
    assert book.rules == tuple(rules)
    assert {key: [one.rule.result for one in group] for key, group in book.by_protocol.items()} == {
        (PFN, "p"): ["1", "3"],
        (LFN, "p"): ["2", "5"],
        (PFN, "q"): ["4"],
    }


@pytest.mark.parametrize("kind", [LFN, PFN])
def test_the_first_rule_that_applies_and_matches_maps(kind: Kind) -> None:
    rules = [
        rule("(.*)", "custodial:$1", kind=kind, is_custodial="y"),
        rule("(.*)", "elsewhere:$1", kind=kind, destination_match="^T1_"),
        rule("/never/(.*)", "never:$1", kind=kind),
        rule("/store/(.*)", "first:$1", kind=kind),
        rule("(.*)", "second:$1", kind=kind),
    ]
    ask: dict[str, Any] = {"kind": kind, "destination": "T2_IT_Pisa"}
    assert mapped(rules, "/store/x", **ask) == "first:x"
    assert mapped(rules, "/x", **ask) == "second:/x"
    assert mapped(rules[:4], "/x", **ask) is None
    assert mapped(rules, "/x", kind=kind, protocol="q") is None


@pytest.mark.parametrize("kind", [LFN, PFN])
@pytest.mark.parametrize(
    ("conditions", "question", "applies"),
    [
        ({}, {}, True),
        ({"is_custodial": "n"}, {}, True),  # not custodial unless it is said
        ({"is_custodial": "y"}, {}, False),
        ({"is_custodial": "y"}, {"custodial": "y"}, True),
        ({"is_custodial": "n"}, {"custodial": "y"}, False),
        ({}, {"custodial": "y"}, True),
        ({"destination_match": "_CERN"}, {"destination": "T2_CH_CERNBOX"}, True),
        ({"destination_match": "_CERN$"}, {"destination": "T2_CH_CERNBOX"}, False),
        ({"destination_match": "_CERN$"}, {}, True),
        ({}, {"destination": "T2_CH_CERNBOX"}, True),
        ({"destination_match": "_CERN", "is_custodial": "y"}, {"destination": "T2_CH_CERN"}, False),
    ],
)
def test_when_a_rule_is_for_a_question(
    kind: Kind, conditions: dict[str, Any], question: dict[str, Any], applies: bool
) -> None:
    found = mapped([rule("(.*)", "yes", kind=kind, **conditions)], "/x", kind=kind, **question)
    assert (found == "yes") is applies


def test_a_pfn_is_mapped_first_and_its_chain_after_it() -> None:
    rules = [rule("srm://h(.*)", "$1", chain="q"), rule("^/pnfs(.*)", "$1", protocol="q")]
    assert mapped(rules, "srm://h/pnfs/store/x") == "/store/x"


def test_an_lfn_goes_through_the_chain_first() -> None:
    rules = [
        rule("^/pnfs(.*)", "srm://h$1", kind=LFN, chain="q"),
        rule("^/store(.*)", "/pnfs$1", kind=LFN, protocol="q"),
    ]
    assert mapped(rules, "/store/x", kind=LFN) == "srm://h/x"


def test_a_pfn_whose_chain_gives_nothing_is_none_though_a_further_rule_matches() -> None:
    """A rule that matched answers for good, as PhEDEx had it; for an LFN the next rule is tried."""
    rules = [rule("(.*)", "$1", chain="q"), rule("(.*)", "further")]
    assert mapped(rules, "/store/x") is None
    assert (
        mapped([rule(one.path_match, one.result, kind=LFN, chain=one.chain) for one in rules], "/x", LFN) == "further"
    )


@pytest.mark.parametrize(
    ("outer", "inner", "token"), [(None, None, None), ("O", None, "O"), (None, "I", "I"), ("O", "I", "I")]
)
def test_the_token_of_a_pfn_is_that_of_the_last_rule_that_has_one(
    outer: str | None, inner: str | None, token: str | None
) -> None:
    rules = [rule("(.*)", "$1", chain="q", space_token=outer), rule("(.*)", "$1", protocol="q", space_token=inner)]
    assert apply(catalogue(rules), PFN, "p", "/x") == Resolved("/x", token)


def test_the_token_of_a_rule_without_a_chain_is_its_own() -> None:
    for kind in Kind:
        book = catalogue([rule("(.*)", "$1", kind=kind, space_token="T")])
        assert apply(book, kind, "p", "/x") == Resolved("/x", "T")


def chain_of(links: int, kind: Kind) -> Catalogue:
    rules = [rule("(.*)", "$1", protocol=f"p{n}", kind=kind, chain=f"p{n + 1}") for n in range(links)]
    return catalogue([*rules, rule("(.*)", "$1", protocol=f"p{links}", kind=kind)])


@pytest.mark.parametrize("kind", [LFN, PFN])
def test_a_chain_has_at_most_five_links_in_either_direction(kind: Kind) -> None:
    assert apply(chain_of(5, kind), kind, "p0", "/x") == Resolved("/x")
    with pytest.raises(TfcError, match=r"^/x: more than 5 chained protocols, last p6: the catalogue has a loop$"):
        apply(chain_of(6, kind), kind, "p0", "/x")


def test_a_chain_is_mapped_once_for_every_rule_that_asks_for_it() -> None:
    """Each level has eight rules that want the next one: without memory that would be 8 to the fifth."""
    levels = [
        rule(f"{number}$", "x", protocol=f"p{level}", kind=LFN, chain=f"p{level + 1}")
        for level, number in itertools.product(range(5), range(100))
    ]
    assert mapped([*levels, rule("(.*)", "$1", protocol="p5", kind=LFN)], "/store/x", kind=LFN, protocol="p0") is None


@pytest.mark.parametrize(
    ("path", "result", "name"),
    [
        ("b(.)", "[$1]", "a[c]d"),
        ("b(.)", "[${1}0]", "a[c0]d"),
        ("b(.)", "[$0]", "a[]d"),
        ("b(.)", "[$2]", "a[]d"),
        ("b(.)|(z)", "[$1$2]", "a[c]d"),
        ("(b)(c)", "$2$1", "acbd"),
        ("(b)(c)", "$2$12", "acd"),  # the twelfth group, and there is none
        ("b(.)", r"\$1\\", "a$1\\d"),
        ("b(.)", "$", "a$d"),
        ("b(.)", "", "ad"),
        ("^", ">", ">abcd"),
        ("$", "<", "abcd<"),
    ],
)
def test_the_stretch_that_matched_is_replaced(path: str, result: str, name: str) -> None:
    assert mapped([rule(path, result)], "abcd") == name


def test_the_longest_name_has_ten_thousand_characters() -> None:
    assert mapped([rule("^", "x" * 9999)], "a") == "x" * 9999 + "a"
    with pytest.raises(TfcError, match=r"^a: protocol p makes it longer than 10000 characters$"):
        mapped([rule("^", "x" * 10_000)], "a")


@pytest.mark.parametrize("where", ["path_match", "destination_match"])
def test_a_bad_expression_refuses_the_catalogue_and_says_where_it_stands(
    where: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """And says it once: RE2 itself would write to the standard error too."""
    bad: dict[str, Any] = {"path_match": "x", where: "(a"}
    rules = [rule("good", "1"), Rule(kind=LFN, protocol="srm", result="$1", **bad)]
    with pytest.raises(TfcError) as refused:
        catalogue(rules, "storage.xml")
    assert str(refused.value) == (
        "storage.xml: a lfn-to-pfn rule of protocol srm: bad regular expression '(a': missing ): (a"
    )
    with pytest.raises(TfcError, match=r"^rules: a lfn-to-pfn rule"):
        catalogue(rules)
    assert capfd.readouterr().err == ""
