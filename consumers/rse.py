"""What does `rse` do? The RSE of one type that stands for a node is what the node's catalogue and name say."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict, replace

from cms_rucio_policy.lfn2pfn import path_of, pfn_of
from cms_rucio_policy.stored import stored_for
from cms_rucio_policy.tfc import TfcError
from common.errors import UsageError
from common.messages.events import Change
from common.messages.setup import Rse, RseOptions
from common.outcome import Outcome
from common.phedex import sites, tfc
from common.phedex.seinfo import Seinfo
from common.phedex.sites import Placed
from common.phedex.tfc import Catalogue, CatalogueError
from common.rucio import definitions
from common.rucio.definitions import Definition, Protocol
from common.rucio.rses import rses_of_node
from common.rucio.session import Rucio
from common.sync.selection import compiled
from consumers.engine.result import Result
from consumers.engine.world import World
from consumers.setup.definition import CATALOGUE, Facts, Wishes, changes, counterpart, wanted
from consumers.setup.naming import inventory_of, rse_of


def handle(command: Rse, world: World) -> Result:
    """The RSE is defined, or corrected where it differs; checked first that it would place files where PhEDEx does.

    Raises UsageError and CatalogueError for a node or catalogue that makes no RSE, before anything is written.
    """
    world.phedex.check_node(command.node)
    options = command.options
    facts, placements = _facts(command, world)
    want = wanted(facts, _wishes(options))
    _check_mapping(want, placements)
    have = definitions.read(world.rucio, want.rse)
    if have is None and command.type == "real":
        _check_alone(world.rucio, command.node, want.rse)
    found = changes(want, have)
    if found and not command.dry:
        _write(world.rucio, want, have, found)
    counts = {"created": int(have is None), "changed": len(found)} if found else {}
    return Result(
        Outcome.CHANGED if found else Outcome.IN_SYNC,
        counts={name: number for name, number in counts.items() if number},
        notes=[] if facts.fts else [f"{want.rse}: no FTS server is known of {command.node}: give --fts"],
        changes=found,
    )


def _facts(command: Rse, world: World) -> tuple[Facts, list[Placed]]:
    """What PhEDEx says of the node, and where it puts some files: all that an RSE is made of."""
    options, node = command.options, command.node
    named = rse_of(node, command.type, suffix=options.suffix, rse=options.rse, rse_type=options.rse_type)
    book = tfc.parse(options.tfc, f"the storage.xml given for {node}") if options.tfc else None
    rules = _kept(book or sites.catalogue_of(world.phedex, node), options)
    _check_protocol(node, rules, options.protocol)
    placements = _placements(world, node, options, book)
    tape = inventory_of(node)
    facts = Facts(
        node=node,
        kind=command.type,
        named=named,
        storage=_storage(options, placements),
        rules=stored_for(rules, options.protocol, node),
        fts=options.fts or next(iter(sites.fts_servers(world.phedex, node)), ""),
        inventory=tape if tape and command.type == "real" and tape in world.phedex.nodes() else "",
    )
    return facts, placements


def _check_protocol(node: str, rules: Sequence[tfc.Rule], protocol: str) -> None:
    known = {rule.protocol for rule in rules if rule.kind is tfc.Kind.LFN_TO_PFN}
    if protocol not in known:
        raise CatalogueError(
            f"{node}: its catalogue places no file by {protocol}, but by {', '.join(sorted(known)) or 'nothing'}: "
            "give one of those with --proto"
        )


def _placements(world: World, node: str, options: RseOptions, book: Catalogue | None) -> list[Placed]:
    probes = options.probes or list(sites.PROBES)
    if book is not None:
        return sites.placed_by(book, node, options.protocol, probes, destination=node)
    return sites.placed(world.phedex, node, options.protocol, probes, destination=node)


def _storage(options: RseOptions, placements: Sequence[Placed]) -> Seinfo:
    """The storage that the probes lead to, but for what was given by hand."""
    found = sites.storage_of(placements)
    given = options.seinfo
    if given is None:
        return found
    return replace(found, **{name: value for name, value in asdict(given).items() if value not in ("", None)})


def _kept(book: Catalogue, options: RseOptions) -> list[tfc.Rule]:
    """The rules but those whose path is one of the excluded. Raises UsageError for an expression RE2 refuses."""
    unwanted = [compiled(pattern, "options.tfc_exclude") for pattern in options.tfc_exclude]
    return [rule for rule in book.rules if not any(one(rule.path_match) for one in unwanted)]


def _wishes(options: RseOptions) -> Wishes:
    return Wishes(
        tier=options.tier,
        country=options.country,
        algorithm=options.lfn2pfn,
        protocol=options.protocol,
        space_token=options.space_token,
        attributes=options.attributes,
        domains=options.domains,
    )


def _check_mapping(want: Definition, placements: Sequence[Placed]) -> None:
    """Rucio would place each probe where PhEDEx has it. Raises UsageError with both places where not."""
    if want.attributes["lfn2pfn_algorithm"] != CATALOGUE:
        return
    protocol = _as_algorithms_see(want.protocols[0])
    for probe in placements:
        try:
            made = pfn_of(path_of(probe.lfn, want.rse, want.attributes, protocol), protocol)
        except TfcError as error:
            raise UsageError(f"{error}: nothing is written") from None
        if made != probe.pfn:
            raise UsageError(
                f"{want.rse}: would place {probe.lfn} at {made}, PhEDEx has it at {probe.pfn}: nothing is written"
            )


def _check_alone(rucio: Rucio, node: str, rse: str) -> None:
    """Two RSEs for a node, and the sync knows neither. Raises UsageError where there is another one."""
    if others := rses_of_node(rucio, node):
        raise UsageError(f"{node}: its RSE is {' and '.join(others)}, so {rse} is not made: give --rse {others[0]}")


def _as_algorithms_see(protocol: Protocol) -> dict[str, object]:
    return {**asdict(protocol), "extended_attributes": protocol.extended}


def _write(rucio: Rucio, want: Definition, have: Definition | None, found: Sequence[Change]) -> None:
    """In this order an RSE is found by the sync only when it is complete: `pnn` and `cms_type` come last."""
    for change in sorted(found, key=_order):
        if change.what == "rse":
            definitions.create(rucio, want.rse, want.rse_type, deterministic=want.deterministic)
        elif change.what == "type":
            definitions.set_type(rucio, want.rse, want.rse_type)
        elif change.what == "attribute":
            definitions.set_attribute(rucio, want.rse, change.name, change.wants)
        else:
            _write_protocol(rucio, want, have)


def _order(change: Change) -> int:
    if change.what == "attribute":
        return 4 if change.name == "cms_type" else 3
    return ("rse", "type", "protocol").index(change.what)


def _write_protocol(rucio: Rucio, want: Definition, have: Definition | None) -> None:
    """In place where there is a counterpart, so that the RSE is never without a protocol."""
    new = want.protocols[0]
    old = counterpart(new, have) if have else None
    if old is None:
        definitions.add_protocol(rucio, want.rse, new)
    else:
        definitions.change_protocol(rucio, want.rse, old, new)
