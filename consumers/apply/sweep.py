"""The sweep of marked blocks whose time of grace is over: announce, look, delete within seconds, end the rule.

Rucio deletes what it is told to, whoever has locked it, so the last look decides, and it must be young: whoever wants
to keep a block (a person's `undo`, a colleague's rule, another site that relies on this one) may say so at any moment.
So a few blocks at a time are announced first, in an attribute of the RSE that everybody sees; then all that matters is
read, in the order announcements, rules, replicas; and the request to delete goes out within seconds or not at all. Of
two who announce before they look at least one sees the other, and steps back.

Once one replica went there is only forward: the rule ends, and what should be here after all is added anew.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping

from common.errors import NotFound, RucioError
from common.messages.meta import now
from common.names import dataset_of
from common.rucio import announcements, dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.dids import Attachment
from common.rucio.errors import is_unanswered
from common.rucio.inventory import is_ours
from common.rucio.session import TooLate, clock, sliced
from common.sync.marks import DESTROYING
from consumers.apply import contents, rules
from consumers.apply.batch import Fate
from consumers.apply.last_copy import Sweep
from consumers.apply.last_look import Look, apart, take_look
from consumers.apply.look_back import look_back
from consumers.apply.removals import Work
from consumers.apply.task import Halted, Task, check_permission
from consumers.apply.verdicts import to_sweep

log = logging.getLogger("phedex_rucio.sweep")

TRIES = 4  # of two sweeps that met, each tries again after a random pause
PAUSE = 1.5  # seconds, at most
FEWEST = 10  # files: where Rucio is too slow for a look at so few, it is left alone
SLOW = "Rucio was too slow between the last look and the delete"
UNANSWERED = "no answer came to the delete: a later cycle sees what became of it"


class Slow(Exception):
    """Raised where every look grew too old before its delete was sent: fewer files are looked at faster."""


def sweep(task: Task, work: Work, names: list[str]) -> None:
    """Every block has its fate: swept, kept for its last copy, or left as it is for now."""
    pending, files = list(names), task.sides.rucio.main.sweep_files
    while pending:
        group = _group(task, work, pending, files)
        try:
            pending = pending[len(group) :] + _swept(task, work, group, files)
        except Slow as slow:
            files = min(files, sum(_files_of(work, name) for name in group)) // 2
            if files < FEWEST:
                raise Halted(str(slow)) from None
            pending = task.batch.open(pending)
        if pending and task.batch.fates:
            task.checkpoint()


def _group(task: Task, work: Work, names: list[str], most: int) -> list[str]:
    """The first few of the blocks: so many that one look at all of their files is quick."""
    main = task.sides.rucio.main
    group: list[str] = []
    files = 0
    for name in names[: main.sweep_blocks]:
        files += _files_of(work, name)
        if group and files > most:
            break
        group.append(name)
    return group


def _files_of(work: Work, name: str) -> int:
    """How many files of the block its rules hold here."""
    return max((rule.files for rule in work.rules(name)), default=0)


def _swept(task: Task, work: Work, names: list[str], files: int) -> list[str]:
    """The blocks have their fates but for those returned: they share files with one of them and come by themselves."""
    later: list[str] = []
    for rest in reversed(range(TRIES)):
        announced = _Announced(task, names, files)
        with announced:
            look = _look_anew(task, work, names, announced)
            later += apart(look)
            _act(task, work, look, announced)
            announced.is_done = True
        names = sorted(look.clash)
        if not names:
            break
        if rest:
            time.sleep(random.uniform(0, PAUSE))  # noqa: S311 -- the other one, whose sweep ends at no event of ours
    for name in names:
        task.batch.end(
            name, Fate.PENDING, f"{name}: somebody else has announced a sweep of it: left for the next cycle"
        )
    return later


class _Announced:
    """While it is entered everybody sees that these blocks may be deleted here.

    Taken back at the end; unless a delete was sent and its answer did not come: then it stays until Rucio shows how
    that ended, or it expires.
    """

    def __init__(self, task: Task, names: list[str], files: int) -> None:
        self.files = files  # so many at most are looked at at once
        self.key = announcements.new_key()
        self.unanswered = False
        self.noted: dict[str, set[str]] = {}  # rules, by block, that say that it is about to go, with nothing sent yet
        self.is_done = False
        self._task, self._names = task, names

    def __enter__(self) -> None:
        check_permission(self._task)
        self._announce()

    def _announce(self) -> None:
        self._at = now().timestamp()
        announcements.announce(
            self._task.sides.rucio,
            self._task.rse,
            self.key,
            self._names,
            by=self._task.who,
            cycle=self._task.command.meta.cycle,
            at=self._at,
        )

    def renew(self) -> None:
        """It is said again where it may soon be over for others, who would take it away: a process may stand still."""
        if now().timestamp() > self._at + self._task.sides.rucio.main.announcement_lifetime / 2:
            self._announce()

    def __exit__(self, _kind: object, stop: BaseException | None, _trace: object) -> None:
        if self.unanswered:
            log.warning("sweep: no answer to a delete at %s: %s stays announced", self._task.rse, self.key)
            return
        if stop is None or isinstance(stop, RucioError | Halted | Slow):  # whatever else it is: was anything sent?
            self._take_back()
        try:
            announcements.withdraw(self._task.sides.rucio, self._task.rse, self.key)
        except RucioError as error:
            if self.is_done:
                raise
            log.warning("sweep: %s at %s could not be taken back: %s", self.key, self._task.rse, error)

    def _take_back(self) -> None:
        """Where nothing was sent no sweep has begun: what is lost later by another hand is not to look like one."""
        for rule in sorted(rule for rules_ in self.noted.values() for rule in rules_):
            try:
                rules.take_back_sweeping(self._task.sides.rucio, rule)
            except RucioError as error:
                log.warning("sweep: rule %s goes on saying that a sweep is about to begin: %s", rule, error)


def _look_anew(
    task: Task,
    work: Work,
    names: list[str],
    announced: _Announced,
    only: Mapping[str, list[str]] | None = None,
    *,
    begun: bool = False,
) -> Look:
    announced.renew()
    return take_look(task, work, names, announced.key, only, begun=begun)


# --- the deed ----------------------------------------------------------------------------------------------------


def _act(task: Task, work: Work, look: Look, announced: _Announced) -> None:
    sweeps = to_sweep(task, look)
    if not sweeps:
        return
    if len(sweeps) == 1 and sum(len(one.delete) for one in sweeps.values()) > announced.files:
        sweeps = _by_parts(task, work, look, sweeps, announced)
    else:
        sweeps = _taken(task, work, look, sweeps, announced)
    mend(task, [name for name, one in sweeps.items() if one.lost or look.known.reasons[name].why in DESTROYING])
    for name in sweeps:
        _end(task, look, name)
    look_back(task, look, sweeps)


def _taken(
    task: Task,
    work: Work,
    look: Look,
    sweeps: dict[str, Sweep],
    announced: _Announced,
    *,
    only: Mapping[str, list[str]] | None = None,
    begun: bool = False,
) -> dict[str, Sweep]:
    """The replicas are gone; while the rules still stand, so that none gets a tombstone on the way.

    Where the look has become too old before its request is sent, it is repeated. Returns what was swept.
    """
    for rest in reversed(range(TRIES)):
        try:
            _delete(task, look, sweeps, announced)
            return sweeps
        except TooLate as late:
            if late.sent:
                announced.unanswered = True
                raise Halted(UNANSWERED) from None
            if not rest:
                raise Slow(SLOW) from None
        fresh = _look_anew(task, work, list(sweeps), announced, only, begun=begun)
        sweeps = to_sweep(task, fresh)
        look.__dict__.update(fresh.__dict__ | {"clash": look.clash | fresh.clash})
        if not sweeps:
            break
    return sweeps


def _by_parts(task: Task, work: Work, look: Look, sweeps: dict[str, Sweep], announced: _Announced) -> dict[str, Sweep]:
    """A block of many files goes in parts, each looked at by itself right before.

    Where a part may not go after all, the rest stays with the rule, marked: no file loses its last copy.
    """
    ((name, whole),) = sweeps.items()
    begun = False
    for part in sliced(whole.delete, announced.files):
        only = {name: part}
        fresh = _look_anew(task, work, [name], announced, only, begun=begun)
        if name not in fresh.names:
            look.clash |= fresh.clash
            return {}
        parts = to_sweep(task, fresh)
        look.clash |= fresh.clash
        if not parts:
            return {}
        fresh.files = look.files
        done = _taken(task, work, fresh, parts, announced, only=only, begun=begun)
        if name not in done:
            return {}
        begun = True
        look.rows, look.ours = fresh.rows, fresh.ours
    return sweeps


def _delete(task: Task, look: Look, sweeps: Mapping[str, Sweep], announced: _Announced) -> None:
    rucio, batch = task.sides.rucio, task.batch
    by = look.began + rucio.main.sweep_within
    if clock() > by:
        raise TooLate(sent=False)
    _note(task, look, sweeps, announced, by)
    _withdraw(task, look, sweeps)
    try:
        _send(task, look, sweeps, announced, by)
    except RucioError as error:
        announced.unanswered |= is_unanswered(error)
        raise
    for name, one in sweeps.items():
        taken = {file: look.files[name][file] for file in one.delete}
        batch.removed[name] = batch.removed.get(name, {}) | taken
        if one.foreign:
            batch.foreign[name] = set(one.foreign)
            batch.notes[name] = f"{name}: {len(one.foreign)} replicas stay: others hold them, such as {one.foreign[0]}"


def _send(task: Task, look: Look, sweeps: Mapping[str, Sweep], announced: _Announced, by: float) -> None:
    """First the files of which Rucio has no other replica leave their blocks, then all replicas go in one request."""
    rucio, batch = task.sides.rucio, task.batch
    for name, one in sweeps.items():
        if one.detach:
            check_permission(task)
            announced.noted.pop(name, None)
            dids.detach(rucio, name, one.detach, by=by)
            batch.written = True
    names = sorted({file for one in sweeps.values() for file in one.delete})
    if not names:
        return
    check_permission(task)
    sent, answered = replicas.delete(rucio, task.rse, names, by=by)
    batch.written = True
    for name in sweeps:
        announced.noted.pop(name, None)
    log.info(
        "sweep: %d blocks, %d files at %s: look to sending %.3f s, to answer %.3f s",
        *(len(sweeps), len(names), task.rse, sent - look.began, answered - look.began),
    )


def _note(task: Task, look: Look, sweeps: Mapping[str, Sweep], announced: _Announced, by: float) -> None:
    """Our rules name a few files that go with the first request: where they are gone, the sweep has begun.

    Detaching comes first. Files that left the block before tell nothing of it.
    """
    most = task.sides.rucio.main.rucio_files
    for name, one in sweeps.items():
        first = (one.detach or [file for file in one.delete if file in look.inside[name]])[:most]
        for row in look.rows[name] if first and name not in task.batch.removed else ():
            is_standing = is_ours(row, task.batch.site) and row.get("expires_at") is None
            if is_standing and rules.note_sweeping(task.sides.rucio, task.rse, row, first, by=by):
                announced.noted.setdefault(name, set()).add(row["id"])


def _withdraw(task: Task, look: Look, sweeps: Mapping[str, Sweep]) -> None:
    """No transfer outlives its rule: Rucio's cleaner cancels it only while the replica is there (41.5.1)."""
    for name in sweeps:
        ordering = [
            row["id"] for row in look.rows[name] if is_ours(row, task.batch.site) and rucio_rules.is_ordering(row)
        ]
        if ordering and not look.foreign[name]:
            check_permission(task)
            for rule in ordering:
                rucio_rules.withdraw(task.sides.rucio, rule)
            task.batch.written = True


def _end(task: Task, look: Look, name: str) -> None:
    """Our rules on the block are over, whatever a permission says by now: its replicas are gone."""
    for rule in look.ours[name]:
        if not rule.ending:
            try:
                rucio_rules.end(task.sides.rucio, rule.id, unlock=task.is_tape)
            except NotFound:
                continue
            task.batch.written = True
    task.batch.end(name, Fate.SWEPT)


def mend(task: Task, names: list[str]) -> None:
    """The blocks are in their containers: where two sites took the last copies at once, one tore them out.

    Done before their rules end, so that a run that is cut before it is repeated by the next.
    """
    rucio = task.sides.rucio
    known = contents.existing(rucio, names) if names else {}
    there = [name for name in names if name in known and dataset_of(name) in known]
    inside = {container: dids.children(rucio, container) for container in sorted({dataset_of(n) for n in there})}
    for name in there:
        if name not in inside[dataset_of(name)]:
            dids.attach(rucio, [Attachment(parent=dataset_of(name), names=(name,))])
