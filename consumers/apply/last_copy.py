"""May a block's replicas go from here? All of them or none, and never the last copy of what PhEDEx still has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from msgspec import Struct

from common.names import dataset_of
from common.rucio.replicas import Standing


class Elsewhere(Struct, frozen=True):
    """A block beyond this site. `places`: the RSEs where PhEDEx has it complete now and a rule of this sync holds it.

    `anywhere`: PhEDEx has files of it at some node. `listed`: its files as PhEDEx lists them; None if not known.
    """

    places: frozenset[str] = frozenset()
    anywhere: bool = True
    listed: frozenset[str] | None = None

    def nowhere(self, file: str) -> bool:
        """True if PhEDEx has the file at no node, as far as is known."""
        return not self.anywhere or (self.listed is not None and file not in self.listed)


class Sweep(Struct, frozen=True):
    """What to do with a block's files at the RSE: replicas to delete, files to detach before, and what others hold.

    `lost`: the files to delete that PhEDEx has nowhere.
    """

    delete: list[str]
    detach: list[str]
    foreign: list[str]
    lost: list[str]


class Last(Struct, frozen=True):
    """The file for which the whole block stays, and why.

    `apart`: those of its files that PhEDEx lists nowhere. They go all the same: while they are in the block, no place
    that has it as PhEDEx has it now can get a rule, and so none could ever be relied on.
    """

    file: str
    why: str
    apart: Sweep = Sweep([], [], [], [])


def decide(
    block: str, rse: str, files: Mapping[str, Standing], claimed: Set[str], elsewhere: Elsewhere
) -> Sweep | Last:
    """What becomes of a block's files that have a replica at the RSE.

    A replica goes only where Rucio has the file AVAILABLE at one of the places, or PhEDEx has it nowhere. In the last
    case a file without another replica is detached before: deleting the last replica of an attached file tears its
    dataset out of the container (41.5.1). It must then be in nobody else's dataset, for Rucio's record of it goes too.
    """
    sweep, last = Sweep([], [], [], []), None
    for file in sorted(name for name, standing in files.items() if rse in standing.states):
        standing = files[file]
        if file in claimed:
            sweep.foreign.append(file)
            continue
        if not any(standing.available_at(place) for place in elsewhere.places):
            if not elsewhere.nowhere(file):
                last = last or Last(file, _lack(standing, rse, elsewhere))
                continue
            sweep.lost.append(file)
            if len(standing.states) == 1:
                if others := _others(block, standing.parents):
                    return Last(file, f"PhEDEx has it nowhere, but it is in {others[0]} as well")
                if block in standing.parents:
                    sweep.detach.append(file)
        sweep.delete.append(file)
    return sweep if last is None else Last(last.file, last.why, Sweep(sweep.lost, sweep.detach, [], sweep.lost))


def _lack(standing: Standing, rse: str, elsewhere: Elsewhere) -> str:
    others = sorted(standing.states.keys() - {rse})
    where = f"Rucio has it at {', '.join(others[:3])}" if others else "Rucio has it nowhere else"
    if not elsewhere.places:
        return f"no other place: {where}, and PhEDEx has the block complete at no other RSE"
    return f"no other place: {where}, and not at {', '.join(sorted(elsewhere.places)[:3])}"


def _others(block: str, parents: Iterable[str]) -> list[str]:
    return sorted(set(parents) - {block, dataset_of(block)})
