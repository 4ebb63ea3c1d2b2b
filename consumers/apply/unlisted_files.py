"""Files that left their block in PhEDEx ("invalidated") leave Rucio in one operation of the block, at all its RSEs.

Done at one site first, it would leave locks without replicas at the others until the last of them has done it too. So
the first reading is remembered in a rule of the block; after a second one, the time of grace later, the file is
detached and its replicas are deleted wherever they are, in one go. Only where each of these places is ours and may be
written, and where nobody else holds the file: otherwise it stays, and a person is told why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager

from common.errors import RucioError
from common.messages.meta import now
from common.names import dataset_of, is_lfn
from common.phedex.trust import ControlMissing
from common.rucio import announcements, dids, replicas
from common.rucio import rules as rucio_rules
from common.rucio.errors import is_about_all, is_unanswered
from common.rucio.inventory import rule_of, rules_at
from common.rucio.replicas import Standing
from common.rucio.rses import Site, Switch, attributes_of, switch_of
from common.rucio.session import Row, TooLate, clock
from common.settings import model as policies
from common.settings.run import is_on
from common.sync.catalogue import File
from common.sync.evidence import most_files
from common.sync.marks import LEFT_FILES, hash_of, left_of, parse_meta, still_left
from common.sync.words import count, size
from consumers.apply import rules
from consumers.apply.batch import Batch, Fate
from consumers.apply.beyond import CONTROLS, stands
from consumers.apply.contents import Files
from consumers.apply.look_back import hit
from consumers.apply.task import Halted, Task, check_open, is_permitted


def leave(task: Task) -> list[str]:
    """Every block whose files PhEDEx does not list all: these are remembered, or have left; returns the latter blocks.

    Only where a plan permits it. Each block by itself: what stops one is told with it.
    """
    freed = []
    for name in [name for name in sorted(task.batch.strangers) if name not in task.batch.failed]:
        try:
            _check(task, name)
            if _left(task, name):
                freed.append(name)
        except RucioError as error:
            if is_about_all(error):
                raise
            task.batch.failed[name] = error
        except Halted as reason:
            some = task.batch.strangers[name]
            note = f"{name}: {count(len(some), 'file')} that PhEDEx does not list, such as {min(some)}: {reason}"
            task.batch.end(name, Fate.WITHHELD, note)
    return freed


def _check(task: Task, name: str) -> None:
    if not is_permitted(task.command.files_until):
        raise Halted("the plan's permission to take them away has run out")
    gone = sum(len(some) for some in task.batch.strangers.values())
    every = gone + sum(one.files for one in task.batch.blocks.values())
    if gone > most_files(task.policy.max_removal_share, every):
        raise Halted(f"{gone} of {every} files of this batch, more than max_removal_share allows")
    if foreign := sorted(file for file in task.batch.strangers[name] if not file.startswith("/")):
        raise Halted(f"{foreign[0]} is of another scope: whoever put it there takes it out (rucio did content remove)")
    total = sum(file.bytes for file in task.batch.strangers[name].values())
    if total > task.policy.max_removal_bytes:
        raise Halted(f"{size(total)}, more than max_removal_bytes allows")


def _left(task: Task, name: str) -> bool:
    """True where the files have left; else they are remembered, for the reading after the time of grace."""
    batch, files = task.batch, task.batch.strangers[name]
    rows = list(rucio_rules.of_dataset(task.sides.rucio, name))
    before = replicas.standing(task.sides.rucio, files)
    rses = sorted({rse for one in before.values() for rse in one.states} | {_rse(row) for row in rows})
    sites = {rse: _site(task, name, rse) for rse in rses}
    _check_ours(task, rows, sites)
    here = any(_rse(row) == task.rse and task.sides.sites.is_ours(row) for row in rows)
    if here and task.policy.hold_custodial and batch.blocks[name].custodial:  # where it is to come it is no copy yet
        raise Halted("the block is custodial (hold_custodial)")
    register = _register(task, rows)
    if register is None:
        raise Halted("no rule of this sync holds the block")
    seen, due = _remembered(task, register, files, [node for node, _ in sites.values()])
    if not due:
        batch.notes[name] = (
            f"{name}: {count(len(files), 'file')} that PhEDEx does not list, such as {min(files)}: leave "
        )
        batch.notes[name] += "when it says so again after the time of grace"
        return False
    asking = {_rse(row) for row in rows if _rse(row) in sites and not rule_of(row, sites[_rse(row)][1]).approved}
    _check_others(task, name, sites, {rse: [due[f] for f in due if rse in before[f].states] for rse in rses}, asking)
    _sweep(task, name, sites, due)
    rules.note_left(task.sides.rucio, register["id"], {d: t for d, t in seen.items() if d not in map(hash_of, due)})
    return _told(batch, name, due)


def _remembered(task: Task, register: Row, files: Files, nodes: list[str]) -> tuple[dict[str, int], Files]:
    """What the rule remembers from now on, and the files that it has for the time of grace of each of the nodes."""
    noted, at = left_of(parse_meta(register.get("meta"))), int(now().timestamp())
    seen = still_left(noted, files, at)
    if len(seen) > LEFT_FILES:
        raise Halted(f"more than the {LEFT_FILES} that can be remembered: take them out by hand")
    if seen != noted:
        rules.note_left(task.sides.rucio, register["id"], seen)
        task.batch.written = True
    grace = max([task.policy.removal_grace, *(_policy(task, node).removal_grace for node in nodes)])
    return seen, {file: one for file, one in files.items() if noted.get(hash_of(file), at + 1) <= at - grace}


def _told(batch: Batch, name: str, due: Files) -> bool:
    """The batch knows that these files have left their block; True where no other is to leave it."""
    batch.removed[name] = batch.removed.get(name, {}) | due
    for file in due:
        del batch.strangers[name][file]
    if batch.strangers[name]:
        return False
    del batch.strangers[name]
    batch.notes.pop(name, None)
    if batch.fates[name] is not Fate.WITHHELD:
        batch.fates[name] = Fate.UPDATED
    return True


def _policy(task: Task, node: str) -> policies.Site:
    return task.sides.sites.settings.site(node)


def _check_others(
    task: Task, name: str, sites: Mapping[str, tuple[str, Site]], going: Mapping[str, list[File]], asking: Set[str]
) -> None:
    """No other site loses what its own settings would not let go; this one's plan has looked at all of it.

    `asking`: the RSEs with a rule on the block whose removal no person approved.
    """
    for rse, files in going.items():
        node, site = sites[rse]
        policy = _policy(task, node)
        if rse == task.rse or not files:
            continue
        asks = policy.hold_custodial and rse in asking
        there = task.sides.phedex.blocks_at(site.listed_at, [name]).get(name) if asks else None
        if there is not None and there.custodial:
            raise Halted(f"the block is custodial at {rse} (hold_custodial)")
        if rse not in task.files_at:
            task.files_at[rse] = sum(rule.files for rule in rules_at(task.sides.rucio, site).values())
        gone = task.left_at.get(rse, 0) + len(files)
        if gone > most_files(policy.max_removal_share, task.files_at[rse]):
            raise Halted(f"{gone} of {task.files_at[rse]} files at {rse}, more than its max_removal_share allows")
        if (total := sum(one.bytes for one in files)) > policy.max_removal_bytes:
            raise Halted(f"{size(total)} at {rse}, more than its max_removal_bytes allows")
        task.left_at[rse] = gone


def _register(task: Task, rows: Iterable[Row]) -> Row | None:
    """The rule that remembers for the block: of the standing ones of this sync the first by RSE, whoever looks.

    A marked one only where no other is: its site looks at the block no more.
    """
    ours = [row for row in rows if task.sides.sites.is_ours(row) and row.get("expires_at") is None]
    site = task.batch.site
    return min(ours, key=lambda row: (rule_of(row, site).marked, _rse(row), row["id"]), default=None)


def _sweep(task: Task, name: str, sites: Mapping[str, tuple[str, Site]], due: Files) -> None:
    """The files are in the block no more, and nowhere else; where something stands against it nothing is done."""
    rucio, batch, rses = task.sides.rucio, task.batch, sorted(sites)
    _check_makers(task, due)
    with _announced(task, name, rses) as keys:
        began = clock()
        _check_phedex(task, name, due)
        for rse, site in sites.items():
            _check_place(task, name, rse, site, keys[rse])
        rows = _check_rules(task, name, due, sites)
        inside = dids.contents(rucio, [name])[name]
        standing = replicas.standing(rucio, due)
        _check_marks(task, rows, standing, len(inside))
        _check_files(name, standing, rses)
        if there := sorted(file for file in due if file in inside):
            dids.detach(rucio, name, there, by=began + rucio.main.sweep_within)
        batch.written = True
        try:
            for rse in rses:  # what is not sent in time the next cycle looks at anew
                if some := [file for file, one in standing.items() if rse in one.states]:
                    replicas.delete(rucio, rse, some, by=began + rucio.main.sweep_within)
        finally:  # also where a later site's was refused
            _look_back(task, name, due, rses)


def _check_phedex(task: Task, name: str, due: Files) -> None:
    """PhEDEx once more, and by two calls: the block's list, and its catalogue, which has each file wherever it is."""
    phedex, batch = task.sides.phedex, task.batch
    block = batch.blocks[name]
    if odd := sorted(file for file in due if not is_lfn(file)):
        raise Halted(
            f"{odd[0]} is no file name of PhEDEx: whoever put it there takes it out (rucio did content remove)"
        )
    lists, doubts = phedex.files_at(batch.node, [name], {name: (block.files, block.bytes)})
    if name in doubts:
        raise Halted(f"its list of files, read again, is not believed: {doubts[name]}")
    listed = sorted(file.name for file in lists[name])
    if back := sorted(due.keys() & set(listed)):
        raise Halted(f"PhEDEx lists {back[0]} again")
    try:
        known = phedex.known_files(sorted(due), dict.fromkeys(listed[:CONTROLS], name))
    except ControlMissing as error:
        raise Halted(f"PhEDEx' catalogue is not believed: {error}") from None
    for file, where in sorted(known.items()):
        raise Halted(f"PhEDEx' catalogue has {file} in {where}, though it is not listed in {name} at {batch.node}")


def _rse(row: Row) -> str:
    return str(row["rse_expression"]).removeprefix("rse=")


def _site(task: Task, name: str, rse: str) -> tuple[str, Site]:
    """The node and site of an RSE where the sync may write, and take files of the block away."""
    site = task.sides.sites.at(rse)
    node = task.sides.sites.node_at(rse)
    if site is None or not node:
        raise Halted(f"it is at {rse} too, which is no site of this sync: whoever put it there must take it away")
    policy = _policy(task, node)
    if policy.dry or policy.adds_only or not is_on(policy.run, now()):
        raise Halted(f"it is at {rse} too, where the settings let nothing be removed")
    if not task.sides.sites.would_take(node, name):
        raise Halted(f"it is at {rse} too, whose settings leave this block out")
    _check_closed(task, rse, node)
    return node, site


def _check_closed(task: Task, rse: str, node: str) -> None:
    if (check_open(task, rse).tape or task.is_tape_node(node)) and _policy(task, node).hold_custodial:
        raise Halted(f"it is on tape at {rse}: only a person takes it away there (hold_custodial)")


def _check_ours(task: Task, rows: Iterable[Row], sites: Mapping[str, tuple[str, Site]]) -> None:
    """None of our rules on the block says that a person decides: custodial, held, kept, or locked.

    Where a person approved that a custodial block leaves a site, that goes for each file of it.
    """
    for row in rows:
        rse = _rse(row)
        if rse not in sites:
            continue
        rule = rule_of(row, sites[rse][1])
        if rule.locked and not task.known[rse].tape:  # one that ends, too: a sweep takes the lock away
            raise Halted(f"a person locked its rule {rule.id} at {rse}")
        if rule.ending:
            continue
        if rule.keep or rule.held_since:
            raise Halted(f"the block is {'kept' if rule.keep else 'held'} at {rse}, by or for a person")
        if rule.custodial and not rule.approved and _policy(task, sites[rse][0]).hold_custodial:
            raise Halted(f"the block is custodial at {rse} (hold_custodial)")


def _check_place(task: Task, name: str, rse: str, site: tuple[str, Site], key: str) -> None:
    attributes = attributes_of(task.sides.rucio, rse) or {}
    switch = switch_of(attributes)
    if switch is not Switch.ON:
        raise Halted(f"it is at {rse} too, whose switch says {switch}: phedex-rucio site resume {site[0]}")
    found, lifetime = announcements.of(attributes), task.sides.rucio.main.announcement_lifetime
    live, over = announcements.parted(found, now().timestamp(), lifetime)
    if announcements.about(live, [name], besides=key):
        raise Halted(f"a sweep of the block is announced at {rse}: left for the next cycle")
    for one in over:
        if one.is_about(name):
            announcements.withdraw(task.sides.rucio, rse, one.key)  # the replicas are looked at next


def _check_makers(task: Task, due: Files) -> None:
    """A file that somebody else made in Rucio did not come from PhEDEx."""
    for file, maker in sorted(dids.made_by_others(task.sides.rucio, due).items()):
        raise Halted(f"{maker or 'somebody'} made {file}, not this sync: he takes it out (rucio did content remove)")


def _check_rules(task: Task, name: str, due: Files, places: Mapping[str, tuple[str, Site]]) -> list[Row]:
    """All that holds the block or one of the files is ours. Returns the block's rules."""
    rows, others = _rules(task, name, due)
    for row in others:
        raise Halted(
            f"rule {row['id']} of {row['account']} ({row['rse_expression']}) holds it: {row['account']} ends it"
        )
    _check_ours(task, rows, places)
    return rows


def _rules(task: Task, name: str, due: Files) -> tuple[list[Row], list[Row]]:
    """The rules on the block that are ours; and all others that may hold one of the files."""
    rucio, is_ours = task.sides.rucio, task.sides.sites.is_ours
    rows = list(rucio_rules.of_dataset(rucio, name))
    above = list(rucio_rules.of_dataset(rucio, dataset_of(name)))
    single = [row for row in rucio_rules.on_files(rucio) if row["name"] in due]
    return [row for row in rows if is_ours(row)], [row for row in [*rows, *above, *single] if not is_ours(row)]


def _look_back(task: Task, name: str, due: Files, rses: Iterable[str]) -> None:
    """Once more after the delete: whose rule came between the look and that?"""
    for row in _rules(task, name, due)[1]:
        if any(rucio_rules.locked_by(task.sides.rucio, row["id"], rse) & due.keys() for rse in rses):
            hit(task, name, row["id"], row["account"])


def _check_marks(task: Task, rows: list[Row], standing: dict[str, Standing], inside: int) -> None:
    """A block that is about to leave one of its sites is left to that first; unless one of the files keeps it there.

    `inside`: how many files are in the block. It leaves for a place that has all of them, which it does not have where
    a file is to go that never came there: the two would wait for each other for ever.
    """
    live = [row for row in rows if row.get("expires_at") is None]
    marked = {_rse(row) for row in live if rule_of(row, task.batch.site).marked}
    places = {rse for rse in map(_rse, live) if stands(task.sides.sites, live, rse, inside)}
    held = [one for one in standing.values() if one.states]
    if marked and held and all(any(one.available_at(rse) for rse in places) for one in held):
        raise Halted(f"the block is marked for removal at {min(marked)}: left until that is done")


def _check_files(name: str, standing: dict[str, Standing], rses: list[str]) -> None:
    for file, one in sorted(standing.items()):
        others = sorted(one.parents - {name, dataset_of(name)})
        if others:
            raise Halted(f"{file} is in {others[0]} too")
        if strange := sorted(one.states.keys() - set(rses)):
            raise Halted(f"{file} has come to {strange[0]} meanwhile")


@contextmanager
def _announced(task: Task, name: str, rses: list[str]) -> Iterator[dict[str, str]]:
    """Everybody sees at each of the RSEs that something of the block is about to go. The keys of the announcements."""
    keys = {rse: announcements.new_key() for rse in rses}
    rucio, at = task.sides.rucio, now().timestamp()
    with ExitStack() as stack:
        for rse, key in keys.items():
            announcements.announce(rucio, rse, key, [name], by=task.who, cycle=task.command.meta.cycle, at=at)
            stack.callback(announcements.withdraw, rucio, rse, key)
        try:
            yield keys
        except TooLate as late:
            if late.sent:
                stack.pop_all()
                raise Halted("no answer came from Rucio: a later cycle sees what became of it") from None
            raise Halted("it took too long to look again: the next cycle goes on") from None
        except RucioError as error:
            if is_unanswered(error):
                stack.pop_all()
            raise
