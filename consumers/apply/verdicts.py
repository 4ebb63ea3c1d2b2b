"""What goes of each block of a look, and what stays for whoever else needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from common.messages.meta import now
from common.names import dataset_of
from common.phedex.trust import ControlMissing
from common.rucio import announcements, dids, replicas
from common.rucio.rses import announced
from common.sync.marks import DESTROYING, hash_of, left_of, parse_meta
from consumers.apply import foreign_locks, rules
from consumers.apply.batch import Fate
from consumers.apply.beyond import CONTROLS
from consumers.apply.last_copy import Last, Sweep, decide
from consumers.apply.last_look import Look
from consumers.apply.task import Task, check_permission


def to_sweep(task: Task, look: Look) -> dict[str, Sweep]:
    """What goes of each block that was looked at; those that are kept have their fate.

    What somebody else needs is kept where it can be read nowhere else. Where the copy elsewhere may be about to go as
    well, of two who announced at least one sees it, and steps back.
    """
    destroyed = [name for name in look.names if look.known.reasons[name].why in DESTROYING]
    left = _left_behind(task, look)
    alone = {name: set(look.standing[name]) for name in destroyed} | left
    strange = dids.made_by_others(task.sides.rucio, {file for files in alone.values() for file in files})
    wished = _wished(task, look, alone) if alone else {}
    needed = [name for name in destroyed if name in wished or _is_anybodys(name, look)]
    going = _going(task, look, needed) if needed else {}
    found: dict[str, Sweep] = {}
    for name in sorted(look.names):
        verdict = _decided(
            task,
            look,
            name,
            strange,
            wished=wished.get(name, {}),
            going=going.get(name, set()),
            left=left.get(name, set()) - strange.keys(),
        )
        if isinstance(verdict, Sweep):
            found[name] = verdict
        elif going.get(name):
            look.clash.add(name)
        else:
            _keep(task, look, name, verdict)
    look.drop(look.clash)
    return found


def _is_anybodys(name: str, look: Look) -> bool:
    """True where a file of the block is in something else as well."""
    return any(one.parents - {name, dataset_of(name)} for one in look.standing[name].values())


def _left_behind(task: Task, look: Look) -> dict[str, set[str]]:
    """The files of each block that were about to leave it everywhere when that was cut: no other place will have them.

    In the block no more, nor in anything else; remembered by a rule of this sync; and PhEDEx' catalogue has none of
    them. For a block that is destroyed that is no matter.
    """
    found: dict[str, set[str]] = {}
    for name in [name for name in look.names if look.known.reasons[name].why not in DESTROYING]:
        ours = [row for row in look.rows[name] if task.sides.sites.is_ours(row)]
        noted = {digest for row in ours for digest in left_of(parse_meta(row.get("meta")))}
        out = {
            file
            for file, one in look.standing[name].items()
            if hash_of(file) in noted and file not in look.inside[name] and not one.parents
        }
        if out:
            controls = dict.fromkeys(sorted(look.inside[name])[:CONTROLS], name)
            try:
                found[name] = out - task.sides.phedex.known_files(sorted(out), controls).keys()
            except ControlMissing:
                continue  # PhEDEx' catalogue is not believed: the block is kept, for this file
    return {name: files for name, files in found.items() if files}


def _decided(
    task: Task,
    look: Look,
    name: str,
    strange: Collection[str],
    *,
    wished: Mapping[str, str],
    going: set[str],
    left: set[str],
) -> Sweep | Last:
    destroys = look.known.reasons[name].why in DESTROYING
    foreign = look.foreign[name] | {file for file in look.standing[name] if not file.startswith("/")}  # another scope
    if destroys:  # somebody else's file that was put into our block
        foreign |= look.standing[name].keys() & strange
    return decide(
        name,
        task.rse,
        look.standing[name],
        foreign,
        look.places[name],
        destroys=destroys,
        wished=wished,
        going=going,
        left=left,
    )


def _wished(task: Task, look: Look, files: Mapping[str, Set[str]]) -> dict[str, dict[str, str]]:
    """Those of the files of each block that a rule of somebody else's wants, wherever; and why each stays then."""
    here = {
        name: {
            file: look.standing[name][file]
            for file in some - look.foreign[name]  # what he holds here stays anyway
            if look.standing[name][file].available_at(task.rse)
        }
        for name, some in files.items()
    }
    rows = {name: look.rows[name] for name in here}
    found: dict[str, dict[str, str]] = {}
    for name, file, row in foreign_locks.wishes(task.sides.rucio, here, rows, task.sides.sites.is_ours):
        who = f"rule {row['id']} of {row['account']} ({row['rse_expression']})"
        found.setdefault(name, {}).setdefault(file, f"{who} wants it: that person ends it first")
    return found


def _going(task: Task, look: Look, names: list[str]) -> dict[str, set[str]]:
    """The other RSEs with files of each block where a sweep of something that these are in is announced.

    Read after our own announcement; and after that the files again: a sweep that is over by now shows in them.
    """
    rucio = task.sides.rucio
    rses = {rse for name in names for one in look.standing[name].values() for rse in one.states} - {task.rse}
    live = {rse: announced(rucio, rse, now().timestamp())[0] for rse in rses}
    standing = replicas.standing(rucio, {file for name in names for file in look.standing[name]})
    found: dict[str, set[str]] = {}
    for name in names:
        look.standing[name] = {file: standing[file] for file in look.standing[name]}
        above = {name}.union(*(one.parents for one in look.standing[name].values()))
        found[name] = {rse for rse in rses if announcements.about(live[rse], above)}
    return found


def _keep(task: Task, look: Look, name: str, last: Last) -> None:
    """The block and its rule stay; another node that has it whole is asked to have it in Rucio too.

    Said once, by the batch that finds it: it is remembered beside the mark.
    """
    check_permission(task)
    if sum(rules.note_held(task.sides.rucio, rule.id, last.why) for rule in look.ours[name] if not rule.ending):
        task.batch.found_held.add(name)
        task.batch.written = True
    if look.known.takers[name]:
        task.batch.wanted_at.setdefault(look.known.takers[name][0], set()).add(name)
    task.batch.end(name, Fate.KEPT_LAST_COPY, f"{name}: kept for {last.file}: {last.why}")
