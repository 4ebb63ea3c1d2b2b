"""What should an RSE be, and what is to change? Pure: facts in, a definition and its differences out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from common.errors import UsageError
from common.messages.events import Change
from common.phedex.seinfo import Seinfo
from common.rucio.definitions import Definition, Protocol
from common.rucio.rses import HANDED_OVER, SWITCH
from consumers.setup.naming import ALGORITHM, Named, RseKind, country_of, tier_of

# In the path of an RSE that is not placed by a catalogue: below what its site's storage has before the LFN.
BELOW = {"real": "", "temp": "/store/temp", "test": "/store/test/rucio"}
_NOTHING = {"read": 0, "write": 0, "delete": 0}
_ALL = {"read": 1, "write": 1, "delete": 1}
_TRANSFERS = {"third_party_copy_read": 1, "third_party_copy_write": 1}
# Of a real RSE nobody but PhEDEx writes or deletes: it is read and copied from.
DOMAINS: dict[str, dict[str, dict[str, int]]] = {
    "real": {"lan": _NOTHING, "wan": {"read": 1, "write": 0, "delete": 0, **_TRANSFERS}},
    "temp": {"lan": _NOTHING, "wan": {**_ALL, **_TRANSFERS}},
    "test": {"lan": _NOTHING, "wan": {**_ALL, **_TRANSFERS}},
}
CATALOGUE = "cmstfc"
NON_DETERMINISTIC = "hash"
EXTENDED_LENGTH = 4_000  # characters that Rucio keeps of a protocol's attributes
OPERATIONS = {domain: {*_ALL, *_TRANSFERS} for domain in ("lan", "wan")}
# Attributes that nobody may give, and what says them instead.
NOT_GIVEN = {
    SWITCH: "`phedex-rucio site` sets the switch",
    HANDED_OVER: "`phedex-rucio site` hands over",
    "pnn": "--pnn says it",
    "cms_type": "--type says it",
    "lfn2pfn_algorithm": "--lfn2pfn says it",
}
# What others write: the switch of the sync is not a part of what an RSE is.
OURS_NEVER = frozenset({SWITCH, HANDED_OVER})


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a node: its storage, the rules of its catalogue as a protocol stores them, its FTS servers."""

    node: str
    kind: RseKind
    named: Named
    storage: Seinfo
    rules: list[dict[str, str]]
    fts: str = ""
    inventory: str = ""


class Wishes(Struct, frozen=True, kw_only=True):
    """What a person wants otherwise: attributes, the algorithm, domains, a space token, the catalogue's protocol."""

    tier: str = ""
    country: str = ""
    algorithm: str = ""
    protocol: str = "srmv2"
    space_token: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    domains: Mapping[str, Mapping[str, int]] | None = None


def check(attributes: Mapping[str, str], domains: Mapping[str, Mapping[str, int]] | None) -> None:
    """Raises UsageError for attributes that are not for a person to give, and for domains that Rucio does not know."""
    for name in sorted(attributes.keys() & NOT_GIVEN.keys()):
        raise UsageError(f"attribute {name}: not to be given: {NOT_GIVEN[name]}")
    for domain, operations in (domains or {}).items():
        if domain not in OPERATIONS:
            raise UsageError(f"domains: Rucio knows no {domain!r}, but {' and '.join(OPERATIONS)}")
        for name, priority in operations.items():
            if name not in OPERATIONS[domain] or priority < 0:
                known = ", ".join(sorted(OPERATIONS[domain]))
                raise UsageError(f"domains: {name!r}: {priority}: not a number from 0 up for one of {known}")


def wanted(facts: Facts, wishes: Wishes) -> Definition:
    """The RSE as it should be.

    Raises UsageError for a catalogue that Rucio cannot keep, a prefix nobody knows, and what `check` refuses.
    """
    check(wishes.attributes, wishes.domains)
    algorithm = wishes.algorithm or ALGORITHM[facts.kind]
    attributes = {
        "fts": facts.fts,
        "tier": wishes.tier or tier_of(facts.node),
        "country": wishes.country or country_of(facts.node),
        "lfn2pfn_algorithm": algorithm,
        "pnn": facts.node,
        "cms_type": facts.kind,
        "inventory_node": facts.inventory,
        facts.named.rse: "True",
        **wishes.attributes,
    }
    return Definition(
        rse=facts.named.rse,
        rse_type=facts.named.rse_type,
        deterministic=algorithm != NON_DETERMINISTIC,
        attributes={key: value for key, value in attributes.items() if value},
        protocols=[_protocol(facts, wishes, algorithm)],
    )


def _protocol(facts: Facts, wishes: Wishes, algorithm: str) -> Protocol:
    extended: dict[str, Any] = {}
    if facts.storage.web_service_path:
        extended["web_service_path"] = facts.storage.web_service_path
    if wishes.space_token:
        extended["space_token"] = wishes.space_token
    if algorithm == CATALOGUE:
        extended |= {"tfc": facts.rules, "tfc_proto": wishes.protocol}
    _check_length(facts, extended)
    chosen = wishes.domains if wishes.domains is not None else DOMAINS[facts.kind]
    return Protocol(
        scheme=facts.storage.scheme,
        hostname=facts.storage.hostname,
        port=facts.storage.port,
        prefix="/" if algorithm == CATALOGUE else _prefix(facts),
        extended=extended,
        domains={domain: dict(operations) for domain, operations in chosen.items()},
    )


def _prefix(facts: Facts) -> str:
    if not facts.storage.prefix:
        raise UsageError(f"{facts.node}: its catalogue puts no common path before the LFN: give --seinfo prefix=/path")
    return facts.storage.prefix.rstrip("/") + BELOW[facts.kind] or "/"


def _check_length(facts: Facts, extended: dict[str, Any]) -> None:
    length = len(json.dumps(extended))
    if length > EXTENDED_LENGTH:
        raise UsageError(
            f"{facts.named.rse}: its catalogue has {length:,} characters, Rucio keeps {EXTENDED_LENGTH:,}: "
            "leave rules out with --tfc-exclude"
        )


def changes(want: Definition, have: Definition | None) -> list[Change]:
    """What is to be written so that the RSE is as it should be: nothing else of it is touched.

    Raises UsageError where it is deterministic and should not be, or the other way round: its files are placed by that.
    """
    if have is None:
        have = Definition(rse=want.rse, rse_type="", deterministic=want.deterministic, attributes={}, protocols=[])
        return [
            Change(what="rse", name=want.rse, wants=want.rse_type),
            *_attributes(want, have),
            *_protocols(want, have),
        ]
    if have.deterministic is not want.deterministic:
        said = {True: "deterministic", False: "not deterministic"}
        raise UsageError(
            f"{want.rse}: is {said[have.deterministic]} and should be {said[want.deterministic]}: "
            "files that are there were placed by that; make an RSE of another name, or give --lfn2pfn"
        )
    found = (
        []
        if have.rse_type == want.rse_type
        else [Change(what="type", name=want.rse, was=have.rse_type, wants=want.rse_type)]
    )
    return [*found, *_attributes(want, have), *_protocols(want, have)]


def _attributes(want: Definition, have: Definition) -> Iterator[Change]:
    for key, value in want.attributes.items():
        was = have.attributes.get(key, "")
        if was != value and key not in OURS_NEVER:
            yield Change(what="attribute", name=key, was=was, wants=value)


def _protocols(want: Definition, have: Definition) -> Iterator[Change]:
    new = want.protocols[0]
    old = counterpart(new, have)
    if old is None or not _same(new, old):
        yield Change(what="protocol", name=new.scheme, was=said(old) if old else "", wants=said(new))


def counterpart(new: Protocol, have: Definition) -> Protocol | None:
    """The protocol that becomes the new one: that at the same address, else the only one of its scheme."""
    by_key = {each.key: each for each in have.protocols}
    of_scheme = [each for each in have.protocols if each.scheme == new.scheme]
    return by_key.get(new.key) or (of_scheme[0] if len(of_scheme) == 1 else None)


def _same(new: Protocol, old: Protocol) -> bool:
    """Rucio fills in what a domain does not say: only what is wanted is compared."""
    domains = all(
        old.domains.get(domain, {}).get(operation) == value
        for domain, operations in new.domains.items()
        for operation, value in operations.items()
    )
    return domains and (new.key, new.prefix, new.impl, new.extended) == (old.key, old.prefix, old.impl, old.extended)


def said(protocol: Protocol) -> str:
    """A protocol in one line."""
    port = f":{protocol.port}" if protocol.port else ""
    service = str(protocol.extended.get("web_service_path", ""))
    rules = protocol.extended.get("tfc")
    catalogue = f" with {len(rules)} rules" if rules is not None else ""
    wan = protocol.domains.get("wan", {})
    allowed = ",".join(sorted(name for name, value in wan.items() if value)) or "nothing"
    return f"{protocol.scheme}://{protocol.hostname}{port}{service}{protocol.prefix}{catalogue}, wan {allowed}"
