"""How does a Trivial File Catalogue map a name? By PhEDEx's own rules, in linear time; needs nothing but RE2.

It lies in the policy package because Rucio's server maps names with it too, and has nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import re2

CHAIN_LIMIT = 5  # PhEDEx has no guard and recurses for ever; CMSRucio's plug-in stopped above 5.
NAME_LIMIT = 10_000  # characters; a result may repeat `$1`, and chains would multiply that. PhEDEx' names end at 1000.

_PLACEHOLDER = re2.compile(r"\\(.)|\$(\d+)|\$\{(\d+)\}")


class TfcError(ValueError):
    """A catalogue is none, or does not map a name: the text has the name and the protocol."""


class Kind(StrEnum):
    """The two directions of a rule, named as in storage.xml."""

    LFN_TO_PFN = "lfn-to-pfn"
    PFN_TO_LFN = "pfn-to-lfn"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One element of storage.xml. `path_match` and `destination_match` are always regular expressions."""

    kind: Kind
    protocol: str
    path_match: str
    result: str
    chain: str | None = None
    destination_match: str | None = None
    is_custodial: str | None = None
    space_token: str | None = None


@dataclass(frozen=True)
class Resolved:
    """What a name was mapped to, and the space token of the rules that did it."""

    name: str
    space_token: str | None = None


@dataclass(frozen=True)
class _Compiled:
    rule: Rule
    path: Any
    destination: Any


@dataclass(frozen=True)
class Catalogue:
    """A node's rules, ready to apply. Make it with `catalogue`."""

    rules: tuple[Rule, ...]
    by_protocol: dict[tuple[Kind, str], tuple[_Compiled, ...]]


@dataclass(frozen=True)
class _Question:
    kind: Kind
    asked: str
    destination: str | None
    custodial: str
    chained: dict[str, Resolved | None]  # every chain starts from the asked name, so each protocol is mapped once


def catalogue(rules: Iterable[Rule], origin: str = "rules") -> Catalogue:
    """Rules compiled and grouped by direction and protocol, order kept.

    A bad regular expression refuses the whole catalogue, as PhEDEx does. Raises TfcError.
    """
    kept = tuple(rules)
    groups: dict[tuple[Kind, str], tuple[_Compiled, ...]] = {}
    for rule in kept:
        key = (rule.kind, rule.protocol)
        groups[key] = (*groups.get(key, ()), _compile(rule, origin))
    return Catalogue(kept, groups)


def apply(
    book: Catalogue, kind: Kind, protocol: str, name: str, *, destination: str | None = None, custodial: str = "n"
) -> Resolved | None:
    """The mapped name, or None if no rule applies (PHEDEX::Core::Catalogue).

    Each rule starts from the original name; `path_match` is searched, not anchored; only the first matched stretch
    is replaced. A chain works before the rule for LFN to PFN and after it for PFN to LFN. Without a destination a
    rule with `destination_match` applies. Raises TfcError for a chain of more than 5 links.
    """
    return _apply(book, _Question(kind, name, destination, custodial, {}), protocol, name, 0)


def _apply(book: Catalogue, question: _Question, protocol: str, name: str, depth: int) -> Resolved | None:
    if depth > CHAIN_LIMIT:
        raise TfcError(
            f"{question.asked}: more than {CHAIN_LIMIT} chained protocols, last {protocol}: the catalogue has a loop"
        )
    for compiled in book.by_protocol.get((question.kind, protocol), ()):
        if not _is_for(compiled, question):
            continue
        if question.kind is Kind.LFN_TO_PFN:
            found = _map_after_chain(book, question, compiled, depth)
            if found is not None:
                return found
        elif (match := compiled.path.search(name)) is not None:
            return _map_before_chain(book, question, compiled, match, depth)
    return None


def _is_for(compiled: _Compiled, question: _Question) -> bool:
    if compiled.rule.is_custodial is not None and compiled.rule.is_custodial != question.custodial:
        return False
    if compiled.destination is None or question.destination is None:
        return True
    return compiled.destination.search(question.destination) is not None


def _map_after_chain(book: Catalogue, question: _Question, compiled: _Compiled, depth: int) -> Resolved | None:
    start: Resolved | None = Resolved(question.asked)
    if compiled.rule.chain is not None:
        start = _chained(book, question, compiled.rule.chain, depth)
    if start is None or (match := compiled.path.search(start.name)) is None:
        return None
    token = compiled.rule.space_token or start.space_token
    return Resolved(_replaced(match, compiled.rule, question), token)


def _chained(book: Catalogue, question: _Question, protocol: str, depth: int) -> Resolved | None:
    if protocol not in question.chained:
        question.chained[protocol] = _apply(book, question, protocol, question.asked, depth + 1)
    return question.chained[protocol]


def _map_before_chain(
    book: Catalogue, question: _Question, compiled: _Compiled, match: Any, depth: int
) -> Resolved | None:
    """A matched rule answers for good: a chain that gives nothing tries no further rule."""
    mapped = Resolved(_replaced(match, compiled.rule, question), compiled.rule.space_token)
    if compiled.rule.chain is None:
        return mapped
    end = _apply(book, question, compiled.rule.chain, mapped.name, depth + 1)
    return None if end is None else Resolved(end.name, end.space_token or mapped.space_token)


def _replaced(match: Any, rule: Rule, question: _Question) -> str:
    """The name with the matched stretch replaced; what stands before and after it stays."""
    groups = (match.group(0), *match.groups())

    def filled(placeholder: Any) -> str:
        escaped, bare, braced = placeholder.groups()
        if escaped is not None:
            return str(escaped)
        number = int(bare or braced)
        return groups[number] or "" if 0 < number < len(groups) else ""

    text: str = match.string
    name = text[: match.start()] + str(_PLACEHOLDER.sub(filled, rule.result)) + text[match.end() :]
    if len(name) > NAME_LIMIT:
        raise TfcError(f"{question.asked}: protocol {rule.protocol} makes it longer than {NAME_LIMIT} characters")
    return name


def _compile(rule: Rule, origin: str) -> _Compiled:
    destination = None if rule.destination_match is None else _expression(rule.destination_match, rule, origin)
    return _Compiled(rule, _expression(rule.path_match, rule, origin), destination)


def _expression(pattern: str, rule: Rule, origin: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        why = said.decode() if isinstance(said, bytes) else said
        raise TfcError(
            f"{origin}: a {rule.kind} rule of protocol {rule.protocol}: bad regular expression {pattern!r}: {why}"
        ) from error
