"""What can be said of a block in a word, a few sentences, an exit code, and the next command?"""

from __future__ import annotations

import shlex
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from common.outcome import Exit
from common.sync.marks import Removal, reason_of
from common.sync.one_block import Facts, Sweeping


class Word(StrEnum):
    """What the next cycle would do with a block, in a word."""

    NOTHING = "nothing"
    ADD = "add"
    UPDATE = "update"
    MARK = "mark"
    SWEEP = "sweep"
    HELD = "held"
    SKIPPED = "skipped"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


SAID = {
    Word.NOTHING: "Nothing",
    Word.ADD: "Would add",
    Word.UPDATE: "Would update",
    Word.MARK: "Would mark for removal",
    Word.SWEEP: "Would sweep",
    Word.HELD: "Held",
    Word.SKIPPED: "Skipped",
    Word.STOPPED: "Stopped",
    Word.UNKNOWN: "Not known",
}


REASONS = {
    Removal.MOVED: "complete at another node, and in Rucio there",
    Removal.WAITING: "complete at another node, and not in Rucio there yet: kept as the last copy until it is",
    Removal.PARTLY: "complete at no node, and some node has files of it or is to get them: it may be the last copy",
    Removal.INCOMPLETE: "still at the node, but not whole",
    Removal.NOWHERE: "deleted everywhere in PhEDEx: this is the last copy",
    Removal.UNPROVEN: "listed nowhere in PhEDEx, and nothing there tells of a deletion",
    Removal.UNKNOWN: "not known to PhEDEx any more",
    Removal.GONE: "not at the node; where else it is was not asked",
}
STUCK = "complete at another node, and no node that has it can have it in Rucio: kept until a person has helped"


class Answer(Struct, frozen=True, kw_only=True):
    """What the next cycle would do and why, in sentences, the weightiest first; what to type next; the exit code.

    `brief`: the reason in a word or two, for a table.
    """

    word: Word
    says: tuple[str, ...]
    next: tuple[str, ...] = ()
    code: int = Exit.DONE
    brief: str = ""


def answer(
    word: Word, text: str, *more: str, next_: tuple[str, ...] = (), code: int = Exit.DONE, brief: str = ""
) -> Answer:
    """An answer whose first sentence begins with the word as people read it."""
    return Answer(word=word, says=(f"{SAID[word]}: {text}", *more), next=next_, code=code, brief=brief)


def sync_block(facts: Facts, *options: str) -> str:
    """The command that syncs this block now."""
    return shlex.join(["phedex-rucio", "sync", "block", facts.block, "--node", facts.node, *options, "--wait"])


def undo(facts: Facts, *options: str) -> str:
    """The command that takes the block's mark back."""
    return shlex.join(["phedex-rucio", "undo", facts.block, "--node", facts.node, *options])


def in_words(reason: str) -> str:
    """A reason as a plan gives it, with what it means: `moved: complete at another node, and in Rucio there`."""
    return f"{reason}: {REASONS[reason_of(reason)]}"


def unlock(rule: str) -> str:
    """The command by which the person who locked a rule unlocks it: Rucio's own (41.5.1)."""
    return f"rucio rule update {rule} --locked False"


def announced(one: Sweeping, rse: str, now: datetime) -> str:
    """What an announced sweep means, in a sentence."""
    if one.since is None or one.until is None:
        return f"Somebody announced a sweep at {rse} in {one.key}, which nobody can read: what it may be about waits."
    who = f"{one.by or 'somebody'}" + (f", cycle {one.cycle}" if one.cycle else "")
    if one.is_live(now):
        return f"A sweep is announced at {rse} since {at(one.since)} by {who}: it runs, or its end is not known yet."
    return (
        f"A sweep was announced at {rse} at {at(one.since)} by {who}, and its end was never told: over since "
        f"{at(one.until)}, the next batch looks what is left."
    )


def after_announced(one: Sweeping, rse: str) -> tuple[str, ...]:
    """What a person may type about it: only what nobody can read waits for one."""
    return (f"rucio rse attribute unset {rse} --attribute {shlex.quote(one.key)}",) if one.since is None else ()


def at(moment: datetime) -> str:
    """A time as people read it: `2026-01-31 12:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
