"""How does a person have RSEs made of PhEDEx nodes, or corrected?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from common.errors import UsageError
from common.messages.setup import LOAD_TEST, Rse, RseOptions, Storage
from common.names import MSS
from common.phedex.sites import nodes_like
from common.settings.load import Loaded
from common.sync.selection import compiled
from consumers.setup import definition
from consumers.setup.naming import KINDS, RseKind
from phedex_rucio import deliver, output, wiring
from phedex_rucio.delivery import with_delivery
from phedex_rucio.options import pairs, typed
from phedex_rucio.roots import rooted

ALL = "all"
REAL: RseKind = "real"


@click.group("rse")
def command() -> None:
    """Make RSEs of PhEDEx nodes, and correct them where they differ."""


@command.command("update")
@click.option("--pnn", "nodes", multiple=True, required=True, metavar="NODE|all", help="A node (repeatable), or all.")
@click.option("--select", multiple=True, metavar="RE", help="With all: only nodes whose whole name matches (RE2).")
@click.option("--exclude", multiple=True, metavar="RE", help="With all: without these (RE2, repeatable).")
@click.option("--type", "types", multiple=True, type=click.Choice(KINDS), help="Else real; repeatable.")
@click.option("--fts", default="", metavar="URL", help="The FTS server; else what the node's agents said.")
@click.option("--tier", default="", help="Else that of the node's name.")
@click.option("--country", default="", help="Else that of the node's name.")
@click.option("--lfn2pfn", default="", metavar="NAME", help="Else cmstfc (real), identity (test), hash (temp).")
@click.option("--suffix", help="Of the RSE's name; else none (real), _Temp, _Test.")
@click.option("--attr", "attributes", multiple=True, metavar="KEY=VALUE", help="One more attribute (repeatable).")
@click.option("--seinfo", multiple=True, metavar="KEY=VALUE", help="scheme, hostname, port, web_service_path, prefix.")
@click.option(
    "--tfc", type=click.Path(path_type=Path, exists=True), help="A storage.xml, or a folder of SITE/…/storage.xml."
)
@click.option("--tfc-exclude", multiple=True, default=[LOAD_TEST], show_default=True, metavar="RE")
@click.option("--domains", metavar="JSON", help="Operations by domain, in place of those of the type.")
@click.option("--space-token", default="")
@click.option("--proto", "protocol", default="srmv2", show_default=True, help="The protocol of the catalogue.")
@click.option("--probe", "probes", multiple=True, metavar="LFN", help="Files to find the storage by (repeatable).")
@click.option("--rse", default="", metavar="NAME", help="The RSE by hand, for one node.")
@click.option("--rse-type", type=click.Choice(["DISK", "TAPE"]), default=None, help="With --rse.")
@with_delivery
def update(
    *,
    nodes: Sequence[str],
    select: Sequence[str],
    exclude: Sequence[str],
    types: Sequence[RseKind],
    tfc: Path | None,
    how: deliver.How,
    dry: bool,
    loaded: Loaded,
    **given: Any,
) -> int:
    """Define or correct the RSEs of nodes: settings, attributes, protocol with its catalogue. One command an RSE.

    Only differences are written, in place. A Buffer becomes the Tape of its site. Said before anything is written:
    a catalogue that would place files elsewhere than PhEDEx does.
    """
    for pattern in given["tfc_exclude"]:
        compiled(pattern, "--tfc-exclude")
    found = _nodes(nodes, select, exclude, loaded)
    if given["rse"] and len(found) * max(1, len(types)) != 1:
        raise UsageError("--rse: names the RSE of one node and type, name only those")
    roots = [
        rooted(Rse(node=node, type=kind, options=_options(node, tfc, **given), dry=dry))
        for node in found
        for kind in dict.fromkeys(types or (REAL,))
    ]
    return deliver.deliver(roots, how, loaded.settings)


def _nodes(nodes: Sequence[str], select: Sequence[str], exclude: Sequence[str], loaded: Loaded) -> list[str]:
    """The nodes that were meant. Raises UsageError where none is left, or choices are made without `all`."""
    if ALL not in nodes:
        if select or exclude:
            raise UsageError("--select and --exclude choose among all nodes: give --pnn all")
        return list(dict.fromkeys(nodes))
    found = nodes_like(wiring.Doors(loaded.settings).phedex, select, exclude)
    tapes = [node for node in found if node.endswith(MSS)]
    if tapes:
        output.note(f"left out, for their buffers stand for them: {', '.join(tapes)}")
    if not set(found) - set(tapes):
        raise UsageError("--select and --exclude leave no node that PhEDEx knows")
    return [node for node in found if node not in tapes]


def _options(node: str, tfc: Path | None, **given: Any) -> RseOptions:
    attributes, domains = dict(pairs("--attr", given["attributes"])), given["domains"]
    allowed = None if domains is None else typed("--domains", domains, dict[str, dict[str, int]])
    definition.check(attributes, allowed)
    return RseOptions(
        **{
            **given,
            "rse_type": given["rse_type"] or "",
            "attributes": attributes,
            "seinfo": _storage(given["seinfo"]),
            "probes": list(given["probes"]),
            "tfc_exclude": tuple(given["tfc_exclude"]),
            "domains": allowed,
            "tfc": "" if tfc is None else _document(tfc, node),
        }
    )


def _storage(texts: Sequence[str]) -> Storage:
    try:
        return msgspec.convert(dict(pairs("--seinfo", texts)), Storage, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"--seinfo: {error}") from None


def _document(path: Path, node: str) -> str:
    """The storage.xml itself, or that of the node's site in a checkout of SITECONF."""
    site = "_".join(node.split("_")[:3])
    inside = [path / name / "PhEDEx/storage.xml" for name in dict.fromkeys((node, site))]
    candidates = [path] if path.is_file() else inside
    for candidate in candidates:
        if candidate.is_file():
            try:
                return candidate.read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--tfc: {candidate} cannot be read: {error}") from None
    raise UsageError(f"--tfc: there is no {' or '.join(map(str, candidates))}")
