"""Why is this block not as it should be, and what would the next cycle do about it? From facts to sentences; pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from common.outcome import Exit
from common.sync import explain_absent, explain_present
from common.sync.answer import Answer, Word, after_announced, announced, answer, at
from common.sync.one_block import Facts, Letter, Place, Trouble
from common.sync.words import count

SHOWN = 3  # dead letters that are named in the sentences


def explain(facts: Facts) -> Answer:
    """The answer: what stands in the way first, else what a cycle would do; then what else a person should know."""
    found = _compared(facts)
    obstacles = list(_obstacles(facts, found))
    if obstacles:
        first = obstacles[0]
        says = [text for one in obstacles for text in one.says]
        says += [_otherwise(found)] if found and found.code and first.word is Word.SKIPPED and facts.rse else []
        following = tuple(dict.fromkeys(command for one in obstacles for command in one.next))
        found = replace(first, says=tuple(says), next=following)
    assert found is not None  # a side that is missing is an obstacle
    return _with_messages(facts, found)


def _compared(facts: Facts) -> Answer | None:
    """What a cycle would do if nothing stood in the way; None where a side is not known."""
    if facts.phedex is None or facts.rucio is None:
        return None
    there = facts.there
    if there is not None and there.complete:
        return explain_present.explain(facts, there)
    return explain_absent.explain(facts, there)


def _obstacles(facts: Facts, found: Answer | None) -> Iterator[Answer]:
    yield from (trouble(one) for one in facts.troubles if one.system != "broker")
    code = _differing(facts, found)
    settings = ("phedex-rucio config show",)
    if not facts.policy.run:
        text = f"`run` is off in the settings of {facts.node}: nothing is done there."
        yield answer(Word.SKIPPED, text, next_=settings, code=code, brief="run is off")
    if facts.unknown_node:
        text = f"PhEDEx has no node {facts.unknown_node} (any more): a sync of it fails, and removes nothing."
        yield answer(Word.STOPPED, text, next_=settings, code=Exit.DIFFERENCES, brief="unknown node")
    if facts.place is not None and (obstacle := _of_place(facts, facts.place, code)):
        yield obstacle
    if facts.policy.unselected:
        text = f"{facts.policy.unselected} in the settings leaves this block out: it is neither added nor removed."
        yield answer(Word.SKIPPED, text, next_=settings, code=code, brief="not selected")


def _of_place(facts: Facts, place: Place, code: int) -> Answer | None:
    if place.unclear:
        return answer(Word.STOPPED, f"{place.why_none}.", code=Exit.DIFFERENCES, brief="RSE unclear")
    if not place.rse:
        return _no_rse(facts, place, code)
    return _frozen(facts, place, code) if place.switch == "frozen" else None


def _differing(facts: Facts, found: Answer | None) -> int:
    """The exit code of a block that is skipped: whether it is as it should be nevertheless."""
    if facts.rse and found is not None:
        return Exit.DIFFERENCES if found.code else Exit.DONE
    return Exit.DIFFERENCES if facts.there is not None and facts.there.complete else Exit.DONE


def trouble(one: Trouble) -> Answer:
    """What a side that fails us means."""
    name = {"phedex": "PhEDEx", "rucio": "Rucio"}.get(one.system, one.system)
    since = f" since {at(one.since)}" if one.since else ""
    head, _, rest = one.reason.partition(": ")
    said = rest if rest and head.startswith(name) else one.reason
    commands: tuple[str, ...] = ("phedex-rucio check", "phedex-rucio status")
    if one.how == "refused":
        commands = ("phedex-rucio config show   # which account, and where that comes from", *commands)
        text = f"{name} refuses us{since}: {said}"
        more = "Nothing is changed until it lets us in; commands wait and are not lost."
    elif one.how == "untrusted":
        text = f"{name} answers, and not with data{since}: {said}"
        more = "Nothing is concluded from such a reply: nothing is added or removed by it."
    else:
        text = f"{name} is away{since}: {said}"
        more = "Nothing is changed meanwhile; commands wait and go on by themselves when it answers again."
    return answer(Word.UNKNOWN, text, more, next_=commands, code=one.code, brief=f"{name} {one.how}")


def _no_rse(facts: Facts, place: Place, code: int) -> Answer:
    name = facts.node
    more = "Two commands make the RSE and the account that owns its rules; the next cycle then begins by itself."
    commands = (
        f"phedex-rucio send rse --field node={name}",
        f"phedex-rucio send account --field rse={name}   # or as the RSE is called, for tape",
    )
    return answer(Word.SKIPPED, f"{place.why_none}.", more, next_=commands, code=code, brief="no RSE")


def _frozen(facts: Facts, place: Place, code: int) -> Answer:
    by, when, why = place.turned
    turned = f" by {by}" * bool(by) + f" at {when}" * bool(when) + f" because: {why}" * bool(why)
    if place.handed_over:
        text = f"{facts.node} was handed over to {place.handed_over}{turned}."
        return answer(Word.SKIPPED, text, next_=("phedex-rucio site list",), code=code, brief="handed over")
    if place.unreadable:
        turned = f": its switch says {place.unreadable!r}, which nobody can read"
    text = f"{facts.node} is frozen{turned} (attribute phedex_sync of RSE {place.rse})."
    resume = f"phedex-rucio site resume {facts.node} --reason '…'"
    return answer(Word.SKIPPED, text, next_=(resume,), code=code, brief="frozen")


def _otherwise(found: Answer) -> str:
    """What would happen without the obstacle."""
    said = found.says[0]
    return f"Otherwise: {said[0].lower()}{said[1:]}"


# --- messages


def _with_messages(facts: Facts, found: Answer) -> Answer:
    """With what died and what is open; where the block is not as it should be, the letter is to be looked at first.

    But for a side that does not answer: that comes before anything else.
    """
    extra = [*_sweeping(facts), *_letters(facts), *_waiting(facts)]
    commands = [f"phedex-rucio dead show {letter.id}" for letter in _shown(facts) if letter.is_dead]
    commands = commands if found.code else []
    for one in facts.place.sweeping if facts.place else ():
        commands += after_announced(one, facts.rse)
    following = (*found.next, *commands) if found.word is Word.UNKNOWN else (*commands, *found.next)
    return replace(found, says=(*found.says, *extra), next=following)


def _shown(facts: Facts) -> list[Letter]:
    """Those about the block itself first, the newest first."""
    oldest = facts.at.replace(year=1970)
    ordered = sorted(facts.letters, key=lambda one: (one.about_block, one.at or oldest), reverse=True)
    return ordered[:SHOWN]


def _letters(facts: Facts) -> Iterator[str]:
    for letter in _shown(facts):
        what = "this block" if letter.about_block else f"{facts.node}"
        when = f" at {at(letter.at)}" if letter.at else ""
        verb = "died" if letter.is_dead else "killed its workers"
        yield f"A command about {what} {verb}{when} ({letter.kind}, {letter.id}): {letter.error}."
    if len(facts.letters) > SHOWN:
        yield f"{count(len(facts.letters) - SHOWN, 'more dead letter')} about {facts.node}: phedex-rucio dead list."


def _sweeping(facts: Facts) -> Iterator[str]:
    for one in facts.place.sweeping if facts.place else ():
        yield announced(one, facts.rse, facts.at)


def _waiting(facts: Facts) -> Iterator[str]:
    for one in facts.history.waiting[:1]:
        retry = f"; it waits: {one.retry}" if one.retry else ""
        yield f"A cycle about it is open: {one.cycle} ({one.what}, {count(one.open, 'command')} not finished{retry})."
