"""Where does a site store a file? Its storage.xml or the reply of a `tfc` call, read for `cms_rucio_policy.tfc`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from xml.etree.ElementTree import Element, ParseError
from xml.parsers.expat import ErrorString

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from cms_rucio_policy import tfc as mapping
from cms_rucio_policy.tfc import Catalogue, Kind, Resolved, Rule
from common.errors import UsageError

__all__ = ["Catalogue", "CatalogueError", "Kind", "Resolved", "Rule"]


class CatalogueError(UsageError):
    """A catalogue cannot be read, or does not map a name: the text has the name and the protocol."""


def parse(document: bytes | str, origin: str = "storage.xml") -> Catalogue:
    """The catalogue of a storage.xml document; `origin` names it in errors.

    Raises CatalogueError for ill-formed XML, any DTD or entity, a missing attribute or a bad regular expression.
    """
    try:
        root = defusedxml.ElementTree.fromstring(document, forbid_dtd=True)
    except ParseError as error:
        line, column = error.position
        raise CatalogueError(
            f"{origin}: not a storage.xml that can be read: {ErrorString(error.code)} at {line}:{column}"
        ) from error
    except (DefusedXmlException, ValueError) as error:
        raise CatalogueError(f"{origin}: not a storage.xml that can be read: {error!r}") from error
    return catalogue([_rule(element, origin) for element in root.iter() if element.tag in set(Kind)], origin)


def from_reply(records: Iterable[Mapping[str, str]], origin: str = "tfc") -> Catalogue:
    """The catalogue of a `tfc` call: `phedex["storage-mapping"]["array"]`.

    That call writes `is_custodial` and `space_token` where storage.xml has hyphens. Raises CatalogueError.
    """
    return catalogue([_from_attributes(str(r.get("element_name")), r, origin) for r in records], origin)


def catalogue(rules: Iterable[Rule], origin: str = "rules") -> Catalogue:
    """Rules compiled and grouped by direction and protocol, order kept.

    A bad regular expression refuses the whole catalogue, as PhEDEx does. Raises CatalogueError.
    """
    with _ours():
        return mapping.catalogue(rules, origin)


def apply(
    book: Catalogue, kind: Kind, protocol: str, name: str, *, destination: str | None = None, custodial: str = "n"
) -> Resolved | None:
    """The mapped name, or None if no rule applies. Raises CatalogueError for a chain of more than 5 links."""
    with _ours():
        return mapping.apply(book, kind, protocol, name, destination=destination, custodial=custodial)


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except mapping.TfcError as error:
        raise CatalogueError(str(error)) from error


def lfn_to_pfn(
    book: Catalogue, protocol: str, lfn: str, *, destination: str | None = None, custodial: str = "n"
) -> Resolved:
    """The PFN of an LFN. Raises CatalogueError where no rule applies."""
    return _required(
        apply(book, Kind.LFN_TO_PFN, protocol, lfn, destination=destination, custodial=custodial), "LFN", lfn, protocol
    )


def pfn_to_lfn(
    book: Catalogue, protocol: str, pfn: str, *, destination: str | None = None, custodial: str = "n"
) -> Resolved:
    """The LFN of a PFN; not every PFN can be turned back. Raises CatalogueError where no rule applies."""
    return _required(
        apply(book, Kind.PFN_TO_LFN, protocol, pfn, destination=destination, custodial=custodial), "PFN", pfn, protocol
    )


def _required(found: Resolved | None, what: str, name: str, protocol: str) -> Resolved:
    if found is None:
        raise CatalogueError(f"{what} {name}: no rule of protocol {protocol} applies; look at the site's storage.xml")
    return found


def _rule(element: Element, origin: str) -> Rule:
    renamed = {"is-custodial": "is_custodial", "space-token": "space_token"}
    return _from_attributes(element.tag, {renamed.get(key, key): text for key, text in element.attrib.items()}, origin)


def _from_attributes(kind: str, attributes: Mapping[str, str], origin: str) -> Rule:
    try:
        return Rule(
            kind=Kind(kind),
            protocol=attributes["protocol"],
            path_match=attributes["path-match"],
            result=attributes["result"],
            chain=attributes.get("chain") or None,
            destination_match=attributes.get("destination-match") or None,
            is_custodial=attributes.get("is_custodial") or None,
            space_token=attributes.get("space_token") or None,
        )
    except (KeyError, ValueError) as error:
        raise CatalogueError(f"{origin}: a rule {dict(attributes)} lacks or misuses {error}") from error
