"""Where is a file at an RSE? Rucio's algorithm `cmstfc`: the Trivial File Catalogue that the RSE's protocol carries.

The protocol's `extended_attributes` hold `tfc`, a list of rules {proto, path, out, chain?, destination-match?,
is-custodial?}, and `tfc_proto`, the protocol that a name is mapped by (`srmv2` if it is not there).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import re2

from cms_rucio_policy import tfc
from cms_rucio_policy.stored import rule_of
from cms_rucio_policy.tfc import Catalogue, Kind, TfcError

DEFAULT_PROTOCOL = "srmv2"
# A server maps for some hundred RSEs; each has one catalogue of some dozen rules.
CATALOGUES = 1024
URL = re2.compile(r"^[a-z][a-z0-9+.-]*://[^/]")


def path_of(name: str, rse: str, rse_attrs: Mapping[str, Any], proto_attrs: Mapping[str, Any]) -> str:
    """The path below the protocol's prefix, or a whole URL where the catalogue leads to another host.

    The PFN that Rucio makes of it is the one that PhEDEx made: rules apply as for a transfer to the RSE's node (`pnn`)
    of what is not custodial. Rucio's gfal protocol takes a whole URL as it is, if the protocol has a port, and drops
    one leading slash of any other path unless the scheme is root. Raises TfcError with the name, and the rules tried.
    """
    extended = proto_attrs.get("extended_attributes") or {}
    protocol = str(extended.get("tfc_proto") or DEFAULT_PROTOCOL)
    try:
        book = _catalogue(json.dumps(extended["tfc"], sort_keys=True))
        found = tfc.apply(book, Kind.LFN_TO_PFN, protocol, name, destination=rse_attrs.get("pnn"))
        if found is None:
            raise TfcError(_said(book, protocol))
        return _below(found.name, proto_attrs)
    except KeyError as error:
        raise TfcError(f"{rse}: cannot place {name}: its protocol has no catalogue: {error}") from None
    except (TfcError, TypeError) as error:
        raise TfcError(f"{rse}: cannot place {name}: {error}") from None


@functools.lru_cache(maxsize=CATALOGUES)
def _catalogue(rules: str) -> Catalogue:
    return tfc.catalogue(rule_of(each) for each in json.loads(rules))


def _below(pfn: str, proto_attrs: Mapping[str, Any]) -> str:
    """The PFN without what Rucio puts before the path: scheme, host, port, web service path, prefix."""
    head = _head(proto_attrs)
    if not pfn.startswith(head):
        return _elsewhere(pfn, head, proto_attrs)
    path = pfn[len(head) :]
    is_eaten = path.startswith("/") and proto_attrs["scheme"] != "root"
    return f"/{path}" if is_eaten else path


def pfn_of(path: str, proto_attrs: Mapping[str, Any]) -> str:
    """What Rucio's gfal protocol makes of a path (rucio/rse/protocols/gfal.py, `lfns2pfns`), for checks before use."""
    if proto_attrs.get("port") and URL.search(path):
        return path
    if proto_attrs["scheme"] != "root":
        path = path.removeprefix("/")
    return _head(proto_attrs) + path


def _elsewhere(pfn: str, head: str, proto_attrs: Mapping[str, Any]) -> str:
    """A rule that matches in the middle of a name leaves what stands before it: such a result is no place at all."""
    if not URL.search(pfn):
        raise TfcError(f"the catalogue makes {pfn}, which is no URL of a storage")
    if not proto_attrs.get("port"):
        raise TfcError(
            f"the catalogue leads to {pfn}, the protocol to {head}…, and without a port it knows no other host"
        )
    return pfn


def _head(proto_attrs: Mapping[str, Any]) -> str:
    port = proto_attrs.get("port")
    extended = proto_attrs.get("extended_attributes") or {}
    prefix = str(proto_attrs.get("prefix") or "").strip("/")
    return "".join(
        [
            f"{proto_attrs['scheme']}://{proto_attrs['hostname']}",
            f":{port}" if port else "",
            str(extended.get("web_service_path") or ""),
            f"/{prefix}/" if prefix else "/",
        ]
    )


def _said(book: Catalogue, protocol: str) -> str:
    """The rules that were tried, for whoever reads the error."""
    rules = book.by_protocol.get((Kind.LFN_TO_PFN, protocol), ())
    if not rules:
        known = sorted({name for _, name in book.by_protocol})
        return f"the catalogue has no protocol {protocol}, only {', '.join(known) or 'nothing'}"
    tried = ", ".join(each.rule.path_match + (f" after {each.rule.chain}" if each.rule.chain else "") for each in rules)
    return f"no rule of protocol {protocol} applies; it has {tried}"
