"""Which commands are there, and what does each ask for?

Adding a kind is two files: its struct here or in `setup`, and `consumers/<kind>.py` with `handle(command, world)`.
Queues, `phedex-rucio send` and the table of messages are derived from the structs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta as Constraint
from msgspec import Struct
from msgspec.structs import replace

from common import names
from common.errors import System
from common.messages.fields import BOTH, Block, Node, Pattern, Reason, Regex
from common.messages.meta import Meta, Positive
from common.messages.setup import Account, Link, Rse
from common.messages.upload import Upload

MAX_BLOCKS = 100


class SyncSite(
    Struct, tag_field="kind", tag="sync.site", forbid_unknown_fields=True, omit_defaults=True, frozen=True, kw_only=True
):
    """Compare one node (or the datasets there that match a pattern) with Rucio, plan, and send the batches.

    `select`, `ignore` and `limit` only narrow. `after`: the last name that an earlier page of this plan covered.
    `approve`: the code of a person's approval of what is held on record; it passes the guard, the rest does not.
    """

    lanes: ClassVar[bool] = True
    needs: ClassVar[frozenset[System]] = BOTH

    v: Positive = 1
    node: Node
    dataset: Pattern = "*"
    select: Regex = ""
    ignore: Regex = ""
    limit: Positive | None = None
    after: Annotated[str, Constraint(max_length=names.NAME_LENGTH)] = ""
    deep: bool = False
    dry: bool = False
    adds_only: bool = False
    approve: Annotated[str, Constraint(max_length=80)] = ""
    reason: Reason = ""
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the node, and the pattern where there is one."""
        return self.node if self.dataset == "*" else f"{self.node} {self.dataset}"


class SyncDataset(
    Struct,
    tag_field="kind",
    tag="sync.dataset",
    forbid_unknown_fields=True,
    omit_defaults=True,
    frozen=True,
    kw_only=True,
):
    """Send one `sync.site` to the nodes: those that it names, else those that have blocks of a dataset or pattern.

    A node from which the last of them is gone is found by a sync of the node, or by its name here.
    """

    lanes: ClassVar[bool] = False
    needs: ClassVar[frozenset[System]] = BOTH

    v: Positive = 1
    dataset: Pattern
    nodes: Annotated[list[Node], Constraint(max_length=500)] = []
    select: Regex = ""
    ignore: Regex = ""
    deep: bool = False
    dry: bool = False
    adds_only: bool = False
    approve: Annotated[str, Constraint(max_length=80)] = ""  # the code of an approval for all nodes (version 2)
    reason: Reason = ""
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the dataset or pattern."""
        return self.dataset


class SyncBlocks(
    Struct,
    tag_field="kind",
    tag="sync.blocks",
    forbid_unknown_fields=True,
    omit_defaults=True,
    frozen=True,
    kw_only=True,
):
    """Bring Rucio to PhEDEx's state for some blocks at one node. A key, not an order: both sides are read afresh.

    Absent or past permissions mean that the batch only adds. Fields after `v` 1 came with the version at them.
    """

    lanes: ClassVar[bool] = True
    needs: ClassVar[frozenset[System]] = BOTH

    v: Positive = 1
    node: Node
    blocks: Annotated[list[Block], Constraint(min_length=1, max_length=MAX_BLOCKS)]
    removable_until: datetime | None = None  # until when a plan permits these blocks to be removed
    approved: Annotated[str, Constraint(max_length=80)] = ""  # the code of a person's approval of them (2)
    approved_for: Pattern = "*"  # the dataset or pattern of that code (3)
    approved_narrowed: Annotated[str, Constraint(max_length=16)] = ""  # how its command narrowed that, in digits (4)
    held_since: datetime | None = None  # these blocks are only put on record as held since then (3)
    held_why: Annotated[str, Constraint(max_length=20)] = ""  # for which reason (3)
    files_until: datetime | None = None  # until when files that PhEDEx lists no more may leave these blocks (3)
    controls: Annotated[list[Block], Constraint(max_length=3)] = []  # blocks that PhEDEx surely has somewhere (3)
    deep: bool = False
    dry: bool = False
    adds_only: bool = False
    meta: Meta = Meta()

    @property
    def key(self) -> str:
        """What the command is about: the node and the first block."""
        return f"{self.node} {self.blocks[0]}"


Command = SyncSite | SyncDataset | SyncBlocks | Rse | Account | Link | Upload
AnyCommand = (
    type[SyncSite] | type[SyncDataset] | type[SyncBlocks] | type[Rse] | type[Account] | type[Link] | type[Upload]
)
KINDS: dict[str, AnyCommand] = {
    "sync.site": SyncSite,
    "sync.dataset": SyncDataset,
    "sync.blocks": SyncBlocks,
    "rse": Rse,
    "account": Account,
    "link": Link,
    "upload": Upload,
}


def kind_of(command: Command) -> str:
    """The kind as it stands on the wire and in the routing key."""
    tag = type(command).__struct_config__.tag
    return str(tag)


def queue_of(command: Command) -> str:
    """The queue that serves a command: its kind, with `.now` for the lane of people where the kind has lanes."""
    kind = kind_of(command)
    return f"{kind}.now" if command.lanes and command.meta.lane == "now" else kind


def with_meta(command: Command, meta: Meta) -> Command:
    """The same command with another meta."""
    return replace(command, meta=meta)
