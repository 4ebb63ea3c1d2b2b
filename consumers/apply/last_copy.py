"""May a block's replicas go from here? All of them or none, and never the last copy of what PhEDEx still has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec import Struct

from common.names import dataset_of
from common.rucio.replicas import Standing


class Sweep(Struct, frozen=True):
    """What to do with a block's files at the RSE: replicas to delete, files to detach before, and what others hold.

    `lost`: the files to delete of which no place to rely on has a copy.
    """

    delete: list[str]
    detach: list[str]
    foreign: list[str]
    lost: list[str]


class Last(Struct, frozen=True):
    """The file for which the whole block stays, and why."""

    file: str
    why: str


def decide(
    block: str,
    rse: str,
    files: Mapping[str, Standing],
    foreign: Set[str],
    places: Set[str],
    *,
    destroys: bool,
    wished: Mapping[str, str] = {},
    going: Set[str] = frozenset(),
    left: Set[str] = frozenset(),
) -> Sweep | Last:
    """What becomes of a block's files that have a replica at the RSE.

    A replica goes only where Rucio has the file AVAILABLE at one of the `places`, which are standing rules of this sync
    where PhEDEx has the block complete; or where the reason of the removal `destroys`, because PhEDEx has the block
    nowhere. Then a file without another replica is detached before: deleting the last replica of an attached file tears
    its dataset out of the container (41.5.1). What is nowhere else to be read must be in nobody else's dataset, and
    wanted by no rule of others.
    `foreign`: the files that others hold here, which stay. `wished`: files that rules of others want, with why each
    stays then. `going`: RSEs where somebody may be about to delete the same: what is there may be gone. `left`: files
    that PhEDEx has no more, and that are in the block no more: they need no other place.
    """
    sweep = Sweep([], [], [], [])
    for file in sorted(name for name, standing in files.items() if rse in standing.states):
        standing = files[file]
        if file in foreign:
            sweep.foreign.append(file)
            continue
        if not any(standing.available_at(place) for place in places):
            if not destroys and file not in left:
                return Last(file, _lack(standing, rse, places))
            sweep.lost.append(file)
            is_record = len(standing.states) == 1  # Rucio's record of the file goes with it
            is_last = standing.available_at(rse) and not _is_elsewhere(standing, {rse, *going})
            if (is_record or is_last) and (others := _others(block, standing.parents)):
                return Last(file, f"PhEDEx has it nowhere, but it is in {others[0]} as well")
            if is_last and file in wished:
                return Last(file, wished[file])
            if is_record and block in standing.parents:
                sweep.detach.append(file)
        sweep.delete.append(file)
    return sweep


def _is_elsewhere(standing: Standing, besides: Set[str]) -> bool:
    """True where the file can be read at an RSE but for these."""
    return any(standing.available_at(at) for at in standing.states.keys() - besides)


def _lack(standing: Standing, rse: str, places: Set[str]) -> str:
    others = sorted(standing.states.keys() - {rse})
    where = f"Rucio has it at {', '.join(others[:3])}" if others else "Rucio has it nowhere else"
    if not places:
        return f"no other place: {where}, and no other RSE where PhEDEx has the block complete can be relied on"
    return f"no other place: {where}, and not at {', '.join(sorted(places)[:3])}"


def _others(block: str, parents: Iterable[str]) -> list[str]:
    return sorted(set(parents) - {block, dataset_of(block)})
