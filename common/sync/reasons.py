"""Why should a block leave a node? From what both sides say of it beyond this node: pure.

What a removal destroys depends on what is left of the block elsewhere, so the reason says just that. *Nowhere* is
positive knowledge: PhEDEx leaves a block without replicas out of every list of replicas alike, so an absence, however
often it is read, is one proof and no two. Beside it stands word of a deletion at each node that had it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from common.sync.marks import Removal
from common.sync.whereabouts import Deletion, Whereabouts


class Beyond(Struct, frozen=True, kw_only=True):
    """What both sides say of one block that is not whole at a node."""

    where: Whereabouts  # its replicas as PhEDEx lists them, at whichever node
    own: frozenset[str]  # the names of this node: itself, and the one whose list says what is there
    here: bool = False  # PhEDEx lists it at this node, though not whole
    places: frozenset[str] = frozenset()  # other RSEs where PhEDEx has it complete and a standing rule of ours holds it
    takers: tuple[str, ...] = ()  # nodes that have it complete and could have it in Rucio
    known: bool = True  # PhEDEx' catalogue knows it
    ruled: Mapping[str, float] = {}  # the nodes where a rule of ours holds it, by when that was made (epoch seconds)
    deletions: Mapping[str, Deletion] = {}  # the last deletion at each node
    meant: frozenset[str] = frozenset()  # the nodes that are meant to have it (subscriptions)
    filed: frozenset[str] = frozenset()  # the nodes where PhEDEx lists files of it, by its list of files


class Reason(Struct, frozen=True):
    """Why a block should leave. `stuck`: it waits for a place, and no node that has it can be one."""

    why: Removal
    stuck: bool = False


def reason_of(beyond: Beyond) -> Reason:
    """The reason, from the mildest to the worst; in doubt, one that destroys nothing."""
    where = beyond.where
    if beyond.here:
        return Reason(Removal.INCOMPLETE)
    if where.complete - beyond.own:
        return Reason(Removal.MOVED) if beyond.places else Reason(Removal.WAITING, stuck=not beyond.takers)
    if where.somewhere or beyond.meant or beyond.filed:
        return Reason(Removal.PARTLY)
    if not beyond.known:
        return Reason(Removal.UNKNOWN)
    return Reason(Removal.NOWHERE if _is_deleted(beyond) else Removal.UNPROVEN)


def _is_deleted(beyond: Beyond) -> bool:
    """True where PhEDEx says of every node that had it that it was deleted there, after our rule was made.

    A deletion that was asked for and is not done yet says that the block is still there. The absence itself counts
    only where something else that was asked for with it came back.
    """
    if not (beyond.where.controlled and beyond.ruled):
        return False
    if any(one.completed is None for one in beyond.deletions.values()):
        return False
    return all(_after(beyond.deletions.get(node), made) for node, made in beyond.ruled.items())


def _after(deletion: Deletion | None, made: float) -> bool:
    """A rule's time has no fractions of a second."""
    return deletion is not None and deletion.completed is not None and deletion.completed.timestamp() >= int(made)
