"""In which steps does a chunk of blocks become what PhEDEx says? Look, decide, write what lacks, the rule last."""

from __future__ import annotations

from dataclasses import dataclass

from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.sync.catalogue import RuleAtRse
from common.sync.diff import Update, update_reason
from consumers.apply import contents, deep, replicas, rules
from consumers.apply.batch import Batch, Fate
from consumers.apply.contents import Files, Seen
from consumers.apply.rules import Found


@dataclass(frozen=True)
class Sides:
    """The two doors of this thread."""

    phedex: Phedex
    rucio: Rucio


@dataclass(frozen=True)
class Chunk:
    """Some blocks of a batch, their rules, why each of these needs work, and what Rucio has of the blocks."""

    rucio: Rucio
    batch: Batch
    found: Found
    reasons: dict[str, Update | None]
    seen: Seen

    @property
    def rse(self) -> str:
        return self.batch.site.rse


def bring(sides: Sides, batch: Batch, names: list[str], *, thorough: bool = False) -> None:
    """Every block has its fate in the batch, and what lacked in Rucio is there.

    Safe to repeat after an error, which is how races are settled: what was done is seen and left out the next time.
    """
    names = batch.open(names)
    open_ = contents.existing(sides.rucio, names)
    found = rules.find(sides.rucio, batch.site, [name for name in names if name in open_], thorough=thorough)
    reasons = {name: reason(batch, found, name) for name in names if name in found.ours}
    for name, why in reasons.items():
        if why is None and not batch.deep:
            batch.end(name, Fate.IN_SYNC)
    if batch.dry:
        return _plan(batch, names, reasons)
    deeper = [name for name in batch.open(names) if batch.deep or reasons.get(name) is not Update.META]
    _read_files(sides.phedex, batch, deeper)
    deeper = batch.open(deeper)
    wanted = {name: batch.files[name] for name in deeper}
    seen = contents.look(sides.rucio, wanted, open_, found.ours.keys() & wanted.keys())
    chunk = Chunk(sides.rucio, batch, found, reasons, seen)
    _drop_conflicts(chunk, deeper)
    _complete(chunk, batch.open(deeper))
    _change(chunk, [name for name in batch.open(names) if name in found.ours])
    return _add(chunk, [name for name in batch.open(names) if name in batch.whole])


def reason(batch: Batch, found: Found, name: str) -> Update | None:
    """Why a rule that exists needs work. One of older tools, without our meta, needs that; so does one that is kept."""
    rule = found.ours[name]
    why = update_reason(batch.blocks[name], rule)
    if why is None and rule.keep:
        return Update.RETURNED
    return Update.META if why is None and name in found.strange else why


def _plan(batch: Batch, names: list[str], reasons: dict[str, Update | None]) -> None:
    for name in batch.open(names):
        ruled = Fate.WOULD_UPDATE if reasons.get(name) else Fate.IN_SYNC
        batch.end(name, ruled if name in reasons else Fate.WOULD_ADD)


def _read_files(phedex: Phedex, batch: Batch, names: list[str]) -> None:
    unread = [name for name in names if name not in batch.files]
    files, doubts = phedex.files_at(batch.node, unread) if unread else ({}, {})
    batch.files |= {name: {file.name: file for file in listed} for name, listed in files.items()}
    for name, doubt in doubts.items():
        batch.end(name, Fate.DOUBTFUL, f"{name}: its files are not trusted: {doubt}")


def _drop_conflicts(chunk: Chunk, names: list[str]) -> None:
    for name in names:
        found = contents.conflict(name, chunk.batch.files[name], chunk.seen)
        if found:
            chunk.batch.end(name, Fate.CONFLICT, f"{name}: conflict, left as it is: {found}")


def _complete(chunk: Chunk, names: list[str]) -> None:
    """The files of the blocks are attached, with replicas here; `batch.whole` gets the blocks that may have a rule."""
    ruled = [name for name in names if name in chunk.found.ours]
    for name in ruled:
        _look_at_ruled(chunk, name)
    whole = chunk.batch.whole
    todo = {name: chunk.batch.files[name] for name in chunk.batch.open(names) if name not in whole}
    late = {name: _late(chunk, name) for name in todo}
    _attach(chunk, {name: {k: v for k, v in files.items() if k not in late[name]} for name, files in todo.items()})
    for name, files in late.items():
        if files:
            _attach_late(chunk, name, files)
    for name in todo:
        if name not in ruled and name not in chunk.batch.fates:
            _judge(chunk, name)
    whole.difference_update(ruled)


def _look_at_ruled(chunk: Chunk, name: str) -> None:
    """A block whose rule is there and whose files are all here needs none attached: it counts as whole.

    One whose rule ends gets nothing new: files that come under a rule while it is cleaned away have their locks
    miscounted for good (41.5.1). It waits until the rule is gone, and is then a new block.
    """
    files, inside = chunk.batch.files[name], chunk.seen.contents[name]
    lack = _lack(chunk, name)
    strangers = replicas.strangers(files, inside)
    _look_deep(chunk, name, lack)
    if lack and chunk.found.ours[name].ending:
        note = f"{name}: its rule ends and {lack}: waits until Rucio has taken the rule away"
        chunk.batch.end(name, Fate.WITHHELD, note)
    elif strangers:
        chunk.batch.strangers[name] = {file: one for file, one in inside.items() if file not in files}
        chunk.batch.notes[name] = f"{name}: {strangers}"
    if not lack and name in chunk.seen.attached:
        chunk.batch.whole.add(name)


def _lack(chunk: Chunk, name: str) -> str:
    """What of PhEDEx' files is not available here; after a deep look only what could not be made so."""
    files, inside = chunk.batch.files[name], chunk.seen.contents[name]
    look = replicas.lacking_of if inside.keys() - files.keys() else replicas.lacking
    lack = look(chunk.rucio, chunk.rse, name, files.keys())
    if not (lack and chunk.batch.deep):
        return lack
    revived = deep.revive(chunk.rucio, chunk.rse, files)
    if revived:
        chunk.batch.revived[name] = chunk.batch.revived.get(name, []) + revived
        chunk.batch.written = True
    return look(chunk.rucio, chunk.rse, name, files.keys()) if revived else lack


def _look_deep(chunk: Chunk, name: str, lack: str) -> None:
    """Of a block whose rule is there: what is left of older rules and of removals that were cut short."""
    if not chunk.batch.deep:
        return
    files, inside, found = chunk.batch.files[name], chunk.seen.contents[name], chunk.found
    if orphans := deep.orphans(chunk.rucio, chunk.rse, name, inside, files):
        chunk.batch.orphans[name] = orphans
        chunk.batch.notes[name] = f"{name}: {len(orphans)} replicas in no block, such as {orphans[0]}: left as they are"
    if not lack:
        ended = deep.end_surplus(chunk.rucio, found.ours[name], found.every[name], len(files))
        chunk.batch.surplus_rules += ended
        chunk.batch.written |= bool(ended)


def _late(chunk: Chunk, name: str) -> Files:
    """The files that are to join a block which rules of this sync, here or elsewhere, hold already."""
    if name not in chunk.found.held_at:
        return {}
    inside = chunk.seen.contents[name]
    return {file: there for file, there in chunk.batch.files[name].items() if file not in inside}


def _attach(chunk: Chunk, files: dict[str, Files]) -> None:
    chunk.batch.written |= contents.make(chunk.rucio, files, chunk.seen)
    contents.fill(chunk.rucio, chunk.rse, files, chunk.seen)
    for name, attached in files.items():
        chunk.batch.attach(name, attached)


def _attach_late(chunk: Chunk, name: str, files: Files) -> None:
    needs = sorted(chunk.found.held_at[name] | {chunk.rse})
    done = replicas.attach_late(chunk.rucio, chunk.rse, name, files, needs)
    chunk.batch.attach(name, done)
    waiting = sorted(files.keys() - done.keys())
    if waiting:
        note = f"{name}: {len(waiting)} files, such as {waiting[0]}, wait until all of {', '.join(needs)} have them"
        chunk.batch.end(name, Fate.WITHHELD, note)


def _judge(chunk: Chunk, name: str) -> None:
    """The block may have a rule, or is withheld: Rucio is never asked for a file that it would have to transfer."""
    files, inside = chunk.batch.files[name], chunk.seen.contents[name]
    if replicas.all_new(name, files, chunk.seen):
        chunk.batch.whole.add(name)
        return
    lack = replicas.strangers(files, inside) or _lack(chunk, name)
    if lack:
        chunk.batch.end(name, Fate.WITHHELD, f"{name}: no rule: {lack}")
    else:
        chunk.batch.whole.add(name)


def _change(chunk: Chunk, names: list[str]) -> None:
    """The rules that say something else than PhEDEx do so no more."""
    for name in names:
        why, strange = chunk.reasons[name], name in chunk.found.strange
        if strange or why in (Update.META, Update.ENDING, Update.RETURNED):
            rules.change(chunk.rucio, chunk.found.ours[name], chunk.batch.blocks[name])
            chunk.batch.written = True
            chunk.batch.adopted |= {name} if strange else set()
        chunk.batch.end(name, _fate(chunk, name, chunk.found.ours[name]))


def _fate(chunk: Chunk, name: str, rule: RuleAtRse) -> Fate:
    if rule.ending:
        return Fate.REVIVED
    changed = chunk.reasons[name] in (Update.META, Update.RETURNED) or name in chunk.batch.attached
    changed = changed or name in chunk.batch.revived
    return Fate.UPDATED if changed else Fate.IN_SYNC


def _add(chunk: Chunk, names: list[str]) -> None:
    blocks = {name: chunk.batch.blocks[name] for name in names}
    for part in rules.add(chunk.rucio, chunk.batch.site, blocks):
        chunk.batch.written = True
        for name in part:
            chunk.batch.end(name, Fate.ADDED)
