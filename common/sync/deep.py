"""Which blocks does a deep look concern?"""

from __future__ import annotations

from common.sync.catalogue import Reading
from common.sync.selection import Predicate


def deep_names(reading: Reading, chosen: Predicate) -> list[str]:
    """All chosen blocks that PhEDEx has complete at the node, in order of name, whatever their rules say."""
    return sorted(name for name, block in reading.blocks.items() if block.complete and block.files and chosen(name))
