"""What becomes in Rucio of a block that PhEDEx does not have complete at the node?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from common.outcome import Exit
from common.sync.answer import Answer, Word, answer, at, sync_block, undo
from common.sync.catalogue import GONE_APPROVED, GONE_BY, GONE_CYCLE, GONE_HELD, GONE_WHY, KEEP, BlockAtNode, Doubt
from common.sync.diff import in_doubt
from common.sync.explain_present import main_rule
from common.sync.guard import Ruling
from common.sync.one_block import Facts, LastCopy, RuleSeen
from common.sync.plan import Plan
from common.sync.words import count, percent


def explain(facts: Facts, block: BlockAtNode | None) -> Answer:
    """The answer for a block that is not at the node in PhEDEx, or only in part, or still open."""
    rule = main_rule(facts.ours)
    if rule is None:
        return _without_rule(facts, block)
    for step in (_stays, _marked, _forbidden, _unasked):
        if (found := step(facts, block, rule)) is not None:
            return found
    assert facts.plan is not None
    return _guarded(facts, facts.plan)


def has(facts: Facts, block: BlockAtNode | None) -> str:
    """What PhEDEx has of it at the node, as a clause."""
    assert facts.phedex is not None
    if not facts.phedex.known:
        return "PhEDEx does not know the block at all"
    if block is None:
        return f"PhEDEx does not have it at {facts.source}"
    if block.is_open and block.here >= block.files:
        return f"PhEDEx has it open at {facts.source}, with all its {count(block.files, 'file')} so far"
    state = "open, " if block.is_open else ""
    return f"PhEDEx has it {state}with {block.here:,} of {count(block.files, 'file')} at {facts.source}"


def at_stake(facts: Facts) -> bool:
    """True where a cycle might remove the block: the site's plan, the guard and the last copy matter."""
    rule = main_rule(facts.ours)
    there = facts.there
    if facts.phedex is None or rule is None or rule.ours is None or (there is not None and there.complete):
        return False
    return _stays(facts, there, rule) is None and not _why_no_removals(facts)


# --- nothing of ours is there


def _without_rule(facts: Facts, block: BlockAtNode | None) -> Answer:
    assert facts.rucio is not None
    replicas = facts.rucio.available.get(facts.rse, 0) or len(facts.rucio.at(facts.rse))
    held = {holder.account for holder in facts.rucio.holders if holder.rse == facts.rse}
    text = f"{has(facts, block)}{_later(block)}, and the sync has no rule on it at {facts.rse or facts.node}."
    if not replicas:
        return answer(Word.NOTHING, text)
    if held:
        whose = ", ".join(sorted(held))
        more = f"Its {count(replicas, 'replica')} there {_are(replicas)} held by {whose}: not ours to touch."
        return answer(Word.NOTHING, text, more)
    more = f"{count(replicas, 'replica')} of it there {_are(replicas)} in nobody's rule: the sync lets such be."
    return answer(Word.NOTHING, text, more, code=Exit.DIFFERENCES)


def _later(block: BlockAtNode | None) -> str:
    if block is None:
        return ""
    return " (it is added when PhEDEx has closed it)" if block.here >= block.files else " (it is added when complete)"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


# --- what stays as it is


def _stays(facts: Facts, block: BlockAtNode | None, rule: RuleSeen) -> Answer | None:
    """A rule that stays, or that leaves without anybody's doing."""
    assert rule.ours is not None
    if block is not None and block.is_open and block.here >= block.files:
        return answer(Word.NOTHING, f"it is as it should be. {has(facts, block)}: nothing is lost.")
    if rule.ours.marked:
        return None
    if rule.ends is not None:
        return answer(
            Word.NOTHING, f"{has(facts, block)}, and its rule ends {at(rule.ends)}: Rucio's cleaner takes it."
        )
    if rule.ours.keep:
        text = f"{has(facts, block)}, and {_kept_by(rule)} keeps it until PhEDEx has it back."
        return answer(Word.NOTHING, text, next_=(undo(facts, "--clear"),))
    if block is not None and facts.policy.keep_incomplete:
        return answer(Word.NOTHING, f"{has(facts, block)}, and `incomplete: keep` in the settings lets it stay.")
    return None


def _kept_by(rule: RuleSeen) -> str:
    note = rule.meta.get(KEEP)
    if not isinstance(note, dict):
        return "a person"
    return f"{note.get('by') or 'a person'} (at {note.get('at') or 'an unknown time'})"


# --- what is marked


def due_at(facts: Facts, rule: RuleSeen) -> datetime | None:
    """When the time of grace of a mark is over; None for a mark whose time nobody can read."""
    assert rule.ours is not None
    try:
        return datetime.fromtimestamp(rule.ours.gone_since, UTC) + timedelta(seconds=facts.policy.grace)
    except (OverflowError, ValueError):
        return None


def _marked(facts: Facts, block: BlockAtNode | None, rule: RuleSeen) -> Answer | None:
    assert rule.ours is not None
    if not rule.ours.marked:
        return None
    due, mark = due_at(facts, rule), f"{_mark(rule)}. {has(facts, block)}."
    if rule.ends is not None:
        return answer(
            Word.NOTHING, f"it is swept already; its rule ends {at(rule.ends)}: Rucio's cleaner takes it.", mark
        )
    if due is None:
        return answer(
            Word.HELD,
            "it is marked, and nobody can read since when: it is never swept by itself.",
            mark,
            next_=(undo(facts),),
            code=Exit.HELD,
        )
    if due > facts.at:
        text = f"it is marked for removal, and may be swept from {at(due)} on."
        return answer(Word.NOTHING, text, mark, *_foreseen(facts), next_=(undo(facts),), brief="marked")
    return _due(facts, block, mark)


def _due(facts: Facts, block: BlockAtNode | None, mark: str) -> Answer:
    """A mark whose time of grace is over."""
    if none := _why_no_removals(facts):
        return answer(Word.HELD, f"it is due to be swept, but {none}.", mark, code=Exit.HELD)
    if block is not None and facts.policy.keep_incomplete:
        text = "it is marked, and not swept: `incomplete: keep` in the settings lets what is there in part stay."
        return answer(Word.NOTHING, text, mark, next_=(undo(facts),))
    if facts.plan_failed:
        return _unread(facts, "it is due to be swept")
    if facts.plan is not None and facts.block in facts.plan.unswept:
        return _unswept(facts, facts.plan, mark)
    return _passed(facts, mark)


def _passed(facts: Facts, mark: str) -> Answer:
    """A mark that is due and that the guard does not keep; what the batch looks at last decides."""
    if (waits := _waits(facts)) is not None:
        return answer(Word.NOTHING, waits, mark, next_=(undo(facts),), brief="waits for Rucio")
    last = facts.last_copy
    if last is not None and last.file:
        return answer(Word.HELD, _last(last), mark, *_takers(last), code=Exit.HELD, brief="last copy")
    text = f"its replicas go and its rule ends{_sweep_counts(last)}."
    unasked = () if facts.plan else (f"The guard was not asked: {facts.plan_trouble}.",)
    return answer(Word.SWEEP, text, mark, *unasked, next_=(undo(facts), sync_block(facts)))


def _waits(facts: Facts) -> str | None:
    """A block is not swept while Rucio has not given its rule the locks of all its files."""
    rule, inside = main_rule(facts.ours), len(facts.rucio.inside) if facts.rucio else 0
    if rule is None or sum(rule.locks) >= inside:
        return None
    locks = f"its rule has {sum(rule.locks):,} locks for {count(inside, 'file')}"
    return f"it is due to be swept, and waits for Rucio's judge-evaluator: {locks}."


def _unswept(facts: Facts, plan: Plan, mark: str) -> Answer:
    stops = plan.ruling.stops if plan.ruling else []
    says = [f"The guard says ({stop.limit}): {stop.says}." for stop in stops]
    allow = [plan.ruling.command] if plan.ruling and plan.ruling.command else []
    return answer(
        Word.HELD,
        "it is due to be swept, and stays until a person has looked.",
        *says,
        mark,
        next_=(f"phedex-rucio plan {facts.node}", *allow, undo(facts)),
        code=Exit.HELD,
        brief=str(stops[0].limit) if stops else "",
    )


def _mark(rule: RuleSeen) -> str:
    since = "an unknown time"
    if rule.ours is not None and (moment := _moment(rule.ours.gone_since)):
        since = at(moment)
    said = f"Marked at {since} by cycle {rule.meta.get(GONE_CYCLE) or 'unknown'}"
    said += f" ({rule.meta[GONE_WHY]})" if rule.meta.get(GONE_WHY) else ""
    said += f", sent by {rule.meta[GONE_BY]}" if rule.meta.get(GONE_BY) else ""
    said += f", approved as {rule.meta[GONE_APPROVED]}" if rule.meta.get(GONE_APPROVED) else ""
    return said + (f"; held since: {rule.meta[GONE_HELD]}" if rule.meta.get(GONE_HELD) else "")


def _moment(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError):
        return None


def _last(last: LastCopy) -> str:
    return f"it would be the last copy of {last.file} ({last.why}), so the whole block stays."


def _takers(last: LastCopy) -> Iterator[str]:
    if last.takers:
        have = "has" if len(last.takers) == 1 else "have"
        yield f"{', '.join(last.takers[:5])} {have} it in PhEDEx and is asked to have it in Rucio; then it goes here."


def _foreseen(facts: Facts) -> Iterator[str]:
    """What the last-copy rule would say if it were due now."""
    if facts.last_copy is not None and facts.last_copy.file:
        yield f"As things are it would then be held: {_last(facts.last_copy)}"
        yield from _takers(facts.last_copy)


def _sweep_counts(last: LastCopy | None) -> str:
    if last is None:
        return ""
    foreign = f", {last.foreign:,} stay for others" if last.foreign else ""
    return f" ({count(last.delete, 'replica')} to delete{foreign})"


# --- what is not marked yet


def _why_no_removals(facts: Facts) -> str:
    """Why nothing is removed at the site, as a clause."""
    if facts.policy.dry:
        return "`dry: true` in the settings of the site: nothing is written"
    if facts.policy.adds_only:
        return "`adds_only: true` in the settings of the site: nothing is removed"
    if facts.place is not None and facts.place.switch == "adds-only":
        return f"the switch of RSE {facts.rse} says adds-only: nothing is removed"
    return facts.plan.removals if facts.plan else ""


def _forbidden(facts: Facts, block: BlockAtNode | None, _: RuleSeen) -> Answer | None:
    none = _why_no_removals(facts)
    if not none:
        return None
    return answer(Word.SKIPPED, f"{has(facts, block)}, and {none}.", code=Exit.DIFFERENCES)


def _unasked(facts: Facts, block: BlockAtNode | None, _: RuleSeen) -> Answer | None:
    """Without the site's plan nobody knows what the guard says."""
    if facts.plan is not None:
        return None
    if facts.plan_failed:
        return _unread(facts, has(facts, block))
    text = (
        f"{has(facts, block)}. Whether the guard lets it be marked is not known: {facts.plan_trouble or 'not asked'}."
    )
    return answer(Word.MARK, text, next_=(f"phedex-rucio plan {facts.node}",), code=Exit.DIFFERENCES)


def _unread(facts: Facts, what: str) -> Answer:
    """The reading of the whole site failed: nothing is removed on that."""
    text = f"{what}. The site as a whole could not be read, and without that nothing is removed: {facts.plan_failed}."
    return answer(Word.UNKNOWN, text, next_=(f"phedex-rucio plan {facts.node}",), code=Exit.AWAY, brief="not read")


def _guarded(facts: Facts, plan: Plan) -> Answer:
    """What the guard says of the site's plan, and of this block in it."""
    reason = plan.remove.get(facts.block)
    if reason is None:
        return _elsewise(facts, plan)
    ruling = plan.ruling
    assert ruling is not None  # nothing forbids removals here
    limit = ruling.held.get(facts.block)
    look = f"phedex-rucio plan {facts.node}"
    if limit is None:
        text = f"{_because(facts, reason)}. The guard lets it pass: {_numbers(plan, ruling)}."
        after = f"Its replicas go {facts.policy.grace / 60:g} minutes later, if PhEDEx still says the same."
        return answer(Word.MARK, text, after, *_foreseen(facts), next_=(sync_block(facts), look), code=Exit.DIFFERENCES)
    stops = sorted(ruling.stops, key=lambda stop: stop.limit != limit)
    first = f"{_because(facts, reason)}. The guard holds it ({limit}): {stops[0].says}."
    also = [f"Also ({stop.limit}): {stop.says}." for stop in stops[1:]]
    number = len(ruling.held) + len(ruling.allowed)
    allowed = (
        f"If all that the plan would remove ({count(number, 'block')}) really should go, a person approves it."
        if ruling.command
        else "No approval helps: find out first why PhEDEx says so."
    )
    return answer(
        Word.HELD,
        first,
        *also,
        allowed,
        next_=(look, *filter(None, [ruling.command])),
        code=Exit.HELD,
        brief=str(limit),
    )


def _because(facts: Facts, reason: str) -> str:
    return f"{has(facts, facts.there)}, and Rucio has it ({reason})"


def _numbers(plan: Plan, ruling: Ruling) -> str:
    return f"{ruling.number:,} of {count(plan.existing, 'rule')} would be marked then ({percent(ruling.share)})"


def _elsewise(facts: Facts, plan: Plan) -> Answer:
    """The site's plan has another opinion than the reading of this block alone."""
    doubts = [Doubt(*text.split(": ", 1)) for text in plan.doubts if ": " in text]
    if in_doubt(doubts)(facts.block):
        text = (
            f"PhEDEx's list of {facts.node} is not believed for this part: {plan.doubts[0]}. Nothing is removed there."
        )
        return answer(Word.HELD, text, next_=(f"phedex-rucio plan {facts.node}",), code=Exit.HELD)
    text = (
        "the list of the whole site and the question about this block alone do not agree: something changes just now."
    )
    return answer(
        Word.UNKNOWN, text, "Ask again in some minutes; PhEDEx lets replies be cached for five.", code=Exit.DIFFERENCES
    )
