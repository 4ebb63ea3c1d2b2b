"""How does what a person asks for become the root of a cycle?"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from common import names
from common.errors import UsageError
from common.messages.codec import checked
from common.messages.commands import Command, SyncSite, with_meta
from common.messages.meta import Lane, new_id

# A `select` of exact names stays well below what a command's expression may hold.
SELECT_BYTES = 32 * 1024


def rooted(command: Command, lane: Lane = "now") -> Command:
    """The command as the root of a cycle of its own, in a lane (that of people), with who sends it; checked.

    Raises InvalidMessage that names the field.
    """
    name = command.meta.id or new_id()
    meta = replace(command.meta, id=name, cycle=name, lane=lane, by=command.meta.by or sender())
    return checked(with_meta(command, meta))


def sender() -> str:
    """Who sends: `user@host`; a number for a user without a name, as in many containers."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def of_blocks(node: str, blocks: Sequence[str], narrowed: SyncSite) -> list[SyncSite]:
    """One `sync.site` a dataset, limited to exactly these blocks of it: plan, guard and batches exist once.

    `narrowed` gives the rest of the fields. Raises UsageError for a name that is no block.
    """
    for block in blocks:
        if not names.is_block(block):
            raise UsageError(f"{block}: no block name such as /Primary/Processed/TIER#id (quote it: # is the shell's)")
    datasets = sorted({names.dataset_of(block) for block in blocks})
    return [
        replace(narrowed, node=node, dataset=dataset, select=select)
        for dataset in datasets
        for select in _selects(sorted({b for b in blocks if names.dataset_of(b) == dataset}))
    ]


def _selects(blocks: Sequence[str]) -> Iterator[str]:
    """Expressions that match exactly these names, each short enough for a command."""
    part: list[str] = []
    for block in map(re.escape, blocks):
        if part and sum(map(len, part)) + len(part) + len(block) > SELECT_BYTES:
            yield f"^(?:{'|'.join(part)})$"
            part = []
        part.append(block)
    yield f"^(?:{'|'.join(part)})$"
