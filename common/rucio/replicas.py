"""Which files are at an RSE, as far as Rucio knows, and how does it get to know of more?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from common.names import SCOPE
from common.rucio.dids import called, did, file_row
from common.rucio.session import Rucio, sliced
from common.sync.catalogue import File

# Rucio sorts each file's addresses, which nobody here reads, by how far they are, unless it is told otherwise: that
# asks its configuration again for each file, and makes a request ten times slower (41.5.1).
STATES: Mapping[str, Any] = {"all_states": True, "resolve_archives": False, "sort": "random"}


class Standing(Struct, frozen=True):
    """A file's replicas, RSE → state such as `AVAILABLE`, and the names of all that it is in, containers too.

    Parents of other scopes carry theirs, as `user.jdoe:their.dataset`.
    """

    states: Mapping[str, str] = {}
    parents: frozenset[str] = frozenset()

    def available_at(self, rse: str) -> bool:
        """True if Rucio would read the file there."""
        return self.states.get(rse) == "AVAILABLE"


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
        for row in rucio.rows("list_replicas", dids, **STATES, about=part[0]):
            found[called(row)] = frozenset(rse for rse, state in row["states"].items() if state == "AVAILABLE")
    return found


def add(rucio: Rucio, rse: str, files: Iterable[File]) -> None:
    """The files have replicas at the RSE; again does no harm, and one that is there in another state keeps it.

    Rucio does not compare sizes here with what it has elsewhere: look first.
    """
    for part in sliced(sorted(files, key=lambda file: file.name), rucio.main.rucio_files):
        rows = [file_row(file) for file in part]
        rucio.call("add_replicas", rse, rows, about=f"{len(rows)} files from {part[0].name} at {rse}")


def standing(rucio: Rucio, files: Iterable[str]) -> dict[str, Standing]:
    """Where each file is, in which state, and what it is in. A file without any replica stands nowhere.

    About as dear as `places`.
    """
    found = {name: Standing() for name in files}
    for part in sliced(sorted(found), rucio.main.rucio_files):
        options = {**STATES, "resolve_parents": True}
        for row in rucio.rows("list_replicas", [did(name) for name in part], **options, about=part[0]):
            parents = frozenset(parent.removeprefix(f"{SCOPE}:") for parent in row.get("parents") or ())
            found[called(row)] = Standing(row["states"], parents)
    return found


def delete(rucio: Rucio, rse: str, names: Iterable[str], *, by: float) -> tuple[float, float]:
    """The replicas (at most 1,000) at the RSE are gone, whoever has locked them: look first (41.5.1 heeds no locks).

    A file without another replica goes with it, out of all that it was attached to, and a dataset that is emptied so
    leaves its container. One request, whole or not at all: NotFound where one replica is not there. `by`: the time of
    the session's clock after which it is not sent; returns when it was, and when it was answered. Raises TooLate, and
    RucioError where the RSE is closed for deletion; an error of the connection does not tell whether it is done.
    """
    part = sorted(names)
    what = f"{len(part)} files from {part[0]} at {rse}"
    dids = [did(name) for name in part]
    return rucio.call_by(by, "delete_replicas", rse, dids, ignore_availability=False, about=what)


def make_available(rucio: Rucio, rse: str, names: Iterable[str]) -> None:
    """The replicas at the RSE are in state AVAILABLE, and locks on them good again. NotFound where one is not there.

    A rule that was STUCK by them stays so until judge-repairer has run (41.5.1).
    """
    for part in sliced(sorted(names), rucio.main.rucio_files):
        rows = [{**did(name), "state": "A"} for name in part]
        rucio.call("update_replicas_states", rse, rows, about=f"{len(part)} files from {part[0]} at {rse}")
