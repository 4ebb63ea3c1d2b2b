"""How far should it be from one RSE to each other one? Pure: RSEs and links in, distances and their changes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from common.messages.setup import EXCLUDED, Exclusion, Scale, Side
from common.sync.selection import whole


class Place(Struct, frozen=True, kw_only=True):
    """An RSE as distances see it: the node behind it, its type (real, temp, test), its country."""

    rse: str
    pnn: str
    cms_type: str
    country: str


class Changes(Struct, frozen=True):
    """What is to be written for one source: distances by sink."""

    create: dict[str, int]
    update: dict[str, int]
    disable: list[str]
    kept: int


def wanted(
    source: Place,
    sinks: Iterable[Place],
    links: Mapping[str, int] | None,
    scale: Scale,
    exclude: Sequence[Exclusion] = EXCLUDED,
) -> dict[str, int]:
    """The distances from a source by sink. `links`: PhEDEx' distances from its node by node; None: by country.

    Raises UsageError for an expression that RE2 refuses.
    """
    rules = [_compiled(rule) for rule in exclude]
    found = {
        sink.rse: distance
        for sink in sinks
        if sink.rse != source.rse and (distance := _distance(source, sink, links, scale)) is not None
        if not any(src(source) and dst(sink) for src, dst in rules)
    }
    return dict(sorted(found.items()))


def _distance(source: Place, sink: Place, links: Mapping[str, int] | None, scale: Scale) -> int | None:
    if source.pnn == sink.pnn:
        return scale.site
    if links is not None:
        return scale.link + links[sink.pnn] if sink.pnn in links else None
    return scale.region if source.country == sink.country else scale.other


def check(exclude: Sequence[Exclusion]) -> None:
    """Raises UsageError for an expression that RE2 refuses."""
    for rule in exclude:
        _compiled(rule)


def _compiled(rule: Exclusion) -> tuple[Any, Any]:
    return _condition(rule.src), _condition(rule.dst)


def _condition(side: Side) -> Any:
    tests = [
        (name, whole(expression, f"exclude.{name}"))
        for name in ("rse", "pnn", "country")
        if (expression := getattr(side, name))
    ]

    def holds(place: Place) -> bool:
        if side.type and side.type != place.cms_type:
            return False
        return all(test(getattr(place, name)) for name, test in tests)

    return holds


def changes(want: Mapping[str, int], have: Mapping[str, int], *, overwrite: bool, disable: bool) -> Changes:
    """What is to be written: what lacks always, other numbers only to overwrite, surplus only to disable."""
    other = {sink: number for sink, number in want.items() if sink in have and have[sink] != number}
    surplus = sorted(have.keys() - want.keys())
    return Changes(
        create={sink: number for sink, number in want.items() if sink not in have},
        update=other if overwrite else {},
        disable=surplus if disable else [],
        kept=sum(sink in have for sink in want) - (len(other) if overwrite else 0),
    )
