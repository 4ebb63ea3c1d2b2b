"""What lacks in Rucio of a block that PhEDEx has complete at the node?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from common.outcome import Exit
from common.sync.answer import Answer, Word, answer, at, sync_block
from common.sync.catalogue import BlockAtNode
from common.sync.diff import Update, update_reason
from common.sync.marks import GROUP, hash_of, left_of
from common.sync.one_block import Facts, FileSeen, RuleSeen, files_of
from common.sync.words import count

CONFLICTS = ("other size", "other checksum")


def explain(facts: Facts, block: BlockAtNode) -> Answer:
    """The answer for a block that is complete at the node in PhEDEx."""
    if not block.files:
        return answer(Word.NOTHING, "the block is closed and has no files: there is nothing to sync.")
    if facts.sweeping:
        text = f"a sweep of it is announced at {facts.rse}: nothing is added before that has ended. {_since(facts)}."
        return answer(Word.NOTHING, text, code=Exit.DIFFERENCES, brief="sweep announced")
    rule = main_rule(facts.ours)
    files = files_of(facts)
    why = "missing" if rule is None else _reason(block, rule)
    if why is None:
        return _fits(facts, block, files)
    if facts.listed.doubt:
        text = f"PhEDEx's list of its files is not believed: {facts.listed.doubt}. The block is left as it is."
        return answer(Word.STOPPED, text, code=Exit.DIFFERENCES)
    if why not in (Update.META,) and (conflict := _conflict(facts, files)):
        return conflict
    found = _missing(facts, block, files) if rule is None else _update(facts, block, rule, why, files)
    return _dry(found) if facts.policy.dry else found


def main_rule(rules: Sequence[RuleSeen]) -> RuleSeen | None:
    """The rule that counts of several on one block: a live one before one that ends, then the plain expression."""
    return max(rules, key=lambda one: (one.ends is None, bool(one.ours and one.ours.plain)), default=None)


def _reason(block: BlockAtNode, rule: RuleSeen) -> str | None:
    """Why the rule needs work; one of older tools, without our meta, does."""
    assert rule.ours is not None
    why = update_reason(block, rule.ours)
    return Update.META if why is None and GROUP not in rule.meta else why


def _since(facts: Facts) -> str:
    part = facts.phedex.places.get(facts.source) if facts.phedex else None
    since = f" since {at(part.changed)}" if part and part.changed else ""
    where = "" if facts.source == facts.node else f" at {facts.source}"
    return f"PhEDEx has it complete{where}{since}"


def _fits(facts: Facts, block: BlockAtNode, files: list[FileSeen]) -> Answer:
    assert facts.rucio is not None
    differing = [file for file in files if file.differs]
    lacks = _behind(facts, block, differing)
    if not lacks:
        return answer(Word.NOTHING, f"it is as it should be. {_since(facts)}; Rucio has {_all(block)} and the rule.")
    return answer(
        Word.NOTHING,
        f"the rule fits, so a plain cycle finds no difference, but {lacks}.",
        "A deep look compares file by file: it mends what it may, and reports the rest.",
        next_=(sync_block(facts, "--deep"),),
        code=Exit.DIFFERENCES,
    )


def _behind(facts: Facts, block: BlockAtNode, differing: list[FileSeen]) -> str:
    """What is wrong behind a rule that fits."""
    assert facts.rucio is not None
    available = facts.rucio.available.get(facts.rse, 0)
    if differing:
        return f"{count(len(differing), 'file')} of {block.files:,} {'differs' if len(differing) == 1 else 'differ'}"
    if available < block.files:
        return f"{available:,} of {count(block.files, 'file')} are available at {facts.rse}"
    live = [rule for rule in facts.ours if rule.ends is None]
    if len(live) > 1:
        return f"the block has {len(live)} rules of ours at {facts.rse}"
    return "" if facts.rucio.attached else "Rucio's dataset is not in its container"


def _all(block: BlockAtNode) -> str:
    return "its file" if block.files == 1 else f"all {block.files:,} files"


def _conflict(facts: Facts, files: list[FileSeen]) -> Answer | None:
    found = [file for file in files if file.differs in CONFLICTS]
    if not found:
        return None
    first = found[0]
    assert first.phedex is not None
    assert first.rucio is not None
    sizes = f"{first.phedex.bytes:,} bytes, adler32 {first.phedex.adler32 or 'unknown'}"
    theirs = f"{first.rucio.bytes:,} bytes, adler32 {first.rucio.adler32 or 'unknown'}"
    return answer(
        Word.STOPPED,
        f"conflict: Rucio has {count(len(found), 'file')} of it with another size or checksum. "
        "What Rucio has is never overwritten, so the block is left as it is.",
        f"The first: {first.name}: in PhEDEx {sizes}; in Rucio {theirs}.",
        "Find out which side is right; a person corrects the other one.",
        next_=(f"phedex-rucio verify {facts.node} --dataset {facts.block.partition('#')[0]} --csv conflicts.csv",),
        code=Exit.DIFFERENCES,
        brief="conflict",
    )


def _dry(found: Answer) -> Answer:
    said = found.says[0]
    text = f"`dry: true` in the settings of the site: nothing is written. Otherwise: {said[0].lower()}{said[1:]}"
    return answer(Word.SKIPPED, text, *found.says[1:], next_=("phedex-rucio config show",), code=found.code)


# --- no rule yet


def _missing(facts: Facts, block: BlockAtNode, files: list[FileSeen]) -> Answer:
    assert facts.rucio is not None
    todo = [file for file in files if file.phedex and not (file.inside and file.state == "AVAILABLE")]
    number = len(todo) if files else block.files
    what = f"{count(number, 'file')} and the rule" if number else "the rule"
    text = f"{what}. {_since(facts)}; {_has(facts, block)}."
    if facts.place is not None and facts.place.account_exists is False:
        stop = f"Rucio has no account {facts.place.account}, which is to own the rules at {facts.rse}"
        return answer(
            Word.STOPPED,
            f"{stop}: the files would be added, the rule would not.",
            text.capitalize(),
            next_=(f"phedex-rucio send account --field rse={facts.rse}",),
            code=Exit.DIFFERENCES,
        )
    if held := _withheld(facts, files):
        more = f"Would add: {text}"
        return answer(Word.HELD, held, more, next_=_after_withheld(facts, files), code=Exit.HELD)
    late = _late(facts, files)
    then = [f"Then {late}"] if late else []
    return answer(Word.ADD, text, *then, next_=(sync_block(facts),), code=Exit.DIFFERENCES)


def _has(facts: Facts, block: BlockAtNode) -> str:
    """What Rucio has so far of a block without a rule."""
    rucio = facts.rucio
    assert rucio is not None
    if not rucio.container:
        return "Rucio has no container"
    if not rucio.dataset:
        return "Rucio has no dataset"
    available = rucio.available.get(facts.rse, 0)
    return f"Rucio has the dataset, {available:,} of {count(block.files, 'file')} available at {facts.rse}, and no rule"


def _withheld(facts: Facts, files: list[FileSeen]) -> str:
    """Why the rule would be withheld: Rucio would queue a real transfer for a file that is not available here."""
    if unlisted := [file for file in files if file.inside and file.phedex is None]:
        return (
            f"the rule waits: Rucio's dataset has {count(len(unlisted), 'file')} that PhEDEx does not list in the "
            f"block, such as {unlisted[0].name}."
        )
    if bad := _bad(facts, files):
        return f"the rule waits: {bad}; with a rule Rucio would order a transfer."
    return ""


def _bad(facts: Facts, files: list[FileSeen]) -> str:
    """The replicas here in another state than AVAILABLE, as a clause."""
    bad = [file for file in files if file.phedex and file.state not in ("", "AVAILABLE")]
    if not bad:
        return ""
    are = "is" if len(bad) == 1 else "are"
    return f"{count(len(bad), 'replica')} at {facts.rse} {are} {bad[0].state}, such as {bad[0].name}"


def _late(facts: Facts, files: list[FileSeen]) -> str:
    """Files that join a block which other sites' rules hold wait until PhEDEx has it whole at all of these."""
    assert facts.rucio is not None
    for file in files:
        if file.phedex and not file.inside:
            states = facts.rucio.states.get(file.name, {})
            lack = [rse for rse in facts.not_at if states.get(rse) != "AVAILABLE"]
            if lack:
                return f"new files wait until PhEDEx has the block at {', '.join(lack[:5])}, such as {file.name}."
    return ""


def _after_withheld(facts: Facts, files: list[FileSeen]) -> tuple[str, ...]:
    if any(file.state == "UNAVAILABLE" for file in files):
        return (sync_block(facts, "--deep"),)
    return (f"phedex-rucio verify {facts.node} --dataset {facts.block.partition('#')[0]}",)


# --- a rule that needs work


def _update(facts: Facts, block: BlockAtNode, rule: RuleSeen, why: str, files: list[FileSeen]) -> Answer:
    text = f"{_work(block, rule, why, files)} {_since(facts)}."
    if why == Update.ENDING and any(file.differs for file in files):
        held = "its rule ends and a file is not available: it waits until Rucio's cleaner has taken the rule away."
        return answer(Word.HELD, held, "Then it is added like a new block.", code=Exit.HELD)
    if why == Update.FILES and (bad := _bad(facts, files)):
        more = "Only a deep look makes an UNAVAILABLE replica available again; one that is BAD was declared so."
        vain = f"{text} That helps nothing while {bad}."
        return answer(Word.UPDATE, vain, more, next_=(sync_block(facts, "--deep"),), code=Exit.DIFFERENCES)
    if why == Update.FILES and (held := _late(facts, files)):
        return answer(Word.HELD, held, f"Would update: {text}", next_=_after_withheld(facts, files), code=Exit.HELD)
    leaving = list(_leaving(facts, files))
    return answer(Word.UPDATE, text, *leaving, next_=(sync_block(facts),), code=Exit.DIFFERENCES)


def _leaving(facts: Facts, files: list[FileSeen]) -> Iterator[str]:
    """Files that PhEDEx lists no more in the block: since when that is remembered, and what happens next."""
    found = [file.name for file in files if file.inside and file.phedex is None]
    if not found:
        return
    noted = _noted(facts)
    since = [noted[hash_of(name)] for name in found if hash_of(name) in noted]
    what = f"{count(len(found), 'file')} in it that PhEDEx lists no more, such as {found[0]}"
    if not since:
        yield f"{what}: remembered by the next sync, and leaves when PhEDEx says so again after the time of grace."
        return
    due = _after(min(since), facts.policy.grace)
    when = f"from {at(due)} on" if due else "after the time of grace"
    yield f"{what}: {count(len(since), 'file')} remembered, to leave {when} if PhEDEx says so again."
    yield "It leaves at all sites at once or stays: what stands against it is told by the last batch, below."


def _noted(facts: Facts) -> Mapping[str, int]:
    """Whichever rule of the block remembers for it."""
    found: dict[str, int] = {}
    for rule in facts.rucio.rules if facts.rucio else ():
        found |= left_of(rule.meta)
    return found


def _after(seconds: int, grace: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) + timedelta(seconds=grace)
    except (OverflowError, ValueError):
        return None


def _work(block: BlockAtNode, rule: RuleSeen, why: str, files: list[FileSeen]) -> str:
    if why == Update.RETURNED:
        return f"{_returned(rule)}, for it is back."
    if why == Update.ENDING:
        return f"its rule, which ends {at(rule.ends) if rule.ends else 'soon'}, stays."
    if why == Update.META:
        return "the rule's meta gets PhEDEx's group and custodial flag."
    todo = sum(bool(file.differs) for file in files if file.phedex)
    if rule.ours is not None and rule.ours.ordering and not todo:
        return "a transfer that Rucio queued for its rule is withdrawn."
    good = f"its rule has {rule.locks[0]:,} good locks of {count(block.files, 'file')}"
    return f"{good}; {count(todo, 'file')} to bring." if todo else f"{good}."


def _returned(rule: RuleSeen) -> str:
    """What is taken back of a block that PhEDEx has again: an approval of it is used up with that."""
    assert rule.ours is not None
    if rule.ours.keep:
        return "a person's note to keep it goes"
    return "its mark for removal is taken back" if rule.ours.marked else "the note that it was held goes"
