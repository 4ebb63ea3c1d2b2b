"""Which files are at an RSE, as far as Rucio knows, and how does it get to know of more?"""

from __future__ import annotations

from collections.abc import Iterable

from common.names import SCOPE
from common.rucio.dids import did, file_row
from common.rucio.session import Rucio, sliced
from common.sync.catalogue import File


def available(rucio: Rucio, rse: str, dataset: str) -> int:
    """How many of the dataset's files are there in state AVAILABLE, counted by Rucio file by file.

    Its counters of datasets lag until a daemon has run, and know nothing of a block without a rule; this does not.
    """
    rows = rucio.rows("list_dataset_replicas", SCOPE, dataset, deep=True, about=dataset)
    return next((row["available_length"] or 0 for row in rows if row["rse"] == rse), 0)


def places(rucio: Rucio, files: Iterable[str]) -> dict[str, frozenset[str]]:
    """The RSEs where each file is AVAILABLE. For few files: about 4 ms a file (41.5.1)."""
    found: dict[str, frozenset[str]] = {name: frozenset() for name in files}
    for part in sliced(sorted(found), rucio.main.rucio_files):
        dids = [did(name) for name in part]
        for row in rucio.rows("list_replicas", dids, all_states=True, resolve_archives=False, about=part[0]):
            found[row["name"]] = frozenset(rse for rse, state in row["states"].items() if state == "AVAILABLE")
    return found


def add(rucio: Rucio, rse: str, files: Iterable[File]) -> None:
    """The files have replicas at the RSE; again does no harm, and one that is there in another state keeps it.

    Rucio does not compare sizes here with what it has elsewhere: look first.
    """
    for part in sliced(sorted(files, key=lambda file: file.name), rucio.main.rucio_files):
        rows = [file_row(file) for file in part]
        rucio.call("add_replicas", rse, rows, about=f"{len(rows)} files from {part[0].name} at {rse}")
