"""A person's approval of removals: a code that says when and where somebody looked, and what it covers.

What is held is on record in Rucio, in the rule of each block, since a time and for a reason. An approval covers what
was on record when the person looked and is so still: a block that is held later is not covered, one that came back
meanwhile is not covered when it leaves again, and neither takes the approval away from the rest.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import msgspec

from common.sync.marks import Hold, Removal, permits

_CODE = re.compile(r"(\d{8}T\d{9})-([0-9a-f]{6})\Z", re.ASCII)
_AT = "%Y%m%dT%H%M%S"  # and milliseconds: two plans of a quick machine fall into one second
EVERYWHERE = "*"  # in place of a node: the dataset at all nodes
NARROWED = 16  # hexadecimal digits that tell one narrowing from another


def scope_of(node: str, dataset: str, narrowed: str = "") -> str:
    """What an approval is of: a node (or `EVERYWHERE`), a dataset or pattern there, and how a command narrows that."""
    return " ".join(filter(None, [node, "*" if dataset == "/*/*/*" else dataset, narrowed]))


def narrowing(select: str, ignore: str) -> str:
    """A few digits for how a command narrows its pattern, "" where it does not: who looked saw no more than that."""
    if not (select or ignore):
        return ""
    return hashlib.sha256(msgspec.json.encode([select, ignore])).hexdigest()[:NARROWED]


def code_of(at: datetime, scope: str) -> str:
    """The code by which a person approves what is held in this scope and on record by then."""
    stamp = f"{at.astimezone(UTC):{_AT}}{at.microsecond // 1000:03}"
    return f"{stamp}-{_check(stamp, scope)}"


def _check(stamp: str, scope: str) -> str:
    """Against a slip of the pen, and against the code of another site or pattern; no secret."""
    return hashlib.sha256(f"{stamp} {scope}".encode()).hexdigest()[:6]


def time_of(code: str) -> float:
    """When somebody looked (epoch seconds, to the millisecond), 0 for what is no code. Says nothing of the scope."""
    found = _CODE.match(code)
    try:
        return datetime.strptime(found[1], f"{_AT}%f").replace(tzinfo=UTC).timestamp() if found else 0
    except ValueError:
        return 0


def problem_of(
    code: str, node: str, dataset: str, *, at: float, lifetime: float, narrowed: str = "", skew: float = 60
) -> str:
    """Why a code approves nothing here, "" where it is good. `at`: now; `lifetime`: seconds that an approval lasts.

    `narrowed`: how the command narrows its pattern, as `narrowing` has it.
    """
    since = time_of(code)
    if not since:
        return f"{code!r} is no approval code such as 20261128T004510123-1a2b3c"
    stamp, check = code.split("-")
    if check not in {_check(stamp, scope_of(one, dataset, narrowed)) for one in (node, EVERYWHERE)}:
        how = " with this --select and --ignore" if narrowed else ""
        return f"{code} was given for another site or pattern than {scope_of(node, dataset)}{how}"
    if since > at + skew:
        return f"{code} is of a time to come: clocks differ"
    if since < at - lifetime:
        return f"{code} has lapsed: an approval lasts {lifetime / 3600:g} h (approval_lifetime)"
    return ""


def is_everywhere(code: str, dataset: str, narrowed: str) -> bool:
    """True for a code of the dataset at all nodes: it is given for what is gone everywhere, and covers nothing else."""
    stamp, _, check = code.partition("-")
    return check == _check(stamp, scope_of(EVERYWHERE, dataset, narrowed))


def covers(since: float, hold: Hold | None, why: Removal, *, custodial: bool = False) -> bool:
    """True where the block was on record as held when somebody looked, for this reason or a worse one.

    Or where the plan that was looked at is the one that put it on record. `custodial`: what it is now, and must have
    been on record as.
    """
    if hold is None or (custodial and not hold.custodial):
        return False
    return (hold.since <= since or hold.plan == since) and permits(hold.why, why)
