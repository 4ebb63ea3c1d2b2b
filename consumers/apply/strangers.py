"""Which files should a whole block not have? Those that PhEDEx lists no more leave, where a deep look may take them."""

from __future__ import annotations

from common.rucio import replicas
from common.rucio import rules as rucio_rules
from common.rucio.inventory import is_ours
from consumers.apply import claims, removals, rules
from consumers.apply.batch import Fate
from consumers.apply.last_copy import Elsewhere, Last, Sweep


def drop(task: removals.Task) -> list[str]:
    """The files of complete blocks that PhEDEx lists no more have left: their replicas here, the last one's record too.

    Only for a deep look that a plan permits. A replica goes while another site has one; whoever has the last detaches
    the file before. So no site's rule loses its hold on what is still there, and no replica gets a tombstone.
    Returns the blocks that have none of them any more, as far as this site goes.
    """
    names = [name for name in sorted(task.batch.strangers) if name not in task.batch.failed]
    try:
        _check_share(task, names)
        removals.check_switch(task)
        return _drop(task, names)
    except removals.Halted as reason:
        task.batch.notes |= {name: f"{name}: files that PhEDEx does not list stay: {reason}" for name in names}
        return []


def _check_share(task: removals.Task, names: list[str]) -> None:
    """A batch loses no larger share of its files than a site may of its rules; custodial ones are a person's matter."""
    blocks, policy = task.batch.blocks, task.policy
    custodial = [name for name in names if blocks[name].custodial]
    if custodial and policy.hold_custodial:
        raise removals.Halted(f"{custodial[0]} is custodial (hold_custodial)")
    strange = sum(len(task.batch.strangers[name]) for name in names)
    all_files = strange + sum(block.files for block in blocks.values())
    if strange > policy.max_removal_share * all_files:
        raise removals.Halted(f"{strange} of {all_files} files of this batch, more than max_removal_share allows")


def _drop(task: removals.Task, names: list[str]) -> list[str]:
    rucio, batch = task.sides.rucio, task.batch
    files = {name: batch.strangers[name] for name in names}
    standing = replicas.standing(rucio, {file for listed in files.values() for file in listed})
    standings = {name: {file: standing[file] for file in listed} for name, listed in files.items()}
    look = removals.Look(files, standings, {})
    found = rules.find(rucio, batch.site, names)
    rows = [row for name in names for row in rucio_rules.of_dataset(rucio, name)]
    ours = {row["id"] for row in rows if is_ours(row, batch.site)}
    held = claims.claimed(rucio, task.rse, look.standing, found.locks, rows, ours=ours)
    listed = {name: Elsewhere(listed=frozenset(batch.files[name])) for name in names}
    verdicts = {name: removals.judged(task, look, listed[name], held, name) for name in names}
    sweeps = {name: verdict for name, verdict in verdicts.items() if isinstance(verdict, Sweep)}
    removals.take(task, look, sweeps)
    removals.mend(task, [name for name, sweep in sweeps.items() if sweep.lost])
    for name, verdict in verdicts.items():
        if isinstance(verdict, Last):
            batch.notes[name] = f"{name}: kept for {verdict.file}: {verdict.why}"
        elif not verdict.foreign:
            del batch.strangers[name]
            batch.notes.pop(name, None)
            ruled = batch.fates[name] is not Fate.WITHHELD
            batch.fates[name] = Fate.UPDATED if verdict.delete and ruled else batch.fates[name]
    return [name for name in names if name not in batch.strangers]
