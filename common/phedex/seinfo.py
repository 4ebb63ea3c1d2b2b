"""Which storage does a PFN lead to? Scheme, host, port and the path of the web service in front of the file's own."""

from __future__ import annotations

from collections.abc import Iterable

import re2
from msgspec import Struct
from msgspec.structs import replace

from common.phedex.tfc import CatalogueError

_URL = re2.compile(r"^([a-z][a-z0-9+.-]*)://([^/:?#]+)(?::(\d+))?(/.*)$")
_WEB_SERVICE = re2.compile(r"^(/[^?]*\?SFN=)(.*)$")


class Seinfo(Struct, frozen=True, kw_only=True):
    """A storage. `port` 0: its PFNs name none. `web_service_path`: that of SRM, such as `/srm/managerv2?SFN=`.

    `prefix`: what stands before the LFN in the path, "" where that is not so, or not the same for all.
    """

    scheme: str
    hostname: str
    port: int = 0
    web_service_path: str = ""
    prefix: str = ""


def split(pfn: str) -> tuple[Seinfo, str]:
    """The storage of a PFN, and the path there. Raises CatalogueError for what is no URL with a host."""
    match = _URL.search(pfn)
    if match is None:
        raise CatalogueError(f"{pfn}: no URL of a storage such as srm://host:8443/srm/managerv2?SFN=/path")
    scheme, hostname, port, rest = match.groups()
    service = _WEB_SERVICE.search(rest)
    web_service_path, path = service.groups() if service else ("", rest)
    return Seinfo(scheme=scheme, hostname=hostname, port=int(port or 0), web_service_path=web_service_path), path


def seinfo(pfns: Iterable[tuple[str, str]]) -> Seinfo:
    """The one storage that all probes lead to, and what stands before every LFN there.

    `pfns`: pairs of LFN and PFN. Raises CatalogueError where they lead to different storages, with both.
    """
    probes = [(lfn, *split(pfn)) for lfn, pfn in pfns]
    if not probes:
        raise CatalogueError("no LFN was probed")
    first = probes[0]
    for lfn, storage, _ in probes:
        if storage != first[1]:
            raise CatalogueError(f"{first[0]} is at {_said(first[1])}, but {lfn} at {_said(storage)}: no one storage")
    prefixes = {(path.removesuffix(lfn) or "/") if path.endswith(lfn) else "" for lfn, _, path in probes}
    return replace(first[1], prefix=prefixes.pop() if len(prefixes) == 1 else "")


def _said(storage: Seinfo) -> str:
    return f"{storage.scheme}://{storage.hostname}:{storage.port or '(no port)'}{storage.web_service_path}"
