"""What stands in the lists `datasets:` and `schedule:`, and which commands are they?"""

from __future__ import annotations

from typing import Any, TypeVar, get_args, get_origin

import msgspec

from common.errors import InvalidMessage, UsageError
from common.messages import codec
from common.messages.commands import KINDS, Command
from common.settings.model import Dataset, Scheduled
from common.sync.selection import compiled

# What only a person, a plan or the engine may say.
NOT_SCHEDULED = {
    "meta": "the scheduler writes it",
    "v": "the program writes it",
    "approve": "an approval is of one set of removals, once, by a person",
    "approved": "an approval is of one set of removals, once, by a person",
    "removable_until": "only a plan permits removals",
    "files_until": "only a plan permits files to leave their blocks",
    "held_since": "only a plan knows what is held",
    "held_why": "only a plan knows what is held",
    "approved_for": "an approval is of one set of removals, once, by a person",
    "approved_narrowed": "an approval is of one set of removals, once, by a person",
    "controls": "only a plan knows what PhEDEx surely has",
    "after": "only a plan knows where its next page begins",
}
EXPRESSIONS = ("select", "ignore")

Entry = TypeVar("Entry", Dataset, Scheduled)


def datasets_in(content: Any, mistakes: list[str]) -> list[Dataset]:
    """The entries of `datasets:` that are right; every mistake of the others goes to `mistakes`."""
    found = []
    for path, values in _entries("datasets", content, mistakes):
        entry = _entry(path, Dataset, values, mistakes)
        if entry is not None:
            problems = _command_problems(path, "sync.dataset", _fields_of(entry))
            mistakes += problems
            found += [entry] if not problems else []
    return found


def schedule_in(content: Any, mistakes: list[str]) -> list[Scheduled]:
    """The entries of `schedule:` that are right; every mistake of the others goes to `mistakes`."""
    found = []
    for path, values in _entries("schedule", content, mistakes):
        entry = _entry(path, Scheduled, values, mistakes)
        kind, fields = values.get("kind"), values.get("fields", {})
        problems = []
        if isinstance(kind, str) and isinstance(fields, dict):
            problems = _command_problems(f"{path}.fields", kind, fields, unknown_kind=f"{path}.kind")
        mistakes += problems
        found += [entry] if entry is not None and not problems else []
    return found


def command_of(entry: Dataset | Scheduled) -> Command:
    """The command of an entry; raises InvalidMessage."""
    if isinstance(entry, Dataset):
        return codec.build("sync.dataset", _fields_of(entry))
    return codec.build(entry.kind, entry.fields)


def key_of(entry: Dataset | Scheduled) -> str:
    """The name under which an entry is scheduled: its own, else what it is about."""
    if entry.name:
        return entry.name
    if isinstance(entry, Dataset):
        return entry.dataset
    return f"{entry.kind}:{command_of(entry).key}".replace(" ", ",")


def doubled(datasets: list[Dataset], schedule: list[Scheduled], nodes: list[str]) -> list[str]:
    """Entries of one name: the scheduler could not tell them apart."""
    places = [(f"datasets[{i}]", entry) for i, entry in enumerate(datasets)]
    places += [(f"schedule[{i}]", entry) for i, entry in enumerate(schedule)]  # type: ignore[misc]
    seen: dict[str, str] = {node: f"the section {node}" for node in nodes}
    found = []
    for place, entry in places:
        key = key_of(entry)
        if key in seen:
            found.append(f"{place}: {key} is the name of {seen[key]} too: give this one another `name:`")
        seen.setdefault(key, place)
    return found


def _fields_of(entry: Dataset) -> dict[str, Any]:
    """The fields of a `sync.dataset`; what is not set is left out."""
    names = ("dataset", "nodes", "select", "ignore", "dry", "adds_only")
    return {name: value for name in names if (value := getattr(entry, name))}


def _entries(section: str, content: Any, mistakes: list[str]) -> list[tuple[str, dict[Any, Any]]]:
    if content is None:
        return []
    if not isinstance(content, list):
        mistakes.append(f"{section}: not a list of entries (`- {{every: 3600, …}}`)")
        return []
    for number, each in enumerate(content):
        if not isinstance(each, dict):
            mistakes.append(f"{section}[{number}]: not a mapping of keys")
    return [(f"{section}[{number}]", each) for number, each in enumerate(content) if isinstance(each, dict)]


def _entry(path: str, struct: type[Entry], values: dict[Any, Any], mistakes: list[str]) -> Entry | None:
    """The entry, or None and all that is wrong with it."""
    found = _wrong_fields(path, struct, values)
    mistakes += found
    return None if found else msgspec.convert(values, struct)


def _command_problems(path: str, kind: str, fields: dict[Any, Any], unknown_kind: str = "") -> list[str]:
    """All that keeps these fields from being a command of the kind."""
    if kind not in KINDS:
        return [f"{unknown_kind}: unknown kind {kind!r}; known are {', '.join(KINDS)}"]
    problems = [f"{path}.{name}: not for the timetable: {why}" for name, why in NOT_SCHEDULED.items() if name in fields]
    open_to_all = {name: value for name, value in fields.items() if name not in NOT_SCHEDULED}
    problems += _wrong_fields(path, KINDS[kind], open_to_all)
    problems += [text for name in EXPRESSIONS if (text := _bad_expression(path, name, fields.get(name)))]
    return problems or _refused(path, kind, fields)


def _refused(path: str, kind: str, fields: dict[Any, Any]) -> list[str]:
    """What only the whole message shows, such as its size."""
    try:
        codec.build(kind, fields)
    except InvalidMessage as error:
        return [f"{path}.{error}"]
    return []


def _bad_expression(path: str, name: str, value: Any) -> str:
    try:
        compiled(value if isinstance(value, str) else "", f"{path}.{name}")
    except UsageError as error:
        return str(error)
    return ""


def _wrong_fields(path: str, struct: type[Any], values: dict[Any, Any]) -> list[str]:
    """Unknown, missing and wrong fields, all of them."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    known = ", ".join(sorted(set(fields) - NOT_SCHEDULED.keys()))
    found = [f"{path}.{name}: unknown key; known are {known}" for name in values if name not in fields]
    found += [f"{path}.{name}: missing" for name, field in fields.items() if field.required and name not in values]
    for name, value in values.items():
        if name in fields:
            found += _wrong_value(f"{path}.{name}", fields[name].type, value)
    return found


def _wrong_value(path: str, wanted: Any, value: Any) -> list[str]:
    """What is wrong with a value; of a list, each item that is."""
    parts = get_args(wanted)
    listed = wanted if get_origin(wanted) is list else parts[0] if parts and get_origin(parts[0]) is list else None
    if listed is not None and isinstance(value, list) and value:
        item = get_args(listed)[0]
        found = [m for i, each in enumerate(value) for m in _wrong_value(f"{path}[{i}]", item, each)]
        if found:
            return found
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        return [f"{path}: {error}, got {value!r}" if "matching regex" in str(error) else f"{path}: {error}"]
    return []
