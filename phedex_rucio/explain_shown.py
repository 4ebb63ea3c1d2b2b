"""How are the facts about a block laid out for a person? Sections of labelled lines, wrapped to the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence

import click

from common.sync.answer import SAID, Answer, Word, at
from common.sync.explain_absent import due_at
from common.sync.explain_present import main_rule
from common.sync.guard import Ruling
from common.sync.marks import hold_of, keep_of
from common.sync.one_block import Facts, FileSeen, InRucio, RuleSeen, files_of
from common.sync.render import verdict
from common.sync.words import count, size
from common.telemetry.redact import redact
from phedex_rucio import output

LABEL = 10
WIDEST = 110
FILES = 20
PLACES = 6

Line = tuple[str, str]


def show(facts: Facts, answer: Answer, *, every_file: bool) -> None:
    """The whole report of one node on stdout."""
    output.say(_bold(f"{facts.block} at {facts.node}"))
    output.say()
    paragraphs(answer.says)
    if answer.next:
        output.say(_bold("Next:"))
        for command in answer.next:
            output.say(f"  {command}")
    _section(f"PhEDEx{_as_of(facts)}", _phedex(facts))
    _section("Rucio", _rucio(facts))
    _files(facts, every_file)
    _section("Guard", _guard(facts))
    _section("Messages", _messages(facts))


def _bold(text: str) -> str:
    return click.style(text, bold=True) if sys.stdout.isatty() else text


def _width() -> int:
    """0 where nobody's terminal is to be kept to."""
    return min(WIDEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 0


def paragraphs(sentences: Iterable[str]) -> None:
    """Sentences, each beginning a line of its own."""
    for sentence in sentences:
        _paragraph(sentence)


def _paragraph(text: str, indent: str = "", first: str | None = None) -> None:
    text, width = redact(text), _width()
    first = indent if first is None else first
    if not width:
        output.say(first + text)
        return
    wrapper = textwrap.TextWrapper(
        width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    for line in wrapper.wrap(text):
        output.say(line)


def _section(title: str, lines: Iterable[Line]) -> None:
    found = [line for line in lines if line[1]]
    if not found:
        return
    output.say()
    output.say(_bold(title))
    for label, text in found:
        _paragraph(text, " " * (LABEL + 3), f"  {label:{LABEL}} ")


# --- PhEDEx


def _as_of(facts: Facts) -> str:
    return f", as of {at(facts.phedex.as_of)}" if facts.phedex else ""


def _trouble(facts: Facts, system: str) -> str:
    """Why a side says nothing."""
    return next((f"no answer to use ({one.how}): see above" for one in facts.troubles if one.system == system), "")


def _phedex(facts: Facts) -> Iterator[Line]:
    if facts.phedex is None:
        yield "answer", _trouble(facts, "phedex")
        return
    whole = facts.phedex
    if not whole.places:
        known = "known, and at no node" if whole.known else "not known at all"
        yield "block", known
        return
    state = "open" if whole.is_open else "closed"
    yield "block", f"{state}, {count(whole.files, 'file')}, {size(whole.bytes)}"
    yield (facts.source if len(facts.source) <= LABEL else "here"), _part(facts)
    yield "elsewhere", _elsewhere(facts)
    yield "files", f"not believed: {facts.listed.doubt}" if facts.listed.doubt else ""


def _part(facts: Facts) -> str:
    assert facts.phedex is not None
    part = facts.phedex.places.get(facts.source)
    at_sibling = "" if facts.source == facts.node else f" (read at {facts.source})"
    if part is None:
        return f"nothing{at_sibling}"
    state = "complete" if part.complete else f"{part.files:,} of {facts.phedex.files:,} files, {size(part.bytes)}"
    group = f"group {part.group}" if part.group else "no group"
    custodial = "custodial" if part.custodial else "not custodial"
    wanted = {None: "", True: ", subscribed", False: ", not subscribed"}[part.subscribed]
    times = f", since {at(part.created)}" if part.created else ""
    times += f", last change {at(part.changed)}" if part.changed else ""
    return f"{state}{at_sibling}, {group}, {custodial}{wanted}{times}"


def _elsewhere(facts: Facts) -> str:
    assert facts.phedex is not None
    others = {node: part for node, part in facts.phedex.places.items() if node != facts.source}
    complete = sorted(node for node, part in others.items() if part.complete)
    partly = sorted(f"{node} ({part.files:,})" for node, part in others.items() if not part.complete)
    texts = [f"complete at {_some(complete)}"] if complete else []
    texts += [f"in part at {_some(partly)}"] if partly else []
    return "; ".join(texts) or "nowhere"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - PLACES:,} more" if len(names) > PLACES else ""
    return ", ".join(names[:PLACES]) + more


# --- Rucio


def _rucio(facts: Facts) -> Iterator[Line]:
    yield "site", _site(facts)
    if facts.rucio is None:
        yield "answer", _trouble(facts, "rucio")
        return
    rucio = facts.rucio
    yield "container", "there" if rucio.container else "not there"
    yield "dataset", _dataset(rucio)
    yield "replicas", _replicas(facts, rucio)
    for rule in facts.ours:
        yield "our rule", _rule(rule)
        yield "", _mark(facts, rule)
    if facts.rse and not facts.ours:
        yield "our rule", "none"
    for text in _others(facts, rucio):
        yield "others", text


def _site(facts: Facts) -> str:
    place = facts.place
    if place is None or not place.rse:
        return place.why_none if place else ""
    missing = " (which Rucio does not have)" if place.account_exists is False else ""
    by, when, why = place.turned
    turned = f" ({' '.join(filter(None, (when, by)))}{': ' if why else ''}{why})" if any(place.turned) else ""
    return f"RSE {place.rse}, switch {place.switch}{turned}, account {place.account}{missing}"


def _dataset(rucio: InRucio) -> str:
    if not rucio.dataset:
        return "not there"
    attached = "in its container" if rucio.attached else "NOT in its container"
    return f"{'open' if rucio.is_open else 'closed'}, {attached}, {count(len(rucio.inside), 'file')}"


def _replicas(facts: Facts, rucio: InRucio) -> str:
    if not facts.rse:
        return ""
    states = list(rucio.at(facts.rse).values())
    here = ", ".join(f"{states.count(state):,} {state}" for state in sorted(set(states))) or "none"
    others = [f"{rse} ({n:,})" for rse, n in sorted(rucio.available.items()) if rse != facts.rse and n]
    return f"{here} at {facts.rse}" + (f"; elsewhere {_some(others)}" if others else "")


def _rule(rule: RuleSeen) -> str:
    ok, replicating, stuck = rule.locks
    ends = f", ends {at(rule.ends)}" if rule.ends else ""
    made = f", made {at(rule.created)}" if rule.created else ""
    locks = f"{ok:,} good, {replicating:,} replicating, {stuck:,} stuck locks"
    return f"{rule.state}: {locks}{made}{ends}, {rule.account}, {rule.id}"


def _mark(facts: Facts, rule: RuleSeen) -> str:
    """What people and the engine have written of a removal in the rule."""
    if rule.ours is None:
        return ""
    said = []
    if rule.ours.marked:
        due = due_at(facts, rule)
        said.append(
            f"marked for removal ({rule.ours.why}), {'due from ' + at(due) if due else 'its time is unreadable'}"
        )
    if hold := hold_of(rule.meta):
        said.append(f"on record as held ({hold.why})")
    if keep := keep_of(rule.meta, rule.comment):
        said.append(f"kept by {keep.by or 'a person'}")
    if rule.ours.locked:
        said.append("locked")
    return "; ".join(said)


def _others(facts: Facts, rucio: InRucio) -> Iterator[str]:
    """Other people's rules that hold something of it at the RSE, or that wait; those elsewhere as a number."""
    rules = {rule.id: rule for rule in rucio.rules}
    here = sorted(
        {holder.account for holder in rucio.holders if holder.rse == facts.rse and not _is_ours(rules, holder.rule)}
    )
    for account in here:
        held = [h.rule for h in rucio.holders if h.rse == facts.rse and h.account == account]
        yield f"{account} holds it here, {count(len(held), 'rule')}: {', '.join(sorted(held)[:3])}"
    elsewhere = sorted({f"{holder.rse} ({holder.account})" for holder in rucio.holders if holder.rse != facts.rse})
    if elsewhere:
        yield f"rules elsewhere: {_some(elsewhere)}"
    held_ids = {holder.rule for holder in rucio.holders}
    for rule in rucio.rules:
        if rule.ours is None and rule.id not in held_ids:
            where = "its container" if "#" not in rule.about else "it"
            yield f"a rule of {rule.account} on {where} without locks: {rule.expression}, {rule.state}"


def _is_ours(rules: dict[str, RuleSeen], ident: str) -> bool:
    return ident in rules and rules[ident].ours is not None


# --- files


def _files(facts: Facts, every: bool) -> None:
    """Those that differ; where all differ alike one line says it, and where nothing is to be here, none."""
    files = files_of(facts)
    wanted = files if every else [file for file in files if file.differs]
    if not wanted or not (every or (facts.rse and facts.there)):
        return
    output.say()
    differing = sum(bool(file.differs) for file in files)
    alike = {file.differs for file in files}
    if len(alike) == 1 and differing > 1 and not every:
        output.say(_bold(f"Files: all {differing:,}: {alike.pop()}") + " (--files lists them)")
        return
    output.say(_bold(f"Files: {differing:,} of {len(files):,} {'differs' if differing == 1 else 'differ'}"))
    for file in wanted if every else wanted[:FILES]:
        _file(file)
    if len(wanted) > FILES and not every:
        output.say(f"  … and {len(wanted) - FILES:,} more (--files lists all)")


def _file(file: FileSeen) -> None:
    """A name alone on its line, for it may fill it; both sides below."""
    output.say(f"  {file.name}" + (f"  {file.differs}" if file.differs else ""))
    there = "at the node" if file.here else "not at the node"
    phedex = "not listed" if file.phedex is None else f"{_copy(file.phedex.bytes, file.phedex.adler32)}, {there}"
    inside = "in the dataset" if file.inside else "not in the dataset"
    rucio = "not known" if file.rucio is None else f"{_copy(file.rucio.bytes, file.rucio.adler32)}, {inside}"
    output.say(f"    PhEDEx  {phedex}")
    output.say(f"    Rucio   {rucio}, {file.state or 'no replica here'}")


def _copy(number: int, adler32: str | None) -> str:
    return f"{number:,} B {adler32 or 'no adler32'}"


# --- guard and messages


def _guard(facts: Facts) -> Iterator[Line]:
    plan = facts.plan
    if plan is None:
        yield "", ""
        return
    yield (
        "site",
        f"{count(plan.existing, 'rule')} of ours at {plan.rse}; PhEDEx lists {count(plan.present, 'complete block')}",
    )
    kept = f", {len(plan.kept):,} kept for the last copy" if plan.kept else ""
    yield "to remove", f"{count(len(plan.remove), 'block')}, {len(plan.pending):,} marked earlier{kept}"
    yield from _ruling(plan.ruling) if plan.ruling else [("says", plan.removals)]


def _ruling(ruling: Ruling) -> Iterator[Line]:
    for number, text in enumerate(verdict(ruling, approval=False)):
        yield "says" if number == 0 else "", text


def _messages(facts: Facts) -> Iterator[Line]:
    if facts.letters_trouble:
        yield "dead", f"not looked at: {facts.letters_trouble}"
    elif not facts.letters:
        yield "dead", f"no dead letter about it or {facts.node}"
    for letter in facts.letters:
        yield "dead", f"{letter.id}  {letter.kind} {letter.key}  {letter.error}"
    history = facts.history
    if history.why_none:
        yield "events", history.why_none if history.why_none != facts.letters_trouble else ""
        return
    for one in history.waiting:
        asked = f" since {at(one.asked)}" if one.asked else ""
        retry = f", {one.retry}" if one.retry else ""
        yield "open", f"{one.what}{asked}, {count(one.open, 'command')} to go{retry}  {one.cycle}"
    for happened in history.last:
        says = f": {'; '.join(happened.says)}" if happened.says else ""
        yield "last", f"{at(happened.at)} {happened.command} {happened.outcome}{says}  {happened.cycle}"
    if not history.last:
        yield "last", f"no event about it in the last {history.hours:g} h"
    if history.until:
        yield "", f"There were too many events to read all: only those up to {at(history.until)}."


# --- all nodes


def row(facts: Facts, answer: Answer) -> tuple[str, str, str, str]:
    """One line of the table of all nodes."""
    place = facts.place
    rse = "" if place is None or not place.rse or place.rse == facts.node else f" ({place.rse})"
    word = SAID[answer.word].lower() if answer.word is not Word.NOTHING else _fine(answer)
    brief = f" ({answer.brief})" if answer.brief else ""
    return facts.node + rse, _short_phedex(facts), _short_rucio(facts), word + brief


def _fine(answer: Answer) -> str:
    return "look closer" if answer.code else "nothing"


def _short_phedex(facts: Facts) -> str:
    if facts.phedex is None:
        return "?"
    part = facts.phedex.places.get(facts.source)
    if part is None:
        return "-"
    if part.complete:
        return "complete"
    return f"{part.files:,} of {facts.phedex.files:,}{' open' if facts.phedex.is_open else ''}"


def _short_rucio(facts: Facts) -> str:
    if facts.rucio is None:
        return "?"
    if not facts.rse:
        return "no RSE"
    rule = main_rule(facts.ours)
    number = facts.rucio.available.get(facts.rse, 0)
    if rule is None:
        return f"{count(number, 'file')}, no rule" if number else "-"
    marked = " marked" if rule.ours and rule.ours.marked else " kept" if rule.ours and rule.ours.keep else ""
    return f"{count(number, 'file')}, rule {rule.state}{' ends' if rule.ends else marked}"
