"""What does `link` do? The distances from one RSE are what PhEDEx' links, or countries, say."""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import UsageError
from common.messages.events import Change
from common.messages.setup import Link
from common.outcome import Outcome
from common.phedex import sites
from common.rucio import distances
from common.rucio.session import Rucio
from common.sync.selection import whole
from consumers.engine.result import Result
from consumers.engine.world import World
from consumers.setup import readings
from consumers.setup.distances import Changes, Place, changes, wanted


def handle(command: Link, world: World) -> Result:
    """Distances from the source are created, corrected and dropped as asked; the pairs that are excluded have none.

    Raises UsageError where the source is no RSE with the attributes pnn and cms_type.
    """
    reading, sent = readings.of(world), readings.sent(command.meta)
    places = readings.places(reading, world, sent)
    source = next((place for place in places if place.rse == command.source_rse), None)
    if source is None:
        raise UsageError(f"{command.source_rse}: no RSE with the attributes pnn and cms_type: define it first")
    chosen = whole(command.dst_select or ".*", "dst_select")
    sinks = [place for place in places if place.rse != source.rse and chosen(place.rse)]
    want = wanted(source, sinks, _links(command, source, world), command.distance, command.exclude)
    # What should not be there is looked for only where it would be dropped.
    asked = [place.rse for place in sinks if command.disable or place.rse in want]
    have = readings.distances_from(reading, world, source.rse, asked, sent)
    found = changes(want, have, overwrite=command.overwrite, disable=command.disable)
    if not command.dry:
        _write(world.rucio, source.rse, found)
        readings.written(reading, source.rse, found.create | found.update, found.disable)
    return _told(found, have)


def _links(command: Link, source: Place, world: World) -> dict[str, int] | None:
    if not command.phedex_links:
        return None
    return {link.sink: link.distance for link in sites.links(world.phedex, [source.pnn])}


def _write(rucio: Rucio, source: str, found: Changes) -> None:
    distances.put(rucio, source, found.create | found.update)
    for sink in found.disable:
        distances.drop(rucio, source, sink)


def _told(found: Changes, have: dict[str, int]) -> Result:
    written = list(_said(found, have))
    counts = {
        "created": len(found.create),
        "updated": len(found.update),
        "disabled": len(found.disable),
        "same": found.kept,
    }
    return Result(
        Outcome.CHANGED if written else Outcome.IN_SYNC,
        counts={name: number for name, number in counts.items() if number},
        changes=written,
    )


def _said(found: Changes, have: dict[str, int]) -> Iterator[Change]:
    for sink, distance in found.create.items():
        yield Change(what="created", name=sink, wants=str(distance))
    for sink, distance in found.update.items():
        yield Change(what="updated", name=sink, was=str(have[sink]), wants=str(distance))
    for sink in found.disable:
        yield Change(what="disabled", name=sink, was=str(have[sink]))
