"""What can be said of a block in a word, a few sentences, an exit code, and the next command?"""

from __future__ import annotations

import shlex
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from common.outcome import Exit
from common.sync.one_block import Facts


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


def at(moment: datetime) -> str:
    """A time as people read it: `2026-01-31 12:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
