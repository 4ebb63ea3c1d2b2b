"""The removals of a batch, from the first look to the sweep: every block is marked, swept, kept, or left for now."""

from __future__ import annotations

from common.sync.marks import permits
from consumers.apply.batch import Fate
from consumers.apply.removals import Work, approve, is_due, look, mark, may_sweep, record, soften, to_mark
from consumers.apply.sweep import sweep
from consumers.apply.task import Halted, Task, check_open, check_switch


def remove(task: Task, names: list[str]) -> None:
    """Every block has its fate in the batch: marked, pending, swept, kept, or not ours to remove.

    Safe to repeat after an error. Writes only while the permission lasts and the site's switch, read again here, is on.
    """
    names = task.batch.open(names)
    try:
        if task.command.held_since is not None:
            record(task, names)
        else:
            _remove(task, names)
    except Halted as reason:
        for name in task.batch.open(names):
            task.batch.end(name, Fate.PENDING, f"{name}: left as it is: {reason}")


def _remove(task: Task, names: list[str]) -> None:
    work = look(task, names)
    names = task.batch.open(names)
    due = [name for name in names if is_due(task, work.rules(name), work.why(name).why)]
    if not names or _is_dry(task, names, due):
        return
    check_switch(task)
    check_open(task, task.rse)
    soften(task, work, names)
    approve(task, work, names)
    fresh = [name for name in names if name not in due and _wants_mark(work, name)]
    for name in set(names).difference(due, fresh):
        task.batch.end(name, Fate.PENDING)
    at_once = mark(task, work, to_mark(task, work, fresh))
    if due:
        sweep(task, work, may_sweep(task, work, due))
    if at_once:
        _remove(task, at_once)


def _wants_mark(work: Work, name: str) -> bool:
    """True where a rule has no mark, or one for a milder reason than today's."""
    why = work.why(name).why
    return any(not (rule.marked and permits(rule.why, why)) for rule in work.rules(name))


def _is_dry(task: Task, names: list[str], due: list[str]) -> bool:
    if task.batch.dry:
        for name in names:
            task.batch.end(name, Fate.WOULD_SWEEP if name in due else Fate.WOULD_MARK)
    return task.batch.dry
