"""How are a catalogue's rules chosen and shown to people?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import re2

from cms_rucio_policy.stored import reached, stored_of
from common.phedex.tfc import Kind, Rule
from common.sync.selection import compiled

COLUMNS = ("element", "protocol", "path_match", "result", "chain", "destination_match", "is_custodial", "space_token")
# Ports that the original tools put where a PFN names none.
PORTS = {"srm": 8446, "gsiftp": 2811, "root": 1095}
_HOST = re2.compile(r"^([a-z]+)://([^/:$]+)(/.*)$")


def of_protocol(rules: Iterable[Rule], protocol: str, exclude: Sequence[str]) -> list[Rule]:
    """The lfn-to-pfn rules of a protocol and of each that it chains to, in file order, without excluded paths.

    Raises UsageError for an expression that RE2 refuses.
    """
    unwanted = [compiled(pattern, "--exclude-re") for pattern in exclude]
    kept = [
        rule for rule in rules if rule.kind is Kind.LFN_TO_PFN and not any(one(rule.path_match) for one in unwanted)
    ]
    return reached(kept, protocol)


def records(rules: Iterable[Rule], *, concise: bool, normalize: bool) -> list[dict[str, Any]]:
    """The rules as plain data; concise: as an RSE's protocol stores them; normalized: with a port in each result."""
    shown = [stored_of(rule) if concise else _whole(rule) for rule in rules]
    key = "out" if concise else "result"
    return [{**each, key: with_port(each[key])} for each in shown] if normalize else shown


def _whole(rule: Rule) -> dict[str, Any]:
    return {
        "element": str(rule.kind),
        "protocol": rule.protocol,
        "path_match": rule.path_match,
        "result": rule.result,
        "chain": rule.chain,
        "destination_match": rule.destination_match,
        "is_custodial": rule.is_custodial,
        "space_token": rule.space_token,
    }


def with_port(result: str) -> str:
    """The result with the default port of its scheme where it names none."""
    match = _HOST.search(result)
    if match is None or match.group(1) not in PORTS:
        return result
    scheme, host, rest = match.groups()
    return f"{scheme}://{host}:{PORTS[scheme]}{rest}"
