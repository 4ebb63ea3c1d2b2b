"""What stops a mass removal? Limits over the whole site, and a person's approval of exactly one set.

What would be gone is (marked + to remove), of all our rules at the RSE. Marks stand in Rucio itself, so small steps
within the time of grace add up without a store. A mark is its own permission, with one exception: plans made at the
same moment do not see each other's marks, so marks that nobody approved are held where they pass the budget together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from msgspec import Struct

from common.sync.diff import Removal
from common.sync.words import count, percent, size

OWN_FROM = 10  # a dataset's own share counts from so many rules up: one of nine blocks is no mass
CHECKSUM_LENGTH = 16


class Limit(StrEnum):
    """What kept blocks from being marked, the weightiest first."""

    DOUBT = "doubt"
    APPROVAL = "approval"
    EMPTY = "empty"
    SHARE = "share"
    DATASET_SHARE = "dataset_share"
    BLOCKS = "blocks"
    BYTES = "bytes"
    SHRUNK = "shrunk"
    MARKED = "marked"
    TAPE = "tape"
    CUSTODIAL = "custodial"
    UNKNOWN = "unknown"


class Budget(Struct, frozen=True, kw_only=True):
    """A site's limits. `share` of 1; the holds stop single blocks, `allow_clean` lets an approval empty the site."""

    share: float = 0.1
    blocks: int = 1_000
    bytes: int = 1_000_000_000_000_000
    hold_custodial: bool = True
    hold_unknown: bool = True
    allow_clean: bool = False


class Leaving(Struct, frozen=True, gc=False):
    """A block that would be marked: why, its bytes (0 where PhEDEx has no figure any more), and whether custodial."""

    why: Removal
    bytes: int = 0
    custodial: bool = False


class Tally(Struct, frozen=True):
    """Our rules in some part of an RSE, and those of them that are marked."""

    rules: int
    marked: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the guard looks at.

    `remove`: what would be marked. `pending`: what is marked, within the same selection, with the reason read now.
    `site`: all our rules at the RSE; `own`: those of the dataset pattern where one was asked for. `spent_bytes`: of all
    that is marked at the RSE. `present`: complete blocks that PhEDEx lists; `standing`: our rules that should be among
    them (not marked, not kept by a person, not ending). `loose`: the marks at the RSE that no person approved and that
    are not swept, with their bytes. `doubt`: why the reasons and bytes could not be found out, if so. `command`:
    what was asked for, as a person would type it.
    """

    node: str
    rse: str
    command: str
    budget: Budget
    remove: Mapping[str, Leaving]
    pending: Mapping[str, Removal] = field(default_factory=dict)
    site: Tally
    own: Tally | None = None
    spent_bytes: int = 0
    present: int
    standing: int
    loose: Mapping[str, int] = field(default_factory=dict)
    tape: bool = False
    doubt: str = ""
    approve: str = ""


class Stop(Struct, frozen=True):
    """One limit that was met: in words, and its value (a share of 1, blocks or bytes; 0 where it has none)."""

    limit: Limit
    says: str
    most: float = 0


class Ruling(Struct, frozen=True, kw_only=True):
    """Which blocks may be marked, which are held and by which limit, and with which numbers that was decided.

    `share`, `number`, `bytes`: what would be marked then if all of it were, what is marked already included.
    `checksum`: of that set; it stays the same while blocks go from *to mark* to *marked*. `command`: what would let
    exactly this set pass; "" where nothing is held, or where no approval helps. `sweep`: whether marks may be acted on;
    `kept`: those that may not all the same, for they passed the budget together.
    """

    allowed: list[str]
    held: dict[str, Limit]
    stops: list[Stop]
    share: float
    number: int
    marked: int
    bytes: int
    checksum: str
    command: str
    approved: bool
    sweep: bool
    kept: list[str] = []

    @property
    def limit(self) -> Limit | None:
        """The weightiest limit that was met."""
        return self.stops[0].limit if self.stops else None


def rule(case: Case) -> Ruling:
    """The guard's decision. An approval lets pass exactly the set whose checksum it is, else it lets pass nothing."""
    loose = sorted(case.pending.keys() & case.loose.keys())
    over = list(_over(case)) if loose else []
    asks = bool(case.remove or over)
    final = list(_final(case)) if asks else []
    approved = asks and not final and case.approve == checksum_of(case)
    single = {} if approved or final else dict(_single(case))
    whole = final if approved or final else list(_whole(case, single))
    held = dict.fromkeys(case.remove, whole[0].limit) | single if whole else single
    kept = loose if over and not approved else []
    stops = whole + (over if kept and not final else []) + _of_single(single)
    return Ruling(
        allowed=sorted(case.remove.keys() - held.keys()),
        held=dict(sorted(held.items())),
        stops=stops,
        share=_share(case.site, len(case.remove)),
        number=case.site.marked + len(case.remove),
        marked=case.site.marked,
        bytes=case.spent_bytes + sum(one.bytes for one in case.remove.values()),
        checksum=checksum_of(case),
        command=_command(case) if (held or kept) and _may_be_approved(case) else "",
        approved=approved,
        sweep=approved or not any(_distrust(case)),
        kept=kept,
    )


def checksum_of(case: Case) -> str:
    """Of the names that would be marked or are, with their reasons in one word, and of where that is.

    How many files an incomplete block has left is not in it: the whole block leaves either way.
    """
    names = {name: str(one.why) for name, one in case.remove.items()}
    names |= {name: str(why) for name, why in case.pending.items()}
    text = msgspec.json.encode([case.node, case.rse, sorted(names.items())])
    return hashlib.sha256(text).hexdigest()[:CHECKSUM_LENGTH]


def _final(case: Case) -> Iterator[Stop]:
    """What stops everything, an approval too."""
    if case.doubt:
        yield Stop(Limit.DOUBT, f"why blocks are missing and how large they are could not be found out: {case.doubt}")
    elif case.approve and case.approve != checksum_of(case):
        yield Stop(
            Limit.APPROVAL,
            f"{case.approve} was approved, but what would be marked now is {checksum_of(case)}: look again",
        )
    elif case.approve and _is_empty(case) and not case.budget.allow_clean:
        yield _empty(case)


def _may_be_approved(case: Case) -> bool:
    return not case.doubt and (case.budget.allow_clean or not _is_empty(case))


def _distrust(case: Case) -> Iterator[Stop]:
    """A list that is empty or much shorter than what we have proves nothing: neither marks nor sweeps."""
    if _is_empty(case):
        if not (case.budget.allow_clean and not case.standing):
            yield _empty(case)
    elif _counts(case.own) and case.present < case.standing * (1 - case.budget.share):
        says = f"PhEDEx lists {count(case.present, 'complete block')} where {count(case.standing, 'rule')} should stand"
        yield Stop(
            Limit.SHRUNK, f"{says}, which is {_less(case)} less, limit {percent(case.budget.share)}", case.budget.share
        )


def _is_empty(case: Case) -> bool:
    return case.present == 0 and case.site.rules > 0


def _empty(case: Case) -> Stop:
    what = "nothing complete that was asked for" if case.own else "not one complete block"
    text = f"PhEDEx lists {what} at {case.node}, and Rucio has {count((case.own or case.site).rules, 'rule')} there"
    return Stop(
        Limit.EMPTY, text if case.budget.allow_clean else f"{text}: not even an approval, without `allow_clean`"
    )


def _less(case: Case) -> str:
    return percent((case.standing - case.present) / case.standing)


def _counts(own: Tally | None) -> bool:
    """False for a dataset so small that a share of it says nothing."""
    return own is None or own.rules >= OWN_FROM


def _whole(case: Case, single: Mapping[str, Limit]) -> Iterator[Stop]:
    """The limits that hold all of it, for the blocks beside those that are held one by one."""
    distrusted = list(_distrust(case))
    yield from (stop for stop in distrusted if stop.limit is Limit.EMPTY)
    rest = [one for name, one in case.remove.items() if name not in single]
    if rest:
        yield from _shares(case, len(rest))
        yield from _totals(case, rest)
    yield from (stop for stop in distrusted if stop.limit is Limit.SHRUNK)


def _shares(case: Case, number: int) -> Iterator[Stop]:
    most = case.budget.share
    if (share := _share(case.site, number)) > most:
        says = f"would mark {_of(case.site, number)} ({percent(share)}), limit {percent(most)}"
        yield Stop(Limit.SHARE, says, most)
    if case.own is not None and _counts(case.own) and (share := _share(case.own, number)) > most:
        says = f"would mark {_of(case.own, number)} of this dataset ({percent(share)}), limit {percent(most)}"
        yield Stop(Limit.DATASET_SHARE, says, most)


def _totals(case: Case, rest: Collection[Leaving]) -> Iterator[Stop]:
    budget = case.budget
    if case.site.marked + len(rest) > budget.blocks:
        says = f"would mark {_of(case.site, len(rest))}, limit {budget.blocks:,} at one time"
        yield Stop(Limit.BLOCKS, says, budget.blocks)
    if (total := case.spent_bytes + sum(one.bytes for one in rest)) > budget.bytes:
        yield Stop(Limit.BYTES, f"would mark {size(total)}, limit {size(budget.bytes)} at one time", budget.bytes)


def _over(case: Case) -> Iterator[Stop]:
    """Why marks that nobody approved may not be acted on: together they pass the budget that each plan kept to.

    One mark alone was no sum of plans, so it is never held here. Where the bytes are not known that is a reason too.
    """
    budget, number = case.budget, len(case.loose)
    if number < 2:
        return
    says = f"{count(number, 'mark')} that nobody approved: "
    if (share := number / max(case.site.rules, 1)) > budget.share:
        of = f"{percent(share)} of {count(case.site.rules, 'rule')}"
        yield Stop(Limit.MARKED, f"{says}{of}, limit {percent(budget.share)}", budget.share)
    if number > budget.blocks:
        yield Stop(Limit.MARKED, f"{says}limit {budget.blocks:,} at one time", budget.blocks)
    if (total := sum(case.loose.values())) > budget.bytes:
        yield Stop(Limit.MARKED, f"{says}{size(total)}, limit {size(budget.bytes)} at one time", budget.bytes)
    if case.doubt:
        yield Stop(Limit.MARKED, f"{says}their bytes are not known", budget.bytes)


def _share(tally: Tally, number: int) -> float:
    return (tally.marked + number) / tally.rules if tally.rules else 0.0


def _of(tally: Tally, number: int) -> str:
    already = f", {tally.marked:,} of them marked already" if tally.marked else ""
    return f"{tally.marked + number:,} of {count(tally.rules, 'rule')}{already}"


def _single(case: Case) -> Iterator[tuple[str, Limit]]:
    """The blocks that a person must approve, whatever their number."""
    for name, one in case.remove.items():
        if case.budget.hold_custodial and case.tape:
            yield name, Limit.TAPE
        elif case.budget.hold_custodial and one.custodial:
            yield name, Limit.CUSTODIAL
        elif case.budget.hold_unknown and one.why is Removal.UNKNOWN:
            yield name, Limit.UNKNOWN


_WHY_SINGLE = {
    Limit.TAPE: "on tape",
    Limit.CUSTODIAL: "custodial",
    Limit.UNKNOWN: "not known to PhEDEx any more",
}


def _of_single(held: Mapping[str, Limit]) -> list[Stop]:
    numbers = {limit: sum(one is limit for one in held.values()) for limit in _WHY_SINGLE}
    return [
        Stop(limit, f"{count(number, 'block')} {_WHY_SINGLE[limit]}: only a person removes such")
        for limit, number in numbers.items()
        if number
    ]


def _command(case: Case) -> str:
    return f"{case.command} --approve {checksum_of(case)} --reason '…'"
