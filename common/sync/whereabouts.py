"""Where is a block in PhEDEx, and what was deleted of it? The evidence that a removal is decided by."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class Whereabouts(Struct, frozen=True, kw_only=True):
    """Where PhEDEx has a block, by its list of block replicas. Nodes with unusual names (retired `X…`) count too."""

    # The block's own number of files and their bytes, wherever they are; 0 where the block came without a row.
    files: int = 0
    bytes: int = 0
    # The nodes where it is complete: closed, and all of its files are there.
    complete: frozenset[str] = frozenset()
    # The nodes that have some of its files, or all of a block that is still open.
    partial: frozenset[str] = frozenset()
    # The nodes that have a record of it and no file yet.
    meant: frozenset[str] = frozenset()
    # It came with a row. Without one PhEDEx has no record of it at any node, or left the row out.
    listed: bool = False
    # That a row is missing can be believed as far as one reply goes: the block has a row itself, or a control, which
    # is surely somewhere, came back in the same reply.
    controlled: bool = False
    # When PhEDEx made the reply, by its own clock.
    as_of: datetime

    @property
    def somewhere(self) -> bool:
        """True where any node has files of the block, or is meant to have them."""
        return bool(self.complete or self.partial or self.meant)


class Deletion(Struct, frozen=True):
    """That a block was to be deleted at a node: asked for when, and done when."""

    # When it was asked for, for the last time.
    requested: datetime
    # When the node had done what was asked for; None while it has not, also where an earlier request was done.
    completed: datetime | None = None
