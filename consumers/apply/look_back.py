"""Who made a rule while replicas went, between the look and the delete? Too late to be seen, and told loudly."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from common.messages.meta import now
from common.rucio import rules as rucio_rules
from common.rucio.session import Row
from consumers.apply import foreign_locks
from consumers.apply.last_copy import Sweep
from consumers.apply.last_look import Look
from consumers.apply.task import CLOCKS, Task

log = logging.getLogger("phedex_rucio.sweep")


def look_back(task: Task, look: Look, sweeps: Mapping[str, Sweep]) -> None:
    """After its delete a sweep looks once more, and says loudly whose rule came between the look and the delete."""
    rucio, site = task.sides.rucio, task.batch.site
    seen = {row["id"] for name in sweeps for row in look.rows[name]}
    whole = {name for name, one in sweeps.items() if one.delete and not one.foreign}
    for lock in rucio_rules.locks(rucio, sorted(whole)):
        if lock.rse == task.rse and lock.rule not in seen:
            hit(task, lock.name, lock.rule, lock.account)
    taken = {name: {file: look.standing[name][file] for file in one.delete} for name, one in sweeps.items()}
    rows: dict[str, list[Row]] = {name: [] for name, files in taken.items() if files}
    for row in rucio_rules.new_by_file(rucio, now() - CLOCKS):
        if row["name"] in rows and row["id"] not in seen:
            rows[row["name"]].append(row)
    for name, row, files in foreign_locks.holders(rucio, site, taken, rows):
        if row["id"] not in seen and foreign_locks.locked(rucio, task.rse, row, files):
            hit(task, name, row["id"], row["account"])


def hit(task: Task, name: str, rule: str, account: str) -> None:
    """Said loudly, in the log and in the outcome: somebody's rule came too late to be seen."""
    says = f"{name}: rule {rule} of {account} was made while its replicas went: they are gone"
    log.error("sweep: %s", says)
    task.batch.notes[name] = says
    task.batch.hit.add(name)
