"""What data does Rucio know, and how does it get to know more? Containers, datasets, files, and what is in what."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec import Struct

from common.names import SCOPE
from common.rucio.session import Row, Rucio, sliced
from common.sync.catalogue import File


class Attachment(Struct, frozen=True, kw_only=True):
    """Children for one parent: `files`, or by name datasets for a container and files that Rucio knows.

    With `rse` the replicas of `files` there are made as well, and the files themselves where Rucio has none.
    """

    parent: str
    files: tuple[File, ...] = ()
    names: tuple[str, ...] = ()
    rse: str = ""


def did(name: str) -> dict[str, str]:
    """A name as Rucio wants it: one of ours, or, as `scope:name`, one of somebody else's scope."""
    scope, colon, rest = name.partition(":")
    return {"scope": scope, "name": rest} if colon and not name.startswith("/") else {"scope": SCOPE, "name": name}


def called(row: Row) -> str:
    """The name of a row's DID, with its scope where that is not ours."""
    name = str(row["name"])
    return name if row.get("scope", SCOPE) == SCOPE else f"{row['scope']}:{name}"


def existing(rucio: Rucio, names: Iterable[str]) -> dict[str, bool]:
    """The names that Rucio has: each with whether it is open, that is, whether something may be attached to it."""
    return {row["name"]: bool(row["is_open"]) for row in _metadata(rucio, names)}


def children(rucio: Rucio, container: str) -> set[str]:
    """The names of what is in a container."""
    return {row["name"] for row in rucio.rows("list_content", SCOPE, container, about=container)}


def known_files(rucio: Rucio, names: Iterable[str]) -> dict[str, File]:
    """The files among the names that Rucio knows, wherever they are."""
    return {row["name"]: _file(row) for row in _metadata(rucio, names) if row["did_type"] == "FILE"}


def contents(rucio: Rucio, datasets: Iterable[str]) -> dict[str, dict[str, File]]:
    """The files of each dataset, by name; an empty one and one that does not exist look the same."""
    found: dict[str, dict[str, File]] = {name: {} for name in datasets}
    for part in sliced(sorted(found), rucio.main.rucio_dids):
        dids = [did(name) for name in part]
        for row in rucio.rows("bulk_list_files", dids, about=_about(part)):
            file = _file(row)
            found[row["parent_name"]][file.name] = file
    return found


def add(rucio: Rucio, containers: Iterable[str], datasets: Iterable[str]) -> None:
    """The containers and datasets exist, open and empty. They must not have existed.

    A list is all or nothing: RucioConflict (one is there already) leaves none of it.
    """
    kinds = {**dict.fromkeys(containers, "CONTAINER"), **dict.fromkeys(datasets, "DATASET")}
    for part in sliced(sorted(kinds), rucio.main.rucio_dids):
        dids = [{**did(name), "type": kinds[name]} for name in part]
        rucio.call("add_dids", dids, about=_about(part))


def attach(rucio: Rucio, attachments: Iterable[Attachment]) -> None:
    """The children are in their parents, in one request that is done whole or not at all; again does no harm.

    At most 1,000 children an attachment. Raises FileConflict where Rucio has a file with another size or checksum,
    NotFound for a parent or (without `rse`) a child that it does not know, and RucioConflict, in spite of
    `ignore_duplicate`, where another client did the same at that moment (seen on 41.5.1).
    """
    ordered = sorted(attachments, key=lambda one: one.parent)
    rows = [_attachment(one) for one in ordered]
    rucio.call("attach_dids_to_dids", rows, ignore_duplicate=True, about=_about([one.parent for one in ordered]))


def detach(rucio: Rucio, parent: str, names: Iterable[str], *, by: float) -> None:
    """The names are in the parent no more; all of them were, or NotFound and nothing was done.

    Raises TooLate where a request could not be sent by this time of the session's clock.
    """
    for part in sliced(sorted(names), rucio.main.rucio_files):
        what = f"{_about(part)} of {parent}"
        rucio.call_by(by, "detach_dids", SCOPE, parent, [did(name) for name in part], about=what)


def matching(rucio: Rucio, pattern: str) -> list[str]:
    """The datasets of our scope whose names begin with a dataset of the pattern (`*` any text), all of them listed."""
    wild = pattern.replace("%", "*").replace("?", "*")
    return [
        str(name) for name in rucio.call("list_dids", SCOPE, {"name": f"{wild}#*"}, did_type="dataset", about=pattern)
    ]


def made_by_others(rucio: Rucio, names: Collection[str]) -> dict[str, str]:
    """Those of the names that Rucio knows and another account than ours made, each with that account, "" if unknown."""
    if not names:
        return {}
    mine = rucio.probe()
    makers = {called(row): str(row.get("account") or "") for row in _metadata(rucio, names)}
    return {name: maker for name, maker in makers.items() if maker != mine}


def former(rucio: Rucio, dataset: str) -> dict[str, File]:
    """The files that were detached from a dataset, some of which may be inside again: Rucio keeps their history."""
    rows = rucio.rows("list_content_history", SCOPE, dataset, about=dataset)
    files = (_file(row) for row in rows if row["type"] == "FILE")
    return {file.name: file for file in files}


def file_row(file: File) -> Row:
    """A file as Rucio takes it. Without a checksum the key is left out: Rucio would compare None with what it has."""
    row: Row = {**did(file.name), "bytes": file.bytes}
    return row if file.adler32 is None else {**row, "adler32": file.adler32}


def _attachment(one: Attachment) -> Row:
    children = [file_row(file) for file in sorted(one.files, key=lambda file: file.name)]
    children += [did(name) for name in sorted(one.names)]
    row: Row = {**did(one.parent), "dids": children}
    return {**row, "rse": one.rse} if one.rse else row


def _metadata(rucio: Rucio, names: Iterable[str]) -> list[Row]:
    """Rucio leaves out what it does not know. The largest list that it takes: reading is cheap."""
    rows: list[Row] = []
    for part in sliced(sorted(set(names)), 1000):
        rows += rucio.rows("get_metadata_bulk", [did(name) for name in part], about=_about(part))
    return rows


def _file(row: Row) -> File:
    return File(called(row), row["bytes"], row["adler32"])


def _about(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} names from {names[0]}"
