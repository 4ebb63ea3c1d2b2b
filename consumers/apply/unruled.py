"""What of blocks that left their node after they were attached there and before they had their rule?

No rule leads to their replicas, so no plan would ever find them. The message that attached them has not been
acknowledged: it comes again, and here they get the rule after all. Then they leave as every block does, by the guard,
a mark and the time of grace.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.rucio import dids
from common.rucio import rules as rucio_rules
from common.rucio.session import Rucio
from common.sync.catalogue import BlockAtNode
from consumers.apply import contents, replicas, rules
from consumers.apply.batch import Batch, Fate

NOBODYS = BlockAtNode(files=0, bytes=0, here=0, complete=False, is_open=False)


def give_rules(rucio: Rucio, batch: Batch, names: Iterable[str]) -> None:
    """Blocks that PhEDEx has not complete at the node, and that are there whole for Rucio, have a rule of ours.

    Only where no rule of anybody holds the block at the RSE, and all files that it has in Rucio are available there;
    for any other Rucio would queue a transfer. Three requests for all of the names where Rucio has them not, or has a
    rule; two for each of those that are left.
    """
    there = sorted(set(names) & contents.existing(rucio, names).keys())
    held = {lock.name for lock in rucio_rules.locks(rucio, there) if lock.rse == batch.site.rse}
    files = dids.contents(rucio, [name for name in there if name not in held])
    whole = [name for name, inside in files.items() if inside and _is_whole(rucio, batch.site.rse, name, inside)]
    found = rules.find(rucio, batch.site, whole, thorough=True)
    blocks = {name: batch.partial.get(name, NOBODYS) for name in whole if name not in found.ours}
    for part in rules.add(rucio, batch.site, blocks):
        batch.written = True
        for name in part:
            note = f"{name}: left before it had its rule: has it now, and the next plan sees it"
            batch.end(name, Fate.RULED_LATE, note)


def _is_whole(rucio: Rucio, rse: str, name: str, inside: contents.Files) -> bool:
    return not replicas.lacking(rucio, rse, name, inside.keys())
