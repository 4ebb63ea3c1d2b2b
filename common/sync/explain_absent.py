"""What becomes in Rucio of a block that PhEDEx does not have complete at the node?"""

from __future__ import annotations

from datetime import datetime, timedelta

from common.outcome import Exit
from common.sync.answer import STUCK, Answer, Word, answer, at, in_words, sync_block, undo, unlock
from common.sync.catalogue import BlockAtNode, Doubt
from common.sync.diff import in_doubt
from common.sync.explain_clauses import (
    are,
    complete_elsewhere,
    foreseen,
    has,
    kept_by,
    last_told,
    later,
    mark_told,
    sweep_counts,
    takers_told,
    time_at,
)
from common.sync.explain_present import main_rule
from common.sync.guard import Ruling
from common.sync.limits import Limit
from common.sync.marks import (
    Removal,
    hold_of,
    permits,
    reason_of,
)
from common.sync.one_block import Facts, RuleSeen
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
    return _guarded(facts, facts.plan, rule)


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
    text = f"{has(facts, block)}{later(block)}, and the sync has no rule on it at {facts.rse or facts.node}."
    if not replicas:
        return answer(Word.NOTHING, text)
    if held:
        whose = ", ".join(sorted(held))
        more = f"Its {count(replicas, 'replica')} there {are(replicas)} held by {whose}: not ours to touch."
        return answer(Word.NOTHING, text, more)
    more = f"{count(replicas, 'replica')} of it there {are(replicas)} in nobody's rule: the sync lets such be."
    return answer(Word.NOTHING, text, more, code=Exit.DIFFERENCES)


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
        text = f"{has(facts, block)}, and {kept_by(rule)} keeps it until PhEDEx has it back."
        return answer(Word.NOTHING, text, next_=(undo(facts, "--clear"),))
    if block is not None and facts.policy.keep_incomplete:
        return answer(Word.NOTHING, f"{has(facts, block)}, and `incomplete: keep` in the settings lets it stay.")
    return None


# --- what is marked


def due_at(facts: Facts, rule: RuleSeen) -> datetime | None:
    """When the time of grace of a mark is over, as the plan says where there is one; None for one nobody can read."""
    assert rule.ours is not None
    if facts.plan is not None and facts.block in facts.plan.pending:
        return facts.plan.pending[facts.block]
    if (moment := time_at(rule.ours.counts_from)) is None:
        return None
    try:
        return moment + timedelta(seconds=facts.policy.grace)
    except OverflowError:
        return None


def _marked(facts: Facts, block: BlockAtNode | None, rule: RuleSeen) -> Answer | None:
    assert rule.ours is not None
    if not rule.ours.marked:
        return None
    due, mark = due_at(facts, rule), f"{mark_told(rule)}. {has(facts, block)}."
    if rule.ends is not None:
        return answer(
            Word.NOTHING, f"it is swept already; its rule ends {at(rule.ends)}: Rucio's cleaner takes it.", mark
        )
    if (found := _planned(facts, rule, mark)) is not None:
        return found
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
        return answer(Word.NOTHING, text, mark, *foreseen(facts), next_=(undo(facts),), brief="marked")
    return _due(facts, block, mark)


def _planned(facts: Facts, rule: RuleSeen, mark: str) -> Answer | None:
    """What holds whether or not the mark is due: a sweep that is announced, and what the site's plan says of it."""
    if facts.sweeping:
        text = "its sweep is announced, and may be under way: what it began to take cannot be given back."
        return answer(Word.NOTHING, text, mark, next_=(undo(facts),), brief="sweep announced")
    plan = facts.plan
    if plan is None or plan.ruling is None:
        return None
    if facts.block in plan.remove:
        return _guarded(facts, plan, rule, f"{mark} Today's reason is worse than the mark's, so it is decided anew.")
    if facts.block in plan.kept:
        return _kept(facts, plan, mark)
    return _locked(facts, rule, mark) if _is_locked(plan.ruling, rule, facts.block in plan.ruling.kept) else None


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
        return answer(Word.HELD, last_told(last), mark, *takers_told(last), code=Exit.HELD, brief="last copy")
    text = f"its replicas go and its rule ends{sweep_counts(last)}."
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
    return answer(
        Word.HELD,
        "it is due to be swept, and stays until a person has looked.",
        *says,
        mark,
        next_=(_look(facts), undo(facts), *_approvals(plan)),
        code=Exit.HELD,
        brief=str(stops[0].limit) if stops else "",
    )


def _look(facts: Facts) -> str:
    """The command that lists what is held at the site: it comes before any approval."""
    return f"phedex-rucio plan {facts.node}"


def _approvals(plan: Plan) -> tuple[str, ...]:
    return tuple(filter(None, [plan.ruling.command, plan.ruling.everywhere])) if plan.ruling else ()


def _is_locked(ruling: Ruling, rule: RuleSeen, held: bool) -> bool:
    """True where a person's lock holds it; at tape, where Rucio locks by itself, the guard met no such limit."""
    met = any(stop.limit is Limit.LOCKED for stop in ruling.stops)
    return held and met and rule.ours is not None and rule.ours.locked


def _locked(facts: Facts, rule: RuleSeen, said: str) -> Answer:
    text = f"a person locked its rule {rule.id}: it stays until that person unlocks it, which no approval does."
    return answer(Word.HELD, text, said, next_=(unlock(rule.id), _look(facts)), code=Exit.HELD, brief=str(Limit.LOCKED))


def _kept(facts: Facts, plan: Plan, said: str) -> Answer:
    """What should not be there and stays, for it may be the last copy."""
    if reason_of(plan.kept[facts.block]) is Removal.PARTLY:
        text = f"it stays. {in_words(Removal.PARTLY).capitalize()}."
        return answer(Word.HELD, text, said, next_=(_look(facts),), code=Exit.HELD, brief="last copy")
    nodes = complete_elsewhere(facts)
    where = f" It is complete at {', '.join(nodes[:5])}: an RSE and a `run` that is on at one of them helps."
    setup = (f"phedex-rucio setup {nodes[0]}",) if nodes else ()
    return answer(
        Word.HELD,
        f"it stays. {Removal.WAITING.capitalize()}: {STUCK}.{where if nodes else ''}",
        said,
        next_=(_look(facts), *setup),
        code=Exit.HELD,
        brief="needs a person",
    )


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


def _guarded(facts: Facts, plan: Plan, rule: RuleSeen, *mark: str) -> Answer:
    """What the guard says of the site's plan, and of this block in it."""
    if facts.block in plan.kept:
        return _kept(facts, plan, f"{has(facts, facts.there)}.")
    reason = plan.remove.get(facts.block)
    if reason is None:
        return _elsewise(facts, plan)
    ruling = plan.ruling
    assert ruling is not None  # nothing forbids removals here
    limit = ruling.held.get(facts.block)
    if limit is Limit.LOCKED:
        return _locked(facts, rule, f"{_because(facts, reason)}.")
    if limit is None:
        text = f"{_because(facts, reason)}. The guard lets it pass: {_numbers(plan, ruling)}."
        after = f"Its replicas go {facts.policy.grace / 60:g} minutes later, if PhEDEx still says the same."
        following = (sync_block(facts), _look(facts))
        return answer(Word.MARK, text, *mark, after, *foreseen(facts), next_=following, code=Exit.DIFFERENCES)
    stops = sorted(ruling.stops, key=lambda stop: stop.limit != limit)
    first = f"{_because(facts, reason)}. The guard holds it ({limit}): {stops[0].says}."
    also = [f"Also ({stop.limit}): {stop.says}." for stop in stops[1:]]
    covered = _is_on_record(rule, reason)
    return answer(
        Word.HELD,
        first,
        *mark,
        *also,
        _record(ruling, rule, covered=covered),
        next_=(_look(facts), *(_approvals(plan) if covered else (sync_block(facts),) if ruling.command else ())),
        code=Exit.HELD,
        brief=str(limit),
    )


def _is_on_record(rule: RuleSeen, reason: str) -> bool:
    hold = hold_of(rule.meta)
    return hold is not None and permits(hold.why, reason_of(reason))


def _record(ruling: Ruling, rule: RuleSeen, *, covered: bool) -> str:
    """Since when it is on record that it is held: what an approval covers."""
    if not ruling.command:
        return "No approval helps: find out first why PhEDEx says so."
    hold = hold_of(rule.meta)
    if hold is None or not covered:
        return "It is not on record yet: the next sync puts it there, and only an approval given after that covers it."
    moment = time_at(hold.since)
    since = at(moment) if moment else "an unknown time"
    return f"On record as held since {since} ({hold.why}): an approval of what is held at the site covers it."


def _because(facts: Facts, reason: str) -> str:
    return f"{has(facts, facts.there)}, and Rucio has it ({in_words(reason)})"


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
