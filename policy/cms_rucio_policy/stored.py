"""How does an RSE's protocol carry a catalogue? Rucio keeps 4,000 characters, so only the rules that can apply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import re2

from cms_rucio_policy.tfc import Kind, Rule


def rule_of(stored: Mapping[str, str]) -> Rule:
    """A rule as an RSE's protocol stores it; `stored_of` is the way back."""
    return Rule(
        kind=Kind.LFN_TO_PFN,
        protocol=stored["proto"],
        path_match=stored["path"],
        result=stored["out"],
        chain=stored.get("chain"),
        destination_match=stored.get("destination-match"),
        is_custodial=stored.get("is-custodial"),
    )


def stored_for(rules: Iterable[Rule], protocol: str, node: str) -> list[dict[str, str]]:
    """The rules that can ever place an LFN for this protocol at this node, in order, as its RSE's protocol stores them.

    Rules of a protocol that no chain leads to, those for other destinations, and those for custodial files never apply.
    """
    kept = [rule for rule in rules if rule.kind is Kind.LFN_TO_PFN and _can_apply(rule, node)]
    return [stored_of(rule) for rule in reached(kept, protocol)]


def reached(rules: Iterable[Rule], protocol: str) -> list[Rule]:
    """The rules of a protocol and of each that it chains to, in order."""
    kept = list(rules)
    found: set[str] = set()
    ahead = {protocol}
    while ahead:
        found |= ahead
        ahead = {rule.chain for rule in kept if rule.protocol in ahead and rule.chain} - found
    return [rule for rule in kept if rule.protocol in found]


def _can_apply(rule: Rule, node: str) -> bool:
    if rule.is_custodial not in (None, "n"):
        return False
    return rule.destination_match is None or re2.search(rule.destination_match, node) is not None


def stored_of(rule: Rule) -> dict[str, str]:
    """What an RSE's protocol stores of a rule: all that decides about an LFN; space tokens and the way back are not."""
    stored = {
        "proto": rule.protocol,
        "path": rule.path_match,
        "out": rule.result,
        "chain": rule.chain,
        "destination-match": rule.destination_match,
        "is-custodial": rule.is_custodial,
    }
    return {key: text for key, text in stored.items() if text is not None}
