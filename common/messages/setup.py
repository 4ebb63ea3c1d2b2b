"""Which commands set a site up? RSEs, accounts and distances, each a struct."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta as Constraint
from msgspec import Struct

from common.errors import System
from common.messages.fields import BOTH, RUCIO_ALONE, AccountName, Node, Regex, RseName, Text
from common.messages.meta import Meta, Natural, Positive

LOAD_TEST = r"\S+LoadTest\S*"  # rules of a catalogue that place test files only: the original tools left them out
Document = Annotated[str, Constraint(max_length=100_000)]


class Storage(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """Parts of a storage that are given by hand, in place of what the node's catalogue says."""

    scheme: Text = ""
    hostname: Text = ""
    port: Natural | None = None
    web_service_path: Text = ""
    prefix: Text = ""


class RseOptions(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """What is to be otherwise than a node's name, catalogue and agents say.

    `tfc`: a storage.xml in place of PhEDEx' own. `attributes`: more of them. `domains`: which operations are allowed,
    by domain. `rse`, `rse_type`: the RSE by hand, as for a T0 without a buffer node.
    """

    rse: RseName | Literal[""] = ""
    rse_type: Literal["DISK", "TAPE", ""] = ""
    suffix: Annotated[str, Constraint(pattern=r"^[A-Za-z0-9_]*\Z", max_length=40)] | None = None
    fts: Text = ""
    tier: Text = ""
    country: Text = ""
    lfn2pfn: Text = ""
    protocol: Text = "srmv2"
    space_token: Text = ""
    probes: Annotated[list[Text], Constraint(max_length=20)] = []
    attributes: dict[str, Text] = {}
    seinfo: Storage | None = None
    domains: dict[str, dict[str, int]] | None = None
    tfc: Document = ""
    tfc_exclude: Annotated[tuple[Regex, ...], Constraint(max_length=20)] = (LOAD_TEST,)


class Rse(
    Struct, tag_field="kind", tag="rse", forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """The RSE of one type that stands for a node is defined, or corrected where it differs."""

    lanes: ClassVar[bool] = False
    needs: ClassVar[frozenset[System]] = BOTH

    v: Positive = 1
    node: Node
    type: Literal["real", "temp", "test"] = "real"
    options: RseOptions = RseOptions()
    dry: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the node and the type."""
        return f"{self.node} {self.type}"


class Account(
    Struct, tag_field="kind", tag="account", forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """The account that owns the sync's rules at an RSE is there: its identity, and no limit to what it may own.

    `identity`, `type`: who may log in as it; without an identity those of `from_account` may, without that those of
    the account that the worker is.
    """

    lanes: ClassVar[bool] = False
    needs: ClassVar[frozenset[System]] = RUCIO_ALONE

    v: Positive = 1
    rse: RseName
    identity: Text = ""
    type: Literal["X509", "USERPASS", "GSS", "SSH", "OIDC", "SAML"] = "X509"
    from_account: AccountName = ""
    admin: bool = False
    dry: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the RSE."""
        return self.rse


class Scale(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Distances, smaller is nearer: the same node; what is added to PhEDEx' distance of a link; then by country.

    The original's ranking turned round: same node < a link of PhEDEx by its distance, same country < any other.
    """

    site: Natural = 1
    link: Natural = 2
    region: Natural = 3
    other: Natural = 5


class Side(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """A condition on one end: its type, and RE2 expressions on the whole of its name, node and country."""

    type: Literal["real", "temp", "test", ""] = ""
    rse: Regex = ""
    pnn: Regex = ""
    country: Regex = ""


class Exclusion(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True):
    """Pairs between which there is to be no distance: both conditions hold."""

    src: Side = Side()
    dst: Side = Side()


# Real and temporary RSEs are filled by PhEDEx and by users, never by Rucio's own transfers.
EXCLUDED = (Exclusion(dst=Side(type="real")), Exclusion(dst=Side(type="temp")))


class Link(
    Struct, tag_field="kind", tag="link", forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """The distances from one RSE to all others are what links or countries say.

    `phedex_links`: only where PhEDEx has a link, by its distance; else by country. `dst_select`: sinks whose whole name
    matches. `overwrite`: other numbers are corrected. `disable`: distances that should not be go.
    """

    lanes: ClassVar[bool] = False
    needs: ClassVar[frozenset[System]] = BOTH

    v: Positive = 1
    source_rse: RseName
    phedex_links: bool = False
    dst_select: Regex = ""
    distance: Scale = Scale()
    exclude: Annotated[tuple[Exclusion, ...], Constraint(max_length=200)] = EXCLUDED
    overwrite: bool = False
    disable: bool = False
    dry: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the RSE that the distances begin at."""
        return self.source_rse
