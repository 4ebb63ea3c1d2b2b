"""What is an RSE in Rucio: its settings, attributes and protocols, and how does one of them change?"""

from __future__ import annotations

import contextlib
from typing import Any

from msgspec import Struct, field

from common.errors import NotFound, RucioConflict
from common.rucio.rses import attributes_of
from common.rucio.session import Rucio

GFAL = "rucio.rse.protocols.gfal.Default"


class Protocol(Struct, frozen=True, kw_only=True):
    """How files at an RSE are reached. `port` 0: PFNs name none. `extended`: what the lfn2pfn algorithm reads."""

    scheme: str
    hostname: str
    port: int
    prefix: str
    impl: str = GFAL
    extended: dict[str, Any] = field(default_factory=dict)
    domains: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from another protocol of the same RSE, for Rucio."""
        return self.scheme, self.hostname, self.port


class Definition(Struct, frozen=True, kw_only=True):
    """An RSE. Attributes as text: Rucio gives `True` back as a truth value, numbers as text."""

    rse: str
    rse_type: str
    deterministic: bool
    attributes: dict[str, str]
    protocols: list[Protocol]


def read(rucio: Rucio, rse: str) -> Definition | None:
    """The RSE as it is, or None. Two requests."""
    try:
        row = rucio.row("get_rse", rse, about=rse)
    except NotFound:
        return None
    return Definition(
        rse=rse,
        rse_type=str(row["rse_type"]),
        deterministic=bool(row["deterministic"]),
        attributes={key: str(value) for key, value in (attributes_of(rucio, rse) or {}).items()},
        protocols=[_protocol(each) for each in row["protocols"]],
    )


def _protocol(row: dict[str, Any]) -> Protocol:
    return Protocol(
        scheme=row["scheme"],
        hostname=row["hostname"],
        port=int(row["port"] or 0),
        prefix=row["prefix"] or "",
        impl=row["impl"],
        extended=row["extended_attributes"] or {},
        domains=row["domains"],
    )


def create(rucio: Rucio, rse: str, rse_type: str, *, deterministic: bool) -> None:
    """The RSE exists; whoever else made it meanwhile made the same or is found at the next look."""
    with contextlib.suppress(RucioConflict):
        rucio.call("add_rse", rse, deterministic=deterministic, rse_type=rse_type, about=rse)


def set_type(rucio: Rucio, rse: str, rse_type: str) -> None:
    """The RSE is of type DISK or TAPE."""
    rucio.call("update_rse", rse, {"rse_type": rse_type}, about=rse)


def set_attribute(rucio: Rucio, rse: str, key: str, value: str) -> None:
    """The RSE has the attribute with this value, whatever it had."""
    rucio.call("add_rse_attribute", rse, key, value, about=f"{rse} {key}")


def add_protocol(rucio: Rucio, rse: str, protocol: Protocol) -> None:
    """The RSE has the protocol; NotFound where there is no such RSE."""
    plain = _plain(protocol)
    if not protocol.extended:
        del plain["extended_attributes"]  # Rucio turns no empty object into text, and its database refuses it (41.5)
    with contextlib.suppress(RucioConflict):
        rucio.call("add_protocol", rse, plain, about=f"{rse} {protocol.scheme}")


def change_protocol(rucio: Rucio, rse: str, old: Protocol, new: Protocol) -> None:
    """The protocol is another one from one moment to the next, its host too: the RSE is never without."""
    plain = {key: value for key, value in _plain(new).items() if key != "scheme"}
    rucio.call("update_protocols", rse, old.scheme, plain, old.hostname, old.port, about=f"{rse} {old.scheme}")


def _plain(protocol: Protocol) -> dict[str, Any]:
    return {
        "scheme": protocol.scheme,
        "hostname": protocol.hostname,
        "port": protocol.port,
        "prefix": protocol.prefix,
        "impl": protocol.impl,
        "extended_attributes": protocol.extended,
        "domains": protocol.domains,
    }
