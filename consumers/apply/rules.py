"""How do our rules become what PhEDEx says? Found by the locks of a few blocks, made, changed, marked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from common.errors import RucioConflict
from common.messages.meta import now
from common.rucio import begun, rules
from common.rucio.inventory import is_ours, preferred, rule_of, told_by
from common.rucio.rses import Site
from common.rucio.session import Row, Rucio, TooLate, clock, sliced
from common.sync import marks
from common.sync.catalogue import BlockAtNode, RuleAtRse, rule_meta
from common.sync.marks import (
    COMMENT,
    GONE_APPROVED,
    GONE_HELD,
    GONE_SINCE,
    GONE_WHY,
    GROUP,
    HOLD,
    LEFT,
    SWEEPING,
    Removal,
    hash_of,
    keep_of,
    left_of,
    moment,
    named_of,
    parse_meta,
    permits,
    reason_of,
    softened,
    unmarked,
    with_hold,
    with_left,
    with_mark,
    with_sweeping,
)
from consumers.apply.foreign_locks import locked, may_be_at


class Found(Struct, frozen=True):
    """Our rules on some blocks by name, the names whose rule has none of our meta yet, and who else holds a block.

    `every`: all our rules on a block at the RSE, where older tools left more than one. `locks`: all that holds the
    blocks, anybody's and anywhere. `ordering`: our rules that have transfers queued, by id. `ends`: when those
    of our rules will be over, by id, that somebody gave an end.
    """

    ours: dict[str, RuleAtRse]
    strange: set[str]
    every: dict[str, list[RuleAtRse]]
    locks: list[rules.Lock]
    ordering: frozenset[str] = frozenset()
    ends: Mapping[str, datetime] = {}


def find(rucio: Rucio, site: Site, names: list[str], *, thorough: bool = False) -> Found:
    """Our rules on the blocks: one request for all their locks, and one a rule that exists.

    `thorough`: also those that have no locks (waiting for approval or injection), one request a block more.
    """
    locks = rules.locks(rucio, names)
    wanted = sorted({lock.rule for lock in locks if lock.rse == site.rse and lock.account in site.accounts})
    rows = [row for row in (rules.find(rucio, rule) for rule in wanted) if row is not None]
    if thorough:
        rows += [row for name in names for row in rules.of_dataset(rucio, name)]
    rows = list({row["id"]: row for row in rows if is_ours(row, site)}.values())
    rows.sort(key=lambda row: row["account"] != site.account)
    ours, strange = _ours(rows, site)
    every: dict[str, list[RuleAtRse]] = defaultdict(list)
    for row in rows:
        every[row["name"]].append(rule_of(row, site))
    ordering = frozenset(row["id"] for row in rows if rules.is_ordering(row))
    return Found(ours, strange, dict(every), locks, ordering, ends_of(rows, site))


def ends_of(rows: Iterable[Row], site: Site) -> dict[str, datetime]:
    """When those of our rules will be over, by id, that somebody gave an end to come."""
    ours = (row for row in rows if is_ours(row, site))
    return {row["id"]: end for row in ours if (end := rules.lasts_until(row, now())) is not None}


def _ours(rows: Iterable[Row], site: Site) -> tuple[dict[str, RuleAtRse], set[str]]:
    ours: dict[str, RuleAtRse] = {}
    metas = {row["id"]: parse_meta(row.get("meta")) for row in rows}
    for row in rows:
        ours[row["name"]] = preferred(ours.get(row["name"]), rule_of(row, site))
    return ours, {name for name, rule in ours.items() if GROUP not in metas[rule.id]}


def add(rucio: Rucio, site: Site, blocks: Mapping[str, BlockAtNode]) -> Iterable[list[str]]:
    """Each block has a rule of the site's account at its RSE; yields the names as they get it.

    Every file must be available there already. Blocks with equal meta share a request. RucioConflict: one of those
    that were not yielded has such a rule already, and the others of its request have none.
    """
    alike: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name in sorted(blocks):
        alike[blocks[name].group, blocks[name].custodial].append(name)
    for names in alike.values():
        for part in sliced(names, rucio.main.rucio_rules):
            rules.add(rucio, part, site.rse, site.account, dict(rule_meta(blocks[part[0]])))
            yield part


def change(rucio: Rucio, rule: RuleAtRse, block: BlockAtNode) -> None:
    """The rule says what PhEDEx says of the block, without mark, hold, keep and end; NotFound if it is gone.

    Read, change, write: what others wrote into its meta stays. Raises RucioConflict where somebody marked, held or kept
    it since it was read for this: then PhEDEx is to be read anew, too.
    """

    def options(row: Row) -> dict[str, object]:
        wanted = _as_phedex_has_it(row, block)
        if wanted and not _is_as_read(row, rule):
            raise RucioConflict(f"Rucio: rule {rule.id} was marked, held or kept a moment ago: read again")
        return wanted

    _written(rucio, rule.id, options)


def _as_phedex_has_it(row: Row, block: BlockAtNode) -> dict[str, object]:
    before = parse_meta(row.get("meta"))
    meta = unmarked(before, moment(now())) | rule_meta(block)
    options: dict[str, object] = {"meta": rules.as_text(meta)} if meta != before else {}
    if row.get("expires_at") is not None:
        options["lifetime"] = None
    if keep_of({}, row.get("comments")) is not None:
        options["comment"] = COMMENT
    return options


def withdraw(rucio: Rucio, found: Found, rse: str, name: str, ordering: Iterable[str]) -> set[str]:
    """What these rules of ours on a block have Rucio transfer to the RSE is cancelled; returns these files.

    Left alone where others hold the block, or a file that is to come, there too: then it may be for them. And where the
    replica of a file was declared bad: Rucio copies it anew, and nobody may call it good before.
    """
    ordering, ours = list(ordering), {rule.id for rule in found.every[name]}
    if not ordering or any(lock.name == name and lock.rse == rse and lock.rule not in ours for lock in found.locks):
        return set()
    files = {file for rule in ordering for file in rules.locked_by(rucio, rule, rse, state="REPLICATING")}
    for file in sorted(files):
        others = (row for row in rules.holding_file(rucio, file) if row["id"] not in ours)
        if any(may_be_at(rse, row["rse_expression"]) and locked(rucio, rse, row, [file]) for row in others):
            return set()
        if rules.is_recovery(rucio, rse, file):
            return set()
    for rule in ordering:
        rules.withdraw(rucio, rule)
    return files


def approve(rucio: Rucio, rule: RuleAtRse, code: str) -> bool:
    """A marked rule's meta says which approval covers its mark; False where one does already, or the mark is gone."""
    return _rewrite(
        rucio, rule.id, lambda meta: None if GONE_APPROVED in meta else _in_mark(meta, GONE_APPROVED, code), read=rule
    )


def mark(rucio: Rucio, rule: RuleAtRse, note: Mapping[str, object]) -> bool:
    """The rule's meta has the mark; nothing else of it changes but its hold, which is over.

    False where it had a mark for this reason or a worse one, or a person keeps it. Read, change, write, like `change`.
    NotFound where the rule is gone.
    """
    return _rewrite(rucio, rule.id, lambda meta: with_mark(meta, note), read=rule)


def unmark(rucio: Rucio, rule: RuleAtRse) -> bool:
    """The rule of a block that stays has no mark and no hold any more; False where it has neither.

    One whose sweep came to begin since it was read is left alone.
    """

    def changed(meta: Mapping[str, object]) -> dict[str, object] | None:
        if not {GONE_SINCE, HOLD} & meta.keys() or (SWEEPING in meta and not rule.begun):
            return None
        return unmarked(meta, moment(now()), keep=True)

    return _rewrite(rucio, rule.id, changed, read=rule, kept=True)


def soften(rucio: Rucio, rule: RuleAtRse, why: Removal) -> bool:
    """The rule's mark is for this milder reason, and permits no worse one any more; False where it is not milder."""
    return _rewrite(rucio, rule.id, lambda meta: softened(meta, why), read=rule)


def hold(rucio: Rucio, rule: RuleAtRse, plan: float, why: Removal, *, custodial: bool) -> bool:
    """The rule's meta tells that a person is asked from now on, and for which reason; False where it does already.

    `plan`: when the plan began to read that found it so (epoch seconds).
    """

    def changed(meta: Mapping[str, object]) -> dict[str, object] | None:
        if GONE_SINCE in meta and permits_mark(meta, why):
            return None
        return with_hold(meta, moment(now()), why, plan=plan, custodial=custodial)

    return _rewrite(rucio, rule.id, changed, read=rule)


def as_custodial(rucio: Rucio, rule: RuleAtRse) -> bool:
    """The rule's mark is that of a block that is custodial, from now on; False where it is already, or it has none."""
    return _rewrite(rucio, rule.id, lambda meta: marks.as_custodial(meta, moment(now())), read=rule)


def note_held(rucio: Rucio, rule: str, why: str) -> bool:
    """A marked rule's meta says why it was not acted on; False where it said so already, or has no mark any more."""
    return _rewrite(rucio, rule, lambda meta: None if GONE_HELD in meta else _in_mark(meta, GONE_HELD, why[:300]))


def is_begun(rucio: Rucio, rse: str, found: Iterable[RuleAtRse]) -> bool:
    """True where a sweep of the block of these rules has begun: only forward then."""
    rows = (rules.find(rucio, rule.id) for rule in found if rule.begun)
    return any(begun.is_begun(rucio, rse, row) for row in rows if row is not None)


def note_sweeping(rucio: Rucio, rse: str, row: Row, files: Sequence[str], *, by: float) -> bool:
    """The rule, as it was read, names some of these files of its block, which one request is about to take away.

    False where it names others, and those are gone: a sweep has begun already.
    """
    meta = parse_meta(row.get("meta"))
    named = named_of(meta)
    if not named or not named <= {hash_of(file) for file in files}:
        if begun.is_begun(rucio, rse, row):
            return False
        some = {files[0], files[len(files) // 2], files[-1]}
        rules.change(
            rucio, row["id"], {"meta": rules.as_text(with_sweeping(meta, int(now().timestamp()), some))}, by=by
        )
    return True


def take_back_sweeping(rucio: Rucio, rule: str) -> bool:
    """The rule says no more that a sweep is about to begin; False where it does not."""
    return _rewrite(
        rucio,
        rule,
        lambda meta: {key: value for key, value in meta.items() if key != SWEEPING} if SWEEPING in meta else None,
        kept=True,
    )


def note_left(rucio: Rucio, rule: str, left: Mapping[str, int]) -> None:
    """The rule's meta remembers just these files of its block that PhEDEx lists no more (hash to epoch seconds)."""
    _rewrite(
        rucio,
        rule,
        lambda meta: None if left_of(meta) == left and (left or LEFT not in meta) else with_left(meta, left),
        kept=True,
    )


def _in_mark(meta: Mapping[str, object], key: str, value: str) -> dict[str, object] | None:
    return {**meta, key: value} if GONE_SINCE in meta else None


def permits_mark(meta: Mapping[str, object], why: Removal) -> bool:
    """True where the meta's mark permits this reason."""
    return permits(reason_of(meta.get(GONE_WHY)), why)


def _rewrite(
    rucio: Rucio,
    rule: str,
    changed: Callable[[Mapping[str, object]], dict[str, object] | None],
    *,
    read: RuleAtRse | None = None,
    kept: bool = False,
) -> bool:
    """The rule's meta is what `changed` makes of it; False where that is None, or (unless `kept`) a person keeps it.

    Or where somebody has marked, held or unmarked it since it was read as `read`: what was decided then is of no use.
    """

    def options(row: Row) -> dict[str, object]:
        meta = changed(parse_meta(row.get("meta")))
        stays = not kept and keep_of({}, row.get("comments")) is not None
        if meta is None or stays or not (read is None or _is_as_read(row, read)):
            return {}
        return {"meta": rules.as_text(meta)}

    return _written(rucio, rule, options)


def _is_as_read(row: Row, rule: RuleAtRse) -> bool:
    """True where the rule's mark and hold, and when it was known to stay, are as they were when it was read."""
    told = told_by(row.get("meta"))
    return (told.gone_since, told.held_since, told.seen) == (rule.gone_since, rule.held_since, rule.seen)


def _written(rucio: Rucio, rule: str, options: Callable[[Row], dict[str, object]]) -> bool:
    """The rule, read now, has these options; False where there are none.

    Rucio has no way to write only if nothing has changed, so what was read a while ago is not written: this process may
    have been stopped since. RucioConflict then: it is all to be read again.
    """
    by = clock() + rucio.main.sweep_within
    wanted = options(rules.read(rucio, rule))
    if not wanted:
        return False
    try:
        rules.change(rucio, rule, wanted, by=by)
    except TooLate as late:
        why = "no answer came" if late.sent else "it took too long between reading the rule and writing it"
        raise RucioConflict(f"Rucio: update_replication_rule {rule}: {why}: read again") from None
    return True
