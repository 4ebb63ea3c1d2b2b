"""In which steps does a chunk of blocks become what PhEDEx says? Look, decide, write what lacks, the rule last."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from common.messages.meta import now
from common.phedex.client import Phedex
from common.rucio import announcements
from common.rucio import rules as rucio_rules
from common.rucio.rses import announcements_at, closed
from common.rucio.session import Rucio
from common.sync.catalogue import RuleAtRse
from common.sync.diff import Update, update_reason
from consumers.apply import contents, deep, late, replicas, rules
from consumers.apply.batch import Batch, Fate
from consumers.apply.contents import Files, Seen
from consumers.apply.late import Late
from consumers.apply.rules import Found
from consumers.apply.sides import Sides


@dataclass(frozen=True)
class Chunk:
    """Some blocks of a batch, their rules, why each of these needs work, and what Rucio has of the blocks.

    `held_at`: the RSEs where rules of this sync, here or elsewhere, hold each block already; `late`: the files that are
    to join those.
    """

    sides: Sides
    batch: Batch
    found: Found
    reasons: dict[str, Update | None]
    seen: Seen
    held_at: dict[str, set[str]]
    late: dict[str, Late] = field(default_factory=dict)

    @property
    def rucio(self) -> Rucio:
        return self.sides.rucio

    @property
    def rse(self) -> str:
        return self.batch.site.rse


def bring(sides: Sides, batch: Batch, names: list[str], *, thorough: bool = False) -> None:
    """Every block has its fate in the batch, and what lacked in Rucio is there.

    Safe to repeat after an error, which is how races are settled: what was done is seen and left out the next time.
    """
    names = batch.open(names)
    found = rules.find(sides.rucio, batch.site, names, thorough=thorough)
    reasons = {name: reason(batch, found, name) for name in names if name in found.ours}
    doubtful = _heed_announcements(sides, batch, names, reasons)
    for name in [] if batch.dry else batch.open(list(reasons)):
        _take_back(sides.rucio, batch, found.ours[name], name)
    for name, why in reasons.items():
        if why is None and not batch.deep and name not in doubtful and name not in batch.fates:
            batch.end(name, Fate.IN_SYNC)
    names = batch.open(names)
    if batch.dry:
        return _plan(batch, names, reasons)
    deeper = [name for name in batch.open(names) if batch.deep or reasons.get(name) is not Update.META]
    _read_files(sides.phedex, batch, deeper)
    deeper = batch.open(deeper)
    wanted = {name: batch.files[name] for name in deeper}
    open_ = contents.existing(sides.rucio, deeper) if deeper else {}
    seen = contents.look(sides.rucio, wanted, open_, found.ours.keys() & wanted.keys())
    chunk = Chunk(sides, batch, found, reasons, seen, late.held_at(sides.sites, batch.site, found.locks))
    _drop_conflicts(chunk, deeper)
    _complete(chunk, batch.open(deeper))
    _change(chunk, [name for name in batch.open(names) if name in found.ours])
    return _add(chunk, [name for name in batch.open(names) if name in batch.whole])


def _heed_announcements(sides: Sides, batch: Batch, names: list[str], reasons: dict[str, Update | None]) -> set[str]:
    """Blocks of which a sweep is announced here wait; returns those of which one expired, to be compared file by file.

    Where a marked block has come back the announcements are read anew: its sweep may have begun since.
    """
    found = batch.site.announced
    if any(why is Update.RETURNED for why in reasons.values()):
        found = tuple(announcements_at(sides.rucio, batch.site.rse))
    at, lifetime = now().timestamp(), sides.rucio.main.announcement_lifetime
    for one in [one for one in found if one.hashes is None]:
        for name in batch.open(names):
            note = f"the attribute {one.key} of {batch.site.rse} is an announcement that nobody can read"
            batch.end(name, Fate.WITHHELD, f"{name}: {note}: look, and unset it")
    live, over = announcements.parted(found, at, lifetime)
    for name in announcements.about(live, batch.open(names)):
        batch.end(
            name, Fate.PENDING, f"{name}: a sweep of it is announced at {batch.site.rse}: left for the next cycle"
        )
    return announcements.about(over, names)


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
    figures = {name: (batch.blocks[name].files, batch.blocks[name].bytes) for name in unread}
    files, doubts = phedex.files_at(batch.node, unread, figures) if unread else ({}, {})
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
    for name in chunk.batch.open([name for name in names if name not in ruled]):
        _hold_back(chunk, name)
    whole = chunk.batch.whole
    todo = {name: chunk.batch.files[name] for name in chunk.batch.open(names) if name not in whole}
    to_join = {name: _late(chunk, name) for name in todo}
    chunk.late.update(late.find(chunk.sides, chunk.batch.site, to_join, chunk.held_at))
    _attach(chunk, {name: {k: v for k, v in files.items() if k not in to_join[name]} for name, files in todo.items()})
    for name in todo:
        if name in ruled:
            _join(chunk, name)
        else:
            _judge(chunk, name, to_join[name])
    whole.difference_update(ruled)


def _look_at_ruled(chunk: Chunk, name: str) -> None:
    """A block whose rule is there and whose files are all here needs none attached: it counts as whole.

    One whose rule ends gets nothing new: files that come under a rule while it is cleaned away have their locks
    miscounted for good (41.5.1). It waits until the rule is gone, and is then a new block.
    """
    files, inside = chunk.batch.files[name], chunk.seen.contents[name]
    _withdraw(chunk, name)
    lack = _lack(chunk, name)
    if lack and rules.is_begun(chunk.rucio, chunk.rse, chunk.found.every[name]):
        _go_forward(chunk, name)
        return
    strangers = replicas.strangers(files, inside)
    _look_deep(chunk, name, lack)
    if lack and chunk.found.ours[name].ending:
        note = f"{name}: its rule ends and {lack}: waits until Rucio has taken the rule away"
        chunk.batch.end(name, Fate.WITHHELD, note)
    elif strangers:
        _note_strangers(chunk, name)
        chunk.batch.notes[name] = f"{name}: {strangers}"
    if not lack and name in chunk.seen.attached:
        chunk.batch.whole.add(name)


def _take_back(rucio: Rucio, batch: Batch, rule: RuleAtRse, name: str) -> None:
    """PhEDEx has the block back: its mark and hold go at once, whatever else waits, for others rely on no marked rule.

    Unless a sweep of it has begun, or is about to.
    """
    if not (rule.marked or rule.held_since) or rule.ending:
        return
    if rule.begun:
        announced = announcements_at(rucio, batch.site.rse)
        if announcements.about(announced, [name]) or rules.is_begun(rucio, batch.site.rse, [rule]):
            return
    rules.change(rucio, rule, batch.blocks[name])
    batch.written = True


def _go_forward(chunk: Chunk, name: str) -> None:
    """A sweep that has begun is ended: what comes back under the old rule would have its locks miscounted (41.5.1)."""
    for rule in chunk.found.every[name]:
        if not rule.ending:
            rucio_rules.end(chunk.rucio, rule.id, unlock=closed(chunk.rucio, chunk.rse).tape)
            chunk.batch.written = True
    note = f"{name}: its sweep had begun: its rule ends, and it is added anew when Rucio has taken the rule away"
    chunk.batch.end(name, Fate.WITHHELD, note)


def _withdraw(chunk: Chunk, name: str) -> None:
    """What Rucio was about to transfer here is here: another site's file joined the block as its rule was made.

    Nothing can keep that from happening, for Rucio has no request that makes a rule only for the files that were seen.
    """
    ordering = [rule.id for rule in chunk.found.every[name] if rule.id in chunk.found.ordering]
    if files := rules.withdraw(chunk.rucio, chunk.found, chunk.rse, name, ordering):
        _revive(chunk, name, files & chunk.batch.files[name].keys())


def _hold_back(chunk: Chunk, name: str) -> None:
    """A block that cannot have its rule yet gets no replicas here either: nothing would lead to them if it left."""
    strangers = replicas.strangers(chunk.batch.files[name], chunk.seen.contents[name])
    if strangers:
        _note_strangers(chunk, name)
        chunk.batch.end(name, Fate.WITHHELD, f"{name}: not added: {strangers}")


def _note_strangers(chunk: Chunk, name: str) -> None:
    """The files of the block that PhEDEx does not list: what a deep look may take away, where a plan permits it."""
    files, inside = chunk.batch.files[name], chunk.seen.contents[name]
    chunk.batch.strangers.setdefault(name, {}).update({f: one for f, one in inside.items() if f not in files})


def _lack(chunk: Chunk, name: str, waiting: Collection[str] = ()) -> str:
    """What of PhEDEx' files is not available here; after a deep look only what could not be made so.

    Without those that wait to join the block.
    """
    inside = chunk.seen.contents[name]
    files = {file: one for file, one in chunk.batch.files[name].items() if file not in waiting}
    look = replicas.lacking_of if inside.keys() - files.keys() else replicas.lacking
    lack = look(chunk.rucio, chunk.rse, name, files.keys())
    if not (lack and chunk.batch.deep):
        return lack
    return look(chunk.rucio, chunk.rse, name, files.keys()) if _revive(chunk, name, files) else lack


def _revive(chunk: Chunk, name: str, files: Collection[str]) -> list[str]:
    revived = deep.revive(chunk.rucio, chunk.rse, files)
    if revived:
        chunk.batch.revived[name] = chunk.batch.revived.get(name, []) + revived
        chunk.batch.written = True
    return revived


def _look_deep(chunk: Chunk, name: str, lack: str) -> None:
    """Of a block whose rule is there: what is left of older rules and of removals that were cut short."""
    if not (chunk.batch.deep or chunk.found.ours[name].left):
        return
    files, inside, found = chunk.batch.files[name], chunk.seen.contents[name], chunk.found
    if orphans := deep.orphans(chunk.rucio, chunk.rse, name, inside, files, anywhere=found.ours[name].left):
        chunk.batch.orphans[name] = sorted(orphans)
        chunk.batch.strangers.setdefault(name, {}).update(orphans)
        chunk.batch.notes[name] = f"{name}: {len(orphans)} replicas of files that left it, such as {min(orphans)}"
    elif chunk.found.ours[name].left and not inside.keys() - files.keys():
        rules.note_left(chunk.rucio, chunk.found.ours[name].id, {})
        chunk.batch.written = True
    if not lack and chunk.batch.deep:
        ended = deep.end_surplus(chunk.rucio, chunk.rse, found.ours[name], found.every[name], len(files))
        chunk.batch.surplus_rules += ended
        chunk.batch.written |= bool(ended)


def _late(chunk: Chunk, name: str) -> Files:
    """The files of the block that are not in it, where rules of this sync, here or elsewhere, hold it already."""
    if name not in chunk.held_at:
        return {}
    inside = chunk.seen.contents[name]
    return {file: there for file, there in chunk.batch.files[name].items() if file not in inside}


def _attach(chunk: Chunk, files: dict[str, Files]) -> None:
    chunk.batch.written |= contents.make(chunk.rucio, files, chunk.seen)
    contents.fill(chunk.rucio, chunk.rse, files, chunk.seen)
    for name, attached in files.items():
        chunk.batch.attach(name, attached)


def _join(chunk: Chunk, name: str) -> None:
    """The files that came late are in the block where that costs no rule a transfer; the others wait.

    Once the block has its rule here, which is made for the files that are in it.
    """
    if name not in chunk.late:
        return
    files, unable = chunk.late[name].files, chunk.late[name].unable
    done = late.join(chunk.rucio, name, chunk.late[name], chunk.seen)
    chunk.batch.attach(name, done)
    waiting = sorted(files.keys() - done.keys())
    if waiting:
        until = f"PhEDEx has the block at {', '.join(unable)}" if unable else "its replicas are available"
        note = f"{name}: {len(waiting)} files, such as {waiting[0]}, wait to join it until {until}"
        chunk.batch.notes[name] = note
        if name in chunk.found.ours:
            chunk.batch.end(name, Fate.WITHHELD, note)


def _judge(chunk: Chunk, name: str, waiting: Collection[str]) -> None:
    """The block may have a rule, or is withheld: Rucio is never asked for a file that it would have to transfer.

    Files that are still to join it are no reason: they are not in the block for Rucio yet. Without a rule here no site
    that the block left could let go of it, and these files would wait for that site for ever.
    """
    if replicas.all_new(name, chunk.batch.files[name], chunk.seen):
        chunk.batch.whole.add(name)
        return
    lack = _lack(chunk, name, waiting)
    if lack:
        chunk.batch.end(name, Fate.WITHHELD, f"{name}: no rule: {lack}")
    else:
        chunk.batch.whole.add(name)


def _change(chunk: Chunk, names: list[str]) -> None:
    """The rules that say something else than PhEDEx do so no more."""
    for name in names:
        why, strange = chunk.reasons[name], name in chunk.found.strange
        if strange or why in (Update.META, Update.ENDING, Update.RETURNED) or _meta_differs(chunk, name):
            rules.change(chunk.rucio, chunk.found.ours[name], chunk.batch.blocks[name])
            chunk.batch.written = True
            chunk.batch.adopted |= {name} if strange else set()
        chunk.batch.end(name, _fate(chunk, name, chunk.found.ours[name]))


def _meta_differs(chunk: Chunk, name: str) -> bool:
    """True where the rule's group or custodial flag is not PhEDEx', whatever else it needs work for."""
    rule, block = chunk.found.ours[name], chunk.batch.blocks[name]
    return (rule.group, rule.custodial) != (block.group, block.custodial)


def _fate(chunk: Chunk, name: str, rule: RuleAtRse) -> Fate:
    if rule.ending:
        return Fate.REVIVED
    changed = chunk.reasons[name] in (Update.META, Update.RETURNED) or name in chunk.batch.attached
    changed = changed or _meta_differs(chunk, name)
    changed = changed or name in chunk.batch.revived
    return Fate.UPDATED if changed else Fate.IN_SYNC


def _add(chunk: Chunk, names: list[str]) -> None:
    blocks = {name: chunk.batch.blocks[name] for name in names}
    for part in rules.add(chunk.rucio, chunk.batch.site, blocks):
        chunk.batch.written = True
        for name in part:
            _join(chunk, name)
            chunk.batch.end(name, Fate.ADDED)
