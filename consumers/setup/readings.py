"""What is read of Rucio once for many `link` commands? Its RSEs; and where many sources are asked for, all distances.

Each command is about one source, and there is one a source: hundreds at once. Rucio tells attributes one RSE at a time,
and distances one pair at a time or all of them. A reading serves every command that was sent before it began, whichever
thread has it, for five minutes: for those it is as fresh as one of their own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.errors import RucioError, RucioRefused
from common.messages.meta import Meta, now
from common.rucio import distances
from common.rucio.rses import attributes_of, rses_of_type
from consumers.engine.world import World
from consumers.setup.distances import Place
from consumers.setup.naming import KINDS

KEPT = timedelta(seconds=300)
# One request for all distances costs Rucio as much as asking for the pairs of a thirtieth of the sources, with 60 RSEs
# as with 420: by then it has been paid for, and what follows is for nothing.
SHARE = 30
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class Reading:
    """What was read of one Rucio, and when that began. `asked`: sources whose pairs were asked for since.

    `tells_all`: whether Rucio tells us all distances at once, as far as we know.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    places: list[Place] = field(default_factory=list)
    places_at: datetime = _NEVER
    distances: dict[str, dict[str, int]] = field(default_factory=dict)
    distances_at: datetime = _NEVER
    asked: int = 0
    tells_all: bool = True


_readings: dict[str, Reading] = {}


def of(world: World) -> Reading:
    """The reading of this world's Rucio, shared by all threads."""
    return _readings.setdefault(world.rucio.host, Reading())


def places(reading: Reading, world: World, sent: datetime) -> list[Place]:
    """Every RSE of a node, with type and country, as they were when the command was sent or later."""
    with reading.lock:
        if not _serves(reading.places_at, sent):
            at = now()
            reading.places = list(_read_places(world))
            reading.places_at = at
        return reading.places


def distances_from(reading: Reading, world: World, source: str, sinks: Iterable[str], sent: datetime) -> dict[str, int]:
    """The distances from the source to these sinks that there are, as they were when the command was sent or later."""
    with reading.lock:
        if _serves(reading.distances_at, sent) or (_pays(reading) and _read_distances(reading, world)):
            known = reading.distances.get(source, {})
            return {sink: known[sink] for sink in sinks if sink in known}
        reading.asked += 1
    return dict(_pairs(world, source, sinks))


def _pays(reading: Reading) -> bool:
    return reading.tells_all and reading.asked > len(reading.places) // SHARE


def written(reading: Reading, source: str, put: dict[str, int], dropped: Iterable[str]) -> None:
    """What we have written ourselves is known as well: a command that comes twice finds it."""
    with reading.lock:
        known = reading.distances.setdefault(source, {})
        known.update(put)
        for sink in dropped:
            known.pop(sink, None)


def sent(meta: Meta) -> datetime:
    """When the command was sent, to the end of the second that its id tells; now, where it does not tell.

    What has failed before, or died and is replayed, may have failed by what was read then: now as well.
    """
    if meta.errors or meta.attempt > 1:
        return now()
    try:
        return datetime.strptime(meta.id[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) + timedelta(seconds=1)
    except ValueError:
        return now()


def _serves(at: datetime, sent: datetime) -> bool:
    return sent <= at and now() - at < KEPT


def _read_distances(reading: Reading, world: World) -> bool:
    """All distances are known; False where Rucio does not tell them all, so that they are asked for pair by pair.

    It may refuse it (an older policy package), or take too long for a gateway. Whether it is there at all is seen at
    the first pair.
    """
    reading.asked, at = 0, now()
    try:
        reading.distances = distances.read_all(world.rucio)
    except RucioError as error:
        reading.tells_all = not isinstance(error, RucioRefused)
        return False
    reading.distances_at = at
    return True


def _read_places(world: World) -> Iterator[Place]:
    for kind in KINDS:
        for rse in rses_of_type(world.rucio, kind):
            world.checkpoint()
            attributes = attributes_of(world.rucio, rse) or {}
            pnn, country = str(attributes.get("pnn", "")), str(attributes.get("country", ""))
            if pnn:
                yield Place(rse=rse, pnn=pnn, cms_type=kind, country=country)


def _pairs(world: World, source: str, sinks: Iterable[str]) -> Iterator[tuple[str, int]]:
    for sink in sinks:
        world.checkpoint()
        distance = distances.read(world.rucio, source, sink)
        if distance is not None:
            yield sink, distance
