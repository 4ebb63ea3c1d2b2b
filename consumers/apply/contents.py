"""How do containers, blocks and files become what PhEDEx says? Only what lacks is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from common.names import dataset_of
from common.rucio import dids
from common.rucio.dids import Attachment
from common.rucio.session import Rucio, sliced
from common.sync.catalogue import File

Files = dict[str, File]


class Seen(Struct, frozen=True):
    """What Rucio has of some blocks and their files, wherever that is.

    `open_`: the containers and blocks that exist, and whether they are open. `contents`: the files of each block.
    `known`: files that are in no such block but known. `attached`: blocks that are in their container for sure.
    """

    open_: dict[str, bool]
    contents: dict[str, Files]
    known: Files
    attached: frozenset[str] = frozenset()

    def file(self, block: str, name: str) -> File | None:
        """The file as Rucio has it, in the block or elsewhere; None if it does not know it."""
        return self.contents[block].get(name) or self.known.get(name)


def existing(rucio: Rucio, names: Iterable[str]) -> dict[str, bool]:
    """Those of the blocks and of their containers that Rucio has, and whether they are open."""
    return dids.existing(rucio, {one for name in names for one in (name, dataset_of(name))})


def look(rucio: Rucio, wanted: Mapping[str, Files], open_: dict[str, bool], ruled: Iterable[str]) -> Seen:
    """What Rucio has of the wanted blocks: two requests for many of them.

    The containers of the `ruled` blocks, which have a rule already, are listed to see whether these are inside; the
    other blocks are attached anyway.
    """
    inside = dids.contents(rucio, [name for name in wanted if name in open_])
    found = {name: inside.get(name, {}) for name in wanted}
    unseen = [file for name, files in wanted.items() for file in files if file not in found[name]]
    containers = sorted({dataset_of(name) for name in ruled} & open_.keys())
    attached = frozenset().union(*(dids.children(rucio, container) for container in containers))
    return Seen(open_, found, dids.known_files(rucio, unseen), attached)


def conflict(name: str, files: Files, seen: Seen) -> str:
    """The first file of the block that Rucio has with another size or checksum, with both; "" if there is none.

    A checksum that one side lacks differs from nothing.
    """
    for file in files.values():
        theirs = seen.file(name, file.name)
        if theirs is not None and theirs.bytes != file.bytes:
            return f"{file.name}: {file.bytes} bytes in PhEDEx, {theirs.bytes} in Rucio"
        if theirs is not None and theirs.adler32 and file.adler32 and theirs.adler32 != file.adler32:
            return f"{file.name}: adler32 {file.adler32} in PhEDEx, {theirs.adler32} in Rucio"
    return ""


def make(rucio: Rucio, names: Iterable[str], seen: Seen) -> bool:
    """The blocks and their containers exist; True if one had to be made."""
    wanted = set(names) - seen.open_.keys()
    containers = {dataset_of(name) for name in names} - seen.open_.keys()
    if wanted or containers:
        dids.add(rucio, containers, wanted)
    return bool(wanted or containers)


def fill(rucio: Rucio, rse: str, files: Mapping[str, Files], seen: Seen) -> None:
    """The files are in their blocks with replicas at the RSE, and the blocks are in their containers.

    Requests hold at most `rucio_files` files, or one block that Rucio has already: where a block leaves while it is
    attached, what is there must be all that Rucio has of it, for then it gets its rule after all (`unruled`). The
    containers come with the last request, so that a block whose files are not all in is found by the next run.
    """
    requests = list(_packed(_pieces(rucio, rse, files, seen), rucio.main.rucio_files)) or [[]]
    requests[-1] = requests[-1] + _into_containers([name for name in files if name not in seen.attached])
    for request in requests:
        if request:
            dids.attach(rucio, request)


def _pieces(rucio: Rucio, rse: str, files: Mapping[str, Files], seen: Seen) -> Iterator[list[Attachment]]:
    """The attachments of each block: those of one that Rucio has belong together."""
    for name in sorted(files):
        ordered = [as_known(file, seen.file(name, file.name)) for _, file in sorted(files[name].items())]
        parts = sliced(ordered, rucio.main.rucio_files)
        pieces = [Attachment(parent=name, files=tuple(part), rse=rse) for part in parts]
        yield from [pieces] if name in seen.open_ else ([piece] for piece in pieces)


def as_known(file: File, theirs: File | None) -> File:
    """The file without the checksum where Rucio's file has none: it would take that for another file (41.5.1)."""
    return File(file.name, file.bytes) if theirs is not None and not theirs.adler32 else file


def _packed(pieces: Iterable[list[Attachment]], size: int) -> Iterator[list[Attachment]]:
    request: list[Attachment] = []
    files = 0
    for together in pieces:
        more = sum(len(piece.files) for piece in together)
        if request and files + more > size:
            yield request
            request, files = [], 0
        request += together
        files += more
    if request:
        yield request


def _into_containers(names: Iterable[str]) -> list[Attachment]:
    inside: dict[str, list[str]] = defaultdict(list)
    for name in names:
        inside[dataset_of(name)].append(name)
    return [Attachment(parent=container, names=tuple(blocks)) for container, blocks in inside.items()]
