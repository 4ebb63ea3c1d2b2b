"""What became of the keys of the original service's file (synccmssites.yaml), and how is such a file converted?"""

from __future__ import annotations

from typing import Any

import msgspec

from common import names
from common.errors import UsageError
from common.settings.model import Main, Site
from common.settings.run import parse
from common.sync.selection import compiled

_SITE = {
    "pool": "blocks are worked on by the threads of all workers (main.threads, and as many workers as you start)",
    "block_verbosity": "each command is one line of the workers' logs, with its key and outcome: filter by those",
    "verbosity": "one level a process: main.verbosity; filter the lines of a site by their field `key`",
    "min_deletions": "the guard replaces it: max_removal_share, max_removal_blocks and max_removal_bytes",
}
_MAIN = {"block_verbosity": "there is one level a process: main.verbosity"}
# The original's levels beside Python's own.
LEVELS = {"SUMMARY": "INFO", "NOTICE": "INFO", "VERBOSE": "INFO"}
KNOWN_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
OFF = "the section is switched off (`run: false`) until a person has looked at it"


def without_meaning(section: str, key: str) -> str | None:
    """Why a key of the original file has no meaning here, with what takes its place; None for any other key."""
    return (_MAIN if section == "main" else _SITE).get(key)


def level_of(verbosity: str) -> str | None:
    """The level of the log that a `verbosity` means; "" where none is said, None where there is no such level."""
    level = LEVELS.get(verbosity.upper(), verbosity.upper())
    return level if level in ("", *KNOWN_LEVELS) else None


def convert(document: Any) -> tuple[dict[str, Any], list[str]]:
    """The document with today's keys, and a note for each thing that was dropped, changed or means something new.

    What cannot be taken over and might have protected a site switches its section off; one of `default`, every section.
    Raises UsageError for what is no file of sections.
    """
    if not isinstance(document, dict) or not all(isinstance(part, dict | None) for part in document.values()):
        raise UsageError("not a file of the original service: no mapping of sections (main, default, one a node)")
    new: dict[str, Any] = {}
    notes: list[str] = []
    doubtful = set()
    for section, content in document.items():
        if section in ("main", "default") or (isinstance(section, str) and names.is_node(section)):
            new[section] = {}
            doubtful |= {section for key in content or {} if not _take(new[section], section, key, content[key], notes)}
        else:
            notes.append(f"{section}: left out: no node name such as T2_IT_Pisa")
    for section in new.keys() - {"main"} if "default" in doubtful else doubtful - {"main"}:
        new[section]["run"] = False
    return new, notes


def _take(new: dict[str, Any], section: str, key: str, value: Any, notes: list[str]) -> bool:
    """The key is taken over or named in a note; False where it should have been and its value cannot be."""
    path = f"{section}.{key}"
    struct = Main if section == "main" else Site
    wanted = {each.encode_name: each.type for each in msgspec.structs.fields(struct)}.get(key)
    if (reason := without_meaning(section, key)) is not None:
        notes.append(f"{path}: left out: {reason}")
    elif wanted is None:
        notes.append(f"{path}: left out: no such key")
    elif value is None:
        notes.append(f"{path}: left out: it is empty, which means the default")
    else:
        return _put(new, path, value, wanted, notes)
    return True


def _put(new: dict[str, Any], path: str, value: Any, wanted: Any, notes: list[str]) -> bool:
    section, _, key = path.partition(".")
    try:
        new[key] = _checked(key, msgspec.convert(value, wanted, strict=False))
    except (msgspec.ValidationError, UsageError, ValueError) as error:
        notes.append(f"{path}: left out: {error}" + ("" if section == "main" else f"; {OFF}"))
        return False
    if note := _meaning(key, value, new[key], section):
        notes.append(f"{path}: {note}")
    return True


def _checked(key: str, value: Any) -> Any:
    """The value as today's file has it. Raises where it cannot be."""
    if key in ("select", "ignore"):
        compiled(value, key)
    if key == "run":
        parse(value)
    if key == "verbosity":
        level = level_of(value)
        if level is None:
            raise ValueError(f"no level of a log: {value!r}")
        return level
    return value


def _meaning(key: str, old: Any, new: Any, section: str) -> str:
    """What a reader of the old file should know about a key that stays."""
    if old != new and str(old) != str(new):
        return f"{old!r} is {new!r} now"
    if key == "chunck":
        return f"{new} blocks are a page of a plan; further pages follow in the same cycle, each behind the other sites"
    if key == "allow_clean" and new:
        return "an empty site needs a person's --approve as well"
    if key == "pool" and section == "main":
        return f"{new} cycles that the scheduler has open at once; the workers' threads do their work"
    if key == "sleep":
        return f"{new} s between two looks of the scheduler; how often a site is looked at is `every` of its section"
    return ""
