"""Which files do others hold at an RSE? Rucio deletes a locked replica without a word, so we look first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from common.names import SCOPE
from common.rucio import rules
from common.rucio.replicas import Standing
from common.rucio.rules import Lock
from common.rucio.session import Row, Rucio

Standings = Mapping[str, Mapping[str, Standing]]


def claimed(
    rucio: Rucio, rse: str, files: Standings, locks: Iterable[Lock], rows: Iterable[Row], *, ours: Collection[str]
) -> set[str]:
    """The files of some blocks that a rule other than `ours` holds at the RSE.

    By the locks of the blocks, whatever rule they come from; by the rules on anything that a file is in, where these
    lock files one by one; by rules on a file itself. `rows`: the rules on the blocks, read already. One request for
    each container and other parent, one for all rules on files, one for each rule that shows no lock on a block.
    """
    locks = list(locks)
    found: set[str] = set()
    for lock in locks:
        if lock.rse == rse and lock.rule not in ours:
            found |= files.get(lock.name, {}).keys()
    seen = {lock.rule for lock in locks} | set(ours)
    single = {row["id"] for row in [*rows, *_above(rucio, files)]} - seen
    return found.union(_on_files(rucio, rse, files), *(rules.locked_by(rucio, rule, rse) for rule in sorted(single)))


def _above(rucio: Rucio, files: Standings) -> Iterator[Row]:
    """The rules on all that the files are in, but for the blocks themselves."""
    parents = {parent for inside in files.values() for standing in inside.values() for parent in standing.parents}
    for parent in sorted(parents - files.keys()):
        scope, _, name = parent.rpartition(":") if ":" in parent else (SCOPE, "", parent)
        yield from rules.of_dataset(rucio, name, scope=scope)


def _on_files(rucio: Rucio, rse: str, files: Standings) -> set[str]:
    names = {name for inside in files.values() for name in inside}
    found = [row["id"] for row in rules.on_files(rucio) if row["name"] in names]
    return set().union(*(rules.locked_by(rucio, rule, rse) for rule in sorted(found)))
