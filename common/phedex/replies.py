"""What do PhEDEx's replies look like? Typed structs, decoded in one pass.

Numbers may come as numbers or as text: all of them were strings before 2012, and `call_time` and most ids still are in
streamed replies. So they are decoded with `strict=False`. A key that we do not need is skipped; one that we need and
that is missing makes the document undecodable. `gc=False`: the rows of a large reply cost the collector nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

Flag = Literal["y", "n"]
Count = Annotated[int, Meta(ge=0)]
Buffer = bytes | bytearray


class Envelope(Struct, frozen=True, gc=False, kw_only=True):
    """What stands beside the rows of every reply. `call_time` is written last: without it the call never ended."""

    call_time: float
    request_call: str
    instance: str
    request_timestamp: float


TAPE = ("MSS", "Buffer")  # the kinds of nodes on tape and before it


class Node(Struct, frozen=True, gc=False):
    """A node: its name, storage element, kind (`Disk`, `Buffer`, `MSS`) and technology, None where unknown."""

    name: str
    se: str | None = None
    kind: str | None = None
    technology: str | None = None


class Nodes(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `nodes`."""

    node: list[Node]


class BlockReplica(Struct, frozen=True, gc=False):
    """A block at a node: the files and bytes that are there now."""

    node: str
    files: Count
    bytes: Count
    complete: Flag
    group: str | None
    custodial: Flag


class BlockRow(Struct, frozen=True, gc=False):
    """A block of `blockreplicas`: its totals, and its replicas that passed the filters of the question."""

    name: str
    files: Count
    bytes: Count
    is_open: Flag
    replica: tuple[BlockReplica, ...]


class BlockReplicas(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `blockreplicas` (without `show_dataset`)."""

    block: list[BlockRow]


class ReplicaInFull(BlockReplica, frozen=True, gc=False):
    """A block at a node with all that is told of it: since when, changed when (epoch seconds), meant to be there."""

    time_create: float | None = None
    time_update: float | None = None
    subscribed: Flag | None = None


class RowInFull(Struct, frozen=True, gc=False):
    """A block of `blockreplicas` with every replica in full, for questions about one block."""

    name: str
    files: Count
    bytes: Count
    is_open: Flag
    replica: tuple[ReplicaInFull, ...]


class BlocksInFull(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `blockreplicas` read in full."""

    block: list[RowInFull]


class FileReplica(Struct, frozen=True, gc=False):
    """A file at a node."""

    node: str


class FileRow(Struct, frozen=True, gc=False):
    """A file of `filereplicas`. Its size and name are looked at later, so that a bad one costs only its block."""

    name: str
    bytes: int
    checksum: str | None
    replica: tuple[FileReplica, ...]


class FilesRow(Struct, frozen=True, gc=False):
    """A block of `filereplicas`: the number and bytes of all its files, and those files that passed the filters."""

    name: str
    files: Count
    bytes: Count
    file: tuple[FileRow, ...]


class FileReplicas(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `filereplicas`."""

    block: list[FilesRow]


class DataFile(Struct, frozen=True, gc=False):
    """A file of `data`, which names it otherwise than `filereplicas` does."""

    lfn: str


class DataBlock(Struct, frozen=True, gc=False):
    """A block of `data`, with the bytes of all of it; and with `level=file` those of its files that were asked for."""

    name: str
    bytes: Count
    file: tuple[DataFile, ...] = ()


class DataDataset(Struct, frozen=True, gc=False):
    """A dataset of `data`."""

    name: str
    block: tuple[DataBlock, ...]


class DataDbs(Struct, frozen=True, gc=False):
    """One bookkeeping service of `data`, with its datasets."""

    dataset: tuple[DataDataset, ...]


class Data(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `data`: everything that was ever injected, with or without replicas."""

    dbs: list[DataDbs]


class DeletionRow(Struct, frozen=True, gc=False):
    """A deletion of a block at a node: asked for and done (epoch seconds); done before it was asked for is not done."""

    node: str
    time_request: float
    time_complete: float | None
    complete: Flag


class DeletionsBlock(Struct, frozen=True, gc=False):
    """A block of `deletions`."""

    name: str
    deletion: tuple[DeletionRow, ...]


class DeletionsDataset(Struct, frozen=True, gc=False):
    """A dataset of `deletions`, with those of its blocks that have any."""

    name: str
    block: tuple[DeletionsBlock, ...]


class Deletions(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `deletions`."""

    dataset: list[DeletionsDataset]


class SubscriptionRow(Struct, frozen=True, gc=False):
    """A subscription: the node that is meant to have it."""

    node: str


class SubscribedBlock(Struct, frozen=True, gc=False):
    """A block of `subscriptions`, subscribed by itself or as part of its dataset."""

    name: str
    subscription: tuple[SubscriptionRow, ...]


class SubscribedDataset(Struct, frozen=True, gc=False):
    """A dataset of `subscriptions`: those of all of it, and its blocks. Either may be missing."""

    name: str
    subscription: tuple[SubscriptionRow, ...] = ()
    block: tuple[SubscribedBlock, ...] = ()


class Subscriptions(Envelope, frozen=True, gc=False, kw_only=True):
    """A reply of `subscriptions`."""

    dataset: list[SubscribedDataset]


class Pieces(Struct, frozen=True, gc=False, kw_only=True):
    """The envelope of a document that would not decode as asked, to see what is wrong with it."""

    error: Raw | UnsetType = UNSET
    call_time: Raw | UnsetType = UNSET
    request_call: str | UnsetType = UNSET


T = TypeVar("T")


class Document(Struct, Generic[T], frozen=True, gc=False):
    """The whole body: a reply, and an error document's text where there is one."""

    phedex: T
    error: Raw | UnsetType = UNSET


class Broken(Struct, frozen=True, gc=False):
    """A body that would not decode as asked, its rows skipped."""

    phedex: Pieces | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


# The call that each reply answers, as PhEDEx repeats it in `request_call`.
CALLS: dict[type[Envelope], str] = {
    Nodes: "nodes",
    BlockReplicas: "blockreplicas",
    BlocksInFull: "blockreplicas",
    FileReplicas: "filereplicas",
    Data: "data",
    Deletions: "deletions",
    Subscriptions: "subscriptions",
}
_decoders: dict[type[Envelope], msgspec.json.Decoder[Any]] = {
    Nodes: msgspec.json.Decoder(Document[Nodes], strict=False),
    BlockReplicas: msgspec.json.Decoder(Document[BlockReplicas], strict=False),
    BlocksInFull: msgspec.json.Decoder(Document[BlocksInFull], strict=False),
    FileReplicas: msgspec.json.Decoder(Document[FileReplicas], strict=False),
    Data: msgspec.json.Decoder(Document[Data], strict=False),
    Deletions: msgspec.json.Decoder(Document[Deletions], strict=False),
    Subscriptions: msgspec.json.Decoder(Document[Subscriptions], strict=False),
    Envelope: msgspec.json.Decoder(Document[Envelope], strict=False),
}
_broken = msgspec.json.Decoder(Broken, strict=False)

R = TypeVar("R", bound=Envelope)


def decode(kind: type[R], body: Buffer) -> Document[R]:
    """The body as a reply of this kind.

    Raises msgspec.DecodeError for what is no JSON, msgspec.ValidationError for a missing key or a wrong type,
    UnicodeDecodeError for a text that is not UTF-8, RecursionError for nesting without end.
    """
    document: Document[R] = _decoders[kind].decode(body)
    return document


def pieces(body: Buffer) -> Broken:
    """What can be told of a body that did not decode as a reply. Raises as `decode` does."""
    return _broken.decode(body)
