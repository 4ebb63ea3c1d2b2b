"""Has a sweep of a block begun, so that there is only forward?"""

from __future__ import annotations

from common.rucio import dids, replicas
from common.rucio.session import Row, Rucio
from common.sync.marks import first_of, hash_of, parse_meta


def is_begun(rucio: Rucio, rse: str, row: Row) -> bool:
    """True where a sweep of the rule's block was about to begin, and the file that the rule names for it is gone.

    Gone from the RSE or out of the block. It tells of all, for one request takes them whole or not at all; what joined
    the block since, or had no replica here before, tells nothing. Where no file is named, any that is missing counts.
    """
    first, name = first_of(parse_meta(row.get("meta"))), row["name"]
    if first is None:
        return False
    inside = dids.contents(rucio, [name])[name]
    asked = [file for file in inside if first in ("", hash_of(file))]
    here = sum(rse in one.states for one in replicas.standing(rucio, asked).values())
    return here == 0 if first else here < max(len(inside), row.get("locks_ok_cnt") or 0)
