"""How does a file get onto the storage of an RSE? By Rucio's own upload client, kept to exactly one place."""

from __future__ import annotations

import copy
import importlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from common.errors import PhedexRucioError, RucioRefused, UsageError
from common.rucio import configuration, webdav
from common.rucio.session import Row, Rucio
from common.settings.urls import insecure
from common.spool import Content
from common.telemetry.redact import redact

with configuration.explained():
    from rucio.client.uploadclient import UploadClient
    from rucio.common.exception import (
        FileReplicaAlreadyExists,
        MissingDependency,
        MissingModuleException,
        NoFilesUploaded,
        RSEFileNameNotSupported,
    )

    from common.rucio.errors import OURS, translated

DOMAIN = "wan"
RUCIOS_OWN = "rucio.rse.protocols."
WEBDAV = f"{RUCIOS_OWN}webdav.Default"
_MISSING = re.compile(r"(?i)missing dependency\s*:\s*(\S+)|No module named '?([\w.]+)")

# What it has to say comes back as an error of ours; at DEBUG it would write signed addresses too.
_logger = logging.getLogger("common.rucio.upload")
_logger.setLevel(logging.CRITICAL)


class StorageError(PhedexRucioError):
    """A storage did not take, or not show, a file: it is tried again later."""


class Place(Struct, frozen=True):
    """Where a file belongs at an RSE. `row`: the RSE as Rucio's client wants it, with the one protocol to be used."""

    rse: str
    scope: str
    name: str
    pfn: str
    row: Row


class _Uploader(UploadClient):  # type: ignore[misc]
    """Rucio's upload client without its habits: it tells nobody, reads nothing twice, and knows one place.

    Rucio's own asks for names by another client, which sends our command line as a header; for an RSE that does not
    tell its names it looks for the remains of an earlier try at the wrong place, and gives up (41.5.1).
    """

    def __init__(self, rucio: Rucio, place: Place, content: Content | None = None) -> None:
        super().__init__(rucio.client, logger=_logger)
        self.tracing, self.client_location = False, None
        self.place, self.content = place, content
        self.rses[place.rse] = copy.deepcopy(place.row)  # its protocols write into it

    def _collect_file_info(self, filepath: str, item: dict[str, Any]) -> dict[str, Any]:
        folder, _, base = filepath.rpartition("/")
        checked = {"bytes": self.content.bytes, "adler32": self.content.adler32} if self.content else {}
        return {**item, **checked, "path": filepath, "dirname": folder, "basename": base, "state": "C"}

    def _create_protocol(self, *args: Any, **options: Any) -> Any:
        protocol = super()._create_protocol(*args, **options)
        protocol.lfns2pfns = lambda _: {f"{self.place.scope}:{self.place.name}": self.place.pfn}
        return protocol

    def protocol(self) -> Any:
        """The protocol of the place, connected."""
        return self._create_protocol(self.rses[self.place.rse], "write", domain=DOMAIN)


def place(rucio: Rucio, row: Row, scope: str, name: str, pfn: str) -> Place:
    """Where the file belongs at the RSE (`row`, as `get_rse` gives it): the PFN, or where the RSE puts the name.

    Raises UsageError where no protocol writes there, its program is missing here, or it would go there in clear.
    """
    rse, scheme = str(row["rse"]), pfn.partition("://")[0]
    protocol = _usable(_writing(row, scheme), rse, scheme)
    if not pfn:
        did, about = f"{scope}:{name}", f"{name} at {rse}"
        options = {"protocol_domain": DOMAIN, "operation": "write", "scheme": protocol["scheme"]}
        pfn = str(rucio.row("lfns2pfns", rse, [did], about=about, **options)[did])
    _check_pfn(pfn, insecure_too=rucio.main.allow_insecure)
    return Place(rse, scope, name, pfn, {**row, "protocols": [protocol]})


def stored(rucio: Rucio, where: Place) -> Content | None:
    """What the storage has at the place, without a checksum where it tells none; None if nothing.

    Raises StorageError, and UsageError for a PFN outside of the RSE.
    """
    with _told(where):
        protocol = _Uploader(rucio, where).protocol()
        try:
            protocol.parse_pfns([where.pfn])
            if not protocol.exists(where.pfn):
                return None
            found = protocol.stat(where.pfn)
        finally:
            protocol.close()
    adler32 = str(found.get("adler32") or "").lower()
    return Content(int(found["filesize"]), adler32.rjust(8, "0") if adler32 else "")


def store(rucio: Rucio, where: Place, path: str, content: Content) -> None:
    """The storage has the file at the place: written beside it, compared in size and checksum, then given its name.

    What was there before is not replaced. Raises StorageError.
    """
    item = {
        "path": path,
        "rse": where.rse,
        "did_scope": where.scope,
        "did_name": where.name,
        "pfn": where.pfn,
        "no_register": True,
    }
    traces: list[dict[str, Any]] = []
    with _told(where):
        try:
            _Uploader(rucio, where, content).upload([item], traces_copy_out=traces)
        except NoFilesUploaded:
            why = " ".join(str(trace.get("stateReason", "")) for trace in traces).strip()
            raise StorageError(
                redact(f"{where.rse}: {where.pfn} was not stored: {_short(why) or 'no reason given'}")
            ) from None


@contextmanager
def _told(where: Place) -> Iterator[None]:
    """What a storage says, as ours: what it refuses is final, the rest is tried again."""
    try:
        yield
    except (RSEFileNameNotSupported, FileReplicaAlreadyExists) as error:
        raise UsageError(redact(f"{where.rse}: cannot be at {where.pfn}: {_short(str(error))}")) from None
    except OURS as error:
        ours = translated(error, f"storage {where.rse}")
        if isinstance(ours, RucioRefused):
            raise ours from error
        said = _short(str(error)) or type(error).__name__
        raise StorageError(redact(f"{where.rse}: {where.pfn}: {type(error).__name__}: {said}")) from error


def _writing(row: Row, scheme: str) -> list[Row]:
    """The protocols that write there, the RSE's first choice first."""
    found = [p for p in row["protocols"] if p["domains"].get(DOMAIN, {}).get("write") and scheme in ("", p["scheme"])]
    return sorted(found, key=lambda protocol: int(protocol["domains"][DOMAIN]["write"]))


def _usable(protocols: list[Row], rse: str, scheme: str) -> Row:
    """The first protocol whose program is here."""
    if not protocols:
        raise UsageError(f"{rse}: has no protocol {scheme + ' ' if scheme else ''}to write by")
    lacking = []
    for protocol in protocols:
        missing = _missing(str(protocol["impl"]))
        if not missing:
            return {**protocol, "impl": webdav.IMPLEMENTATION} if protocol["impl"] == WEBDAV else protocol
        lacking.append(f"{protocol['scheme']} needs {missing}")
    raise UsageError(f"{rse}: {' and '.join(lacking)}, which is not installed here")


def _missing(implementation: str) -> str:
    """What a protocol's code needs and does not find; "" if it can be used."""
    if not implementation.startswith(RUCIOS_OWN):
        return f"the implementation {implementation}"
    with configuration.explained():
        try:
            importlib.import_module(implementation.rpartition(".")[0])
        except (ImportError, MissingDependency, MissingModuleException) as error:
            found = _MISSING.search(str(error))
            return next((word for word in found.groups() if word), "") if found else _short(str(error))
    return ""


def _check_pfn(pfn: str, *, insecure_too: bool) -> None:
    """A PFN goes to the storage as it is: it must not lead out of the RSE's prefix, nor break a header."""
    plain = unquote(pfn)
    if "://" not in pfn or not plain.isprintable() or ".." in re.split(r"[/=?]", plain):
        raise UsageError(f"pfn: {pfn!r:.300}: no URL of a place, or it has a part that is `..`")
    if pfn.startswith("http://") and insecure(pfn) and not insecure_too:
        raise UsageError(f"pfn: {pfn}: would be sent unencrypted; main.allow_insecure permits it")


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 400 else f"{words[:400]} …"
