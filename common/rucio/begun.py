"""Has a sweep of a block begun, so that there is only forward?"""

from __future__ import annotations

from common.rucio import dids, replicas
from common.rucio.session import Row, Rucio
from common.sync.marks import hash_of, named_of, parse_meta


def is_begun(rucio: Rucio, rse: str, row: Row) -> bool:
    """True where a sweep of the rule's block was about to begin, and most files that the rule names for it are gone.

    Gone from the RSE or out of the block. They tell of all, for one request takes them whole or not at all: most of
    them, for a single one may be lost, or registered again, by another hand. What joined the block since, or had no
    replica here before, tells nothing. Where no file is named, any that is missing counts.
    """
    named, name = named_of(parse_meta(row.get("meta"))), row["name"]
    if named is None:
        return False
    inside = dids.contents(rucio, [name])[name]
    asked = [file for file in inside if not named or hash_of(file) in named]
    here = sum(rse in one.states for one in replicas.standing(rucio, asked).values())
    return 2 * here < len(named) if named else here < max(len(inside), row.get("locks_ok_cnt") or 0)
