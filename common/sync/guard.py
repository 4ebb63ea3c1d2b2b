"""What stops a mass removal: limits over the whole site, and a person's approval of what is held on record.

What would be gone is (marked + to remove), of all our rules at the RSE. Marks stand in Rucio itself, so small steps
within the time of grace add up without a store. A mark is its own permission, with one exception: plans made at the
same moment do not see each other's marks, so marks that nobody approved are held where they pass the budget together.
What is held is on record in its rule, and an approval covers what was on record when a person looked.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import Struct

from common.names import dataset_of
from common.sync import approvals
from common.sync.limits import WHY_LOCKED, WHY_SINGLE, Budget, Limit, Stop, single_limit
from common.sync.marks import DESTROYING, Hold, Removal
from common.sync.words import count, percent, size

OWN_FROM = 10  # a dataset's own share counts from so many rules up: one of nine blocks is no mass
CHECKSUM_LENGTH = 16


class Leaving(Struct, frozen=True, gc=False):
    """A block that would be marked, or is to be marked again for a worse reason."""

    why: Removal
    bytes: int = 0  # 0 where PhEDEx has no figure any more
    custodial: bool = False
    locked: bool = False  # a person locked our rule
    marked: bool = False  # it has a mark already, for a milder reason
    hold: Hold | None = None  # since when a person is asked about it, on record


class Tally(Struct, frozen=True):
    """Our rules in some part of an RSE, and those of them that are marked."""

    rules: int
    marked: int = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the guard looks at."""

    node: str
    rse: str
    dataset: str = "*"  # the pattern that was asked for
    select: str = ""  # how the command narrows that: who looks at its plan sees no more
    ignore: str = ""
    command: str  # what was asked for, as a person would type it
    budget: Budget
    at: datetime  # when the plan began to read
    remove: Mapping[str, Leaving]  # what would be marked
    pending: Mapping[str, Removal] = field(default_factory=dict)  # what is marked in the same selection: why, read now
    marked_at: Mapping[str, float] = field(default_factory=dict)  # since when those are marked (epoch seconds)
    locked: Set[str] = frozenset()  # those of them whose rule a person locked
    custodial: Set[str] = frozenset()  # those of them that are custodial now, whatever they were when they were marked
    unseen: Set[str] = frozenset()  # those that became so after that: nobody has approved them as custodial
    begun: Set[str] = frozenset()  # those of them of which replicas went: a sweep that has begun only goes forward
    site: Tally  # all our rules at the RSE
    own: Tally | None = None  # those of the dataset pattern where one was asked for
    spent_bytes: int = 0  # of all that is marked at the RSE
    present: int  # complete blocks that PhEDEx lists
    standing: int  # our rules that should be among them: not marked, kept, ending, or proven to be gone everywhere
    proven: int = 0  # our rules whose block is proven to be gone everywhere: an empty list is no wonder then
    loose: Mapping[str, int] = field(default_factory=dict)  # marks that nobody approved and that stand, with bytes
    tape: bool = False
    doubt: str = ""  # why the reasons and bytes could not be found out, if so
    approve: str = ""  # the code of an approval
    lifetime: float = 86_400  # seconds that an approval lasts


class Ruling(Struct, frozen=True, kw_only=True):
    """Which blocks may be marked, which are held and by which limit, and with which numbers that was decided."""

    allowed: list[str]
    held: dict[str, Limit]
    stops: list[Stop]
    share: float  # of the site's rules that would be marked then if all of it were, what is marked already included
    number: int  # the same as a number of blocks
    marked: int  # those that are marked already
    bytes: int  # the same in bytes
    checksum: str  # of that set; it stays the same while blocks go from *to mark* to *marked*
    command: str  # what lets pass what is held and on record now; "" where nothing is held or no approval helps
    everywhere: str  # the same for all nodes, where all that is held is of one dataset
    approved: list[str]  # the blocks, to be marked or marked, that a person's approval covers
    approval: str  # its code, where it covers any
    sweep: bool  # whether marks may be acted on
    kept: list[str]  # those that may not all the same
    record: list[str]  # blocks that are to be put on record as held, or as marked and custodial

    @property
    def limit(self) -> Limit | None:
        """The weightiest limit that was met."""
        return self.stops[0].limit if self.stops else None


def rule(case: Case) -> Ruling:
    """The guard's decision. An approval lets pass what it covers; what it does not is judged as without one."""
    loose = case.pending.keys() & case.loose.keys()
    over = list(_over(case)) if loose else []
    final = list(_final(case)) if case.remove or over else []
    covered = set() if any(_final(case)) else _covered(case)
    locked = {name: Limit.LOCKED for name, one in case.remove.items() if one.locked}
    single = {} if final else {n: limit for n, limit in _single(case) if n not in covered and n not in locked}
    whole = final or list(_whole(case, single.keys() | locked.keys(), covered))
    rest = case.remove.keys() - locked.keys() - single.keys()
    held = locked | (dict.fromkeys(case.remove.keys() - locked.keys() - covered, whole[0].limit) if whole else single)
    asked = held.keys() - locked.keys()  # what a person is asked about
    if covered and not asked:
        whole = []  # an approval covers all that it would have held
    believed = not any(_distrust(case))
    kept = set(case.locked) | ((loose - covered) if over else set())
    kept |= set() if believed or not covered else case.pending.keys() - covered
    person = {n: limit for n, limit in _marked_single(case) if n not in covered and n not in kept}
    kept |= person.keys()
    stops = whole + (over if loose - covered and not final else []) + _of_single(single | person, locked, case)
    new = sum(not one.marked for one in case.remove.values())
    may = _may_be_approved(case)
    return Ruling(
        allowed=sorted((rest if not whole else set()) | (covered & case.remove.keys())),
        held=dict(sorted(held.items())),
        stops=stops,
        share=_share(case.site, new),
        number=case.site.marked + new,
        marked=case.site.marked,
        bytes=case.spent_bytes + sum(one.bytes for one in case.remove.values() if not one.marked),
        checksum=checksum_of(case),
        command=_command(case) if may and (asked or kept - case.locked) else "",
        everywhere=_everywhere(case, asked) if may else "",
        approved=sorted(covered),
        approval=case.approve if covered else "",
        sweep=believed or bool(covered),
        kept=sorted(kept),
        record=sorted(asked | (person.keys() & case.unseen)) if may else [],
    )


def _covered(case: Case) -> set[str]:
    """The blocks that the approval covers: held on record when the person looked, or marked by then."""
    since = approvals.time_of(case.approve)
    if not since:
        return set()
    held = {
        name
        for name, one in case.remove.items()
        if not one.locked and approvals.covers(since, one.hold, one.why, custodial=_asks_custodial(case, one))
    }
    marked = case.pending.keys() - case.locked - (case.unseen if case.budget.hold_custodial else set())
    held |= {name for name in marked if 0 < case.marked_at.get(name, 0) <= since}
    # One of all nodes is given for what is gone everywhere, and for nothing else.
    if approvals.is_everywhere(case.approve, case.dataset, _narrowed(case)):
        whys = {name: one.why for name, one in case.remove.items()} | dict(case.pending)
        held = {name for name in held if whys[name] in DESTROYING}
    return held


def _asks_custodial(case: Case, one: Leaving) -> bool:
    return one.custodial and case.budget.hold_custodial


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
    elif case.approve and (problem := _problem(case)):
        yield Stop(Limit.APPROVAL, f"{problem}: look again")
    elif case.approve and _is_empty(case) and not case.budget.allow_clean and not _is_all_covered(case):
        yield _empty(case)


def _is_all_covered(case: Case) -> bool:
    """True where all of a dataset is on record as held, by plans of the whole site: its own list is rightly empty."""
    return case.own is not None and len(_covered(case)) >= case.own.rules


def _problem(case: Case) -> str:
    at = case.at.timestamp()
    return approvals.problem_of(
        case.approve, case.node, case.dataset, at=at, lifetime=case.lifetime, narrowed=_narrowed(case)
    )


def _narrowed(case: Case) -> str:
    return approvals.narrowing(case.select, case.ignore)


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
    """An empty list is a wonder where a block should be there that is not proven to be gone everywhere."""
    return case.present == 0 and (case.own or case.site).rules > case.proven


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


def _whole(case: Case, single: Collection[str], covered: Collection[str]) -> Iterator[Stop]:
    """The limits that hold all of it, for the blocks beside those that are held one by one or approved."""
    distrusted = list(_distrust(case))
    yield from (stop for stop in distrusted if stop.limit is Limit.EMPTY)
    rest = {name: one for name, one in case.remove.items() if name not in single and name not in covered}
    if rest:
        spent = [one for name, one in case.remove.items() if name in covered]
        yield from _shares(case, sum(not one.marked for one in [*rest.values(), *spent]))
        yield from _totals(case, [*rest.values(), *spent])
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
    budget, new = case.budget, [one for one in rest if not one.marked]
    if case.site.marked + len(new) > budget.blocks:
        says = f"would mark {_of(case.site, len(new))}, limit {budget.blocks:,} at one time"
        yield Stop(Limit.BLOCKS, says, budget.blocks)
    if (total := case.spent_bytes + sum(one.bytes for one in new)) > budget.bytes:
        yield Stop(Limit.BYTES, f"would mark {size(total)}, limit {size(budget.bytes)} at one time", budget.bytes)


def _over(case: Case) -> Iterator[Stop]:
    """Why marks that nobody approved may not be acted on: together they pass the budget that each plan kept to.

    One mark alone was no sum of plans, so it is never held here. Where the bytes are not known that is a reason too.
    """
    budget, number = case.budget, len(case.loose)
    if number < 2:
        return
    yield from over_by_number(number, case.site.rules, budget)
    says = f"{count(number, 'mark')} that nobody approved: "
    if (total := sum(case.loose.values())) > budget.bytes:
        yield Stop(Limit.MARKED, f"{says}{size(total)}, limit {size(budget.bytes)} at one time", budget.bytes)
    if case.doubt:
        yield Stop(Limit.MARKED, f"{says}their bytes are not known", budget.bytes)


def over_by_number(number: int, rules: int, budget: Budget) -> Iterator[Stop]:
    """Why so many marks that nobody approved are too many for a site of so many rules; two or more of them."""
    if number < 2:
        return
    says = f"{count(number, 'mark')} that nobody approved: "
    if (share := number / max(rules, 1)) > budget.share:
        of = f"{percent(share)} of {count(rules, 'rule')}"
        yield Stop(Limit.MARKED, f"{says}{of}, limit {percent(budget.share)}", budget.share)
    if number > budget.blocks:
        yield Stop(Limit.MARKED, f"{says}limit {budget.blocks:,} at one time", budget.blocks)


def _share(tally: Tally, number: int) -> float:
    return (tally.marked + number) / tally.rules if tally.rules else 0.0


def _of(tally: Tally, number: int) -> str:
    already = f", {tally.marked:,} of them marked already" if tally.marked else ""
    return f"{tally.marked + number:,} of {count(tally.rules, 'rule')}{already}"


def _single(case: Case) -> Iterator[tuple[str, Limit]]:
    """The blocks that a person must approve, whatever their number."""
    for name, one in case.remove.items():
        limit = single_limit(one.why, case.budget, tape=case.tape, custodial=one.custodial)
        if limit is not None:
            yield name, limit


def _marked_single(case: Case) -> Iterator[tuple[str, Limit]]:
    """Marked blocks that a person must approve, as they are now, and that no person approved as that."""
    for name, why in case.pending.items():
        asks = name not in case.begun
        limit = single_limit(why, case.budget, tape=asks and case.tape, custodial=asks and name in case.custodial)
        if limit is not None and (name in case.loose or name in case.unseen):
            yield name, limit


def _of_single(held: Mapping[str, Limit], locked: Collection[str], case: Case) -> list[Stop]:
    numbers = {limit: sum(one is limit for one in held.values()) for limit in WHY_SINGLE}
    number = len({*locked, *case.locked})
    found = [Stop(Limit.LOCKED, f"{count(number, 'block')} {WHY_LOCKED}")] if number else []
    return found + [
        Stop(limit, f"{count(number, 'block')} {WHY_SINGLE[limit]}") for limit, number in numbers.items() if number
    ]


def _command(case: Case) -> str:
    code = approvals.code_of(case.at, approvals.scope_of(case.node, case.dataset, _narrowed(case)))
    return f"{case.command} --approve {code} --reason '…'"


def _everywhere(case: Case, held: Collection[str]) -> str:
    """One approval for all nodes, where all that is held belongs to one dataset and is gone everywhere."""
    datasets = {dataset_of(name) for name in held}
    gone = all(case.remove[name].why in (Removal.NOWHERE, Removal.UNPROVEN, Removal.UNKNOWN) for name in held)
    if len(datasets) != 1 or not gone:
        return ""
    (dataset,) = datasets
    code = approvals.code_of(case.at, approvals.scope_of(approvals.EVERYWHERE, dataset, _narrowed(case)))
    words = ["phedex-rucio", "sync", "dataset", dataset, *options(case.select, case.ignore)]
    return f"{shlex.join(words)} --approve {code} --reason '…'"


def options(select: str, ignore: str) -> list[str]:
    """The words by which a person narrows a command."""
    return [word for name, text in (("--select", select), ("--ignore", ignore)) if text for word in (name, text)]
