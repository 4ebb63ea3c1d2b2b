"""What does PhEDEx say? Each of its answers by hand: a table on a terminal, JSON where the output is piped."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from common.errors import UsageError
from common.messages.setup import LOAD_TEST
from common.phedex import das as das_queries
from common.phedex import items, sites, tfc
from common.phedex.client import Phedex
from common.phedex.tfc import Catalogue
from common.settings.load import load
from common.telemetry import logs
from phedex_rucio import output, tfc_shown
from phedex_rucio.options import pairs

R = TypeVar("R")

ITEM = click.argument("item", metavar="DATASET|BLOCK")
AT_NODE = click.option("--node", metavar="PNN", help="Only what is there.")
PROTOCOL = click.option("--protocol", default="srmv2", show_default=True, help="The protocol of its catalogue.")
LFN = click.option("--lfn", "lfns", multiple=True, required=True, help="A file's name (repeatable).")
TFC = click.option(
    "--tfc", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="By this storage.xml instead."
)


@click.group("phedex")
def command() -> None:
    """Ask PhEDEx, each function by hand. A table on a terminal, JSON where the output is piped or with --json."""


def asking(wrapped: Callable[..., R]) -> Callable[..., R]:
    """Add --config, --url, --instance, --json and --debug; the function gets a client as `phedex`, and `as_json`."""

    @click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings file (YAML).")
    @click.option("--url", help="The data service, up to and with /datasvc; else main.phedex_url.")
    @click.option("--instance", "--inst", help="prod, debug, dev; else main.phedex_instance.")
    @click.option("--json", "as_json", is_flag=True, help="JSON on a terminal too.")
    @click.option("--debug", is_flag=True, help="Log everything, show tracebacks.")
    @functools.wraps(wrapped)
    def asked(
        *, config: Path | None, url: str | None, instance: str | None, as_json: bool, debug: bool, **others: Any
    ) -> R:
        logs.setup("DEBUG" if debug else "")
        flags = {"main.phedex_url": url, "main.phedex_instance": instance}
        with Phedex(load(config, flags=flags).settings.main) as phedex:
            return wrapped(phedex=phedex, as_json=as_json or not sys.stdout.isatty(), **others)

    return asked


def _show(records: Sequence[Any], columns: Sequence[str], as_json: bool) -> None:
    """Records as JSON, or as a table of some of their keys."""
    plain = [record if isinstance(record, dict) else _fields(record) for record in records]
    if as_json:
        output.show_json(plain)
    else:
        output.show_table([name.upper().replace("_", " ") for name in columns], _rows(plain, columns))


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def _rows(records: Iterable[dict[str, Any]], columns: Sequence[str]) -> Iterable[list[object]]:
    for record in records:
        yield [_cell(record.get(name)) for name in columns]


def _cell(value: Any) -> object:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _storage(found: Any) -> dict[str, Any]:
    """A port is a name, not a number of things: without a comma."""
    return {**_fields(found), "port": str(found.port or "-")}


@command.command("datasvc")
@click.argument("call")
@click.option(
    "--option", "-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the call (repeatable)."
)
@asking
def datasvc(call: str, options: tuple[str, ...], phedex: Phedex, as_json: bool) -> None:  # noqa: ARG001 - always JSON
    """Any read CALL of the data service, checked to be whole and of that call; always JSON."""
    asked: dict[str, list[str]] = {}
    for key, value in pairs("--option", options):
        asked.setdefault(key, []).append(value)
    output.show_json(phedex.raw(call.lower(), **asked))


@command.command("das")
@click.argument("query")
@click.option(
    "--dasgoclient", default=das_queries.CLIENT, show_default=True, help="The client to use where it is there."
)
@asking
def das(query: str, dasgoclient: str, phedex: Phedex, as_json: bool) -> None:  # noqa: ARG001 - always JSON
    """A DAS QUERY, such as 'file block=/A/B/RAW#1 site=T2_IT_Pisa system=phedex'; always JSON.

    By dasgoclient where it is installed, else by the data service, for the forms that it can answer.
    """
    records = das_queries.external(query, dasgoclient)
    if records is None:
        parsed = das_queries.parse(query)
        output.note(f"{dasgoclient} is not installed: answered by the data service's {parsed.call}")
        records = das_queries.by_data_service(phedex, parsed)
    output.show_json(records)


@command.command("check-data-item")
@ITEM
@asking
def check_data_item(item: str, phedex: Phedex, as_json: bool) -> None:  # noqa: ARG001 - asks nobody
    """Is it a dataset or a block? And its parts."""
    _show([items.check_item(item)], ("isblock", "pds", "fbhash", "pfb"), as_json)


@command.command("list-data-items")
@ITEM
@AT_NODE
@click.option("--outtype", type=click.Choice(["block", "dataset"]), default="block", show_default=True)
@click.option("--metadata", is_flag=True, help="With files, bytes and whether open.")
@click.option("--locality", is_flag=True, help="With the nodes that have it.")
@asking
def list_data_items(
    *,
    item: str,
    node: str | None,
    outtype: Literal["block", "dataset"],
    metadata: bool,
    locality: bool,
    phedex: Phedex,
    as_json: bool,
) -> None:
    """The blocks or datasets that a name or pattern stands for."""
    found = items.list_items(phedex, item, node, outtype)
    numbers = ["blocks"] if outtype == "dataset" else []
    columns = ["name"] + ([*numbers, "files", "bytes", "is_open"] if metadata else [])
    columns += ["complete", "incomplete"] if locality else []
    _show([{key: each[key] for key in columns} for each in found], columns, as_json)


@command.command("fileblock-files")
@click.argument("item", metavar="BLOCK")
@AT_NODE
@asking
def fileblock_files(item: str, node: str | None, phedex: Phedex, as_json: bool) -> None:
    """The files of a block: name, size, checksum."""
    if not items.check_item(item)["isblock"]:
        raise UsageError(f"{item}: a dataset, not a block: see fileblocks-files (quote a block's name for the shell)")
    files = items.files_of(phedex, item, node).get(item, [])
    _show(files, ("name", "size", "checksum"), as_json)


@command.command("fileblocks-files")
@ITEM
@AT_NODE
@asking
def fileblocks_files(item: str, node: str | None, phedex: Phedex, as_json: bool) -> None:
    """The files of every block of a dataset."""
    found = items.files_of(phedex, item, node)
    if as_json:
        output.show_json(found)
    else:
        records = [{"block": block, **file} for block, files in found.items() for file in files]
        _show(records, ("block", "name", "size", "checksum"), as_json)


@command.command("subscriptions")
@click.argument("node", metavar="PNN")
@click.option("--item", metavar="DATASET|BLOCK", help="Only this; * may stand in it.")
@click.option("--since", help="Only newer ones: 2019-07-30, -7d, epoch seconds; else of all time.")
@asking
def subscriptions(node: str, item: str | None, since: str | None, phedex: Phedex, as_json: bool) -> None:
    """The closed blocks that are subscribed at a node and there whole."""
    found = items.subscriptions(phedex, node, item, since)
    _show(found, ("block", "files", "bytes", "group", "custodial"), as_json)


@command.command("deletions")
@ITEM
@AT_NODE
@asking
def deletions(item: str, node: str | None, phedex: Phedex, as_json: bool) -> None:
    """The deletions of a block, or of every block of a dataset: at which node, asked for when, done when (UTC)."""
    _show(items.deletions(phedex, item, node), ("block", "node", "requested", "completed"), as_json)


@command.command("pnns")
@click.option("--select", multiple=True, metavar="RE", help="Only nodes whose whole name matches (RE2, repeatable).")
@click.option("--exclude", multiple=True, metavar="RE", help="Without these (RE2, repeatable).")
@asking
def pnns(select: tuple[str, ...], exclude: tuple[str, ...], phedex: Phedex, as_json: bool) -> None:
    """The names of nodes, with their kind, storage element and technology."""
    known = phedex.nodes()
    names = sites.nodes_like(phedex, select, exclude)
    _show([known[name] for name in names], ("name", "kind", "se", "technology"), as_json)


def _check_nodes(phedex: Phedex, *names: str) -> None:
    """Raises UnknownNode: of a name that it does not know PhEDEx says nothing here."""
    for name in names:
        if "*" not in name and "%" not in name:
            phedex.check_node(name)


@command.command("links")
@click.option("--src", multiple=True, metavar="PNN", help="From these nodes (repeatable, * allowed).")
@click.option("--dest", multiple=True, metavar="PNN", help="To these nodes (repeatable, * allowed).")
@click.option("--dump", is_flag=True, help="Deactivated ones too.")
@asking
def links(src: tuple[str, ...], dest: tuple[str, ...], dump: bool, phedex: Phedex, as_json: bool) -> None:
    """The links between nodes and their distances (smaller is nearer)."""
    _check_nodes(phedex, *src, *dest)
    found = sites.links(phedex, src, dest, deactivated=dump)
    _show(found, ("source", "sink", "distance", "status"), as_json)


@command.command("fts")
@click.argument("node", metavar="PNN")
@asking
def fts(node: str, phedex: Phedex, as_json: bool) -> None:
    """The FTS3 servers of a node, from what its agents logged."""
    _show([{"node": node, "fts": url} for url in sites.fts_servers(phedex, node)], ("node", "fts"), as_json)


@command.command("senames")
@click.argument("node", metavar="PNN", required=False)
@click.option("--protocol", help="Only of this protocol.")
@asking
def senames(node: str | None, protocol: str | None, phedex: Phedex, as_json: bool) -> None:
    """The storage hosts in the nodes' catalogues."""
    _check_nodes(phedex, *([node] if node else []))
    rows = sites.storage_names(phedex, node, protocol)
    records = [dict(zip(("node", "protocol", "sename"), row, strict=True)) for row in rows]
    _show(records, ("node", "protocol", "sename"), as_json)


@command.command("tfc")
@click.argument("site", metavar="PNN|FILE")
@PROTOCOL
@click.option("--exclude-re", multiple=True, metavar="RE", default=[LOAD_TEST], show_default=True)
@click.option("--concise", is_flag=True, help="Only what decides about a name, as an RSE's protocol stores it.")
@click.option("--normalize", is_flag=True, help="With the port in every host that has a known default.")
@click.option("--dump", is_flag=True, help="Every rule of the site, whatever the protocol.")
@asking
def show_tfc(
    *,
    site: str,
    protocol: str,
    exclude_re: tuple[str, ...],
    concise: bool,
    normalize: bool,
    dump: bool,
    phedex: Phedex,
    as_json: bool,
) -> None:
    """The rules of a site for a protocol and all that it chains to, of PhEDEx or of a storage.xml."""
    rules = list(_book(phedex, site).rules)
    if not dump:
        rules = tfc_shown.of_protocol(rules, protocol, exclude_re)
    records = tfc_shown.records(rules, concise=concise, normalize=normalize)
    _show(records, ("proto", "path", "out", "chain") if concise else tfc_shown.COLUMNS, as_json)


def _book(phedex: Phedex, site: str) -> Catalogue:
    path = Path(site)
    if "/" in site or path.suffix == ".xml":
        try:
            return tfc.parse(path.read_bytes(), site)
        except OSError as error:
            raise UsageError(f"{site}: cannot be read: {error.strerror}") from None
    return sites.catalogue_of(phedex, site)


@command.command("lfn2pfn")
@click.argument("node", metavar="PNN")
@LFN
@PROTOCOL
@click.option("--destination", metavar="PNN", help="For a transfer to this node.")
@click.option("--custodial", type=click.Choice(["y", "n"]), default="n", show_default=True)
@TFC
@click.option("--details", is_flag=True, help="With the storage that each PFN leads to.")
@asking
def lfn2pfn(
    *,
    node: str,
    lfns: tuple[str, ...],
    protocol: str,
    destination: str | None,
    custodial: str,
    file: Path | None,
    details: bool,
    phedex: Phedex,
    as_json: bool,
) -> None:
    """Where files are at a node: by PhEDEx, or by a storage.xml at hand. One without a place is named (exit code 2)."""
    found = _placed(phedex, node, protocol, lfns, file, destination=destination, custodial=custodial)
    records = [_fields(each) for each in found]
    for record in records if details else []:
        record["storage"] = _fields(sites.storage_of([_of(record)])) if record["pfn"] else None
    _show(records, ("lfn", "pfn", "space_token"), as_json)
    if lost := [each.lfn for each in found if each.pfn is None]:
        raise tfc.CatalogueError(f"{node}: no rule of protocol {protocol} places {', '.join(lost)}")


def _of(record: dict[str, Any]) -> sites.Placed:
    return sites.Placed(record["node"], record["lfn"], record["pfn"])


def _placed(
    phedex: Phedex, node: str, protocol: str, lfns: Sequence[str], file: Path | None, **options: str | None
) -> list[sites.Placed]:
    given = {key: value for key, value in options.items() if value}
    if file is not None:
        return sites.placed_by(tfc.parse(file.read_bytes(), str(file)), node, protocol, lfns, **given)
    phedex.check_node(node)
    return sites.placed(phedex, node, protocol, lfns, **given)


@command.command("seinfo")
@click.argument("node", metavar="PNN")
@PROTOCOL
@click.option("--probe", "probes", multiple=True, default=sites.PROBES, show_default=True, help="A file (repeatable).")
@TFC
@asking
def seinfo(
    *, node: str, protocol: str, probes: tuple[str, ...], file: Path | None, phedex: Phedex, as_json: bool
) -> None:
    """The storage behind a node: scheme, host, port, web service path, prefix. Fails where the probes disagree."""
    found = sites.storage_of(_placed(phedex, node, protocol, probes, file))
    _show(
        [found if as_json else _storage(found)], ("scheme", "hostname", "port", "web_service_path", "prefix"), as_json
    )
