"""How is any command sent by hand, field by field?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import msgspec

from common.errors import UsageError
from common.messages.codec import as_dict, build
from common.messages.commands import KINDS, Command, SyncBlocks
from common.settings.load import Loaded
from phedex_rucio import broker, output
from phedex_rucio.options import as_json, pairs, with_settings
from phedex_rucio.roots import rooted

# What only a plan may say of a batch, and what stands in its place.
PERMISSIONS: dict[str, Any] = {
    "removable_until": None,
    "files_until": None,
    "held_since": None,
    "held_why": "",
    "approved": "",
}


@click.command("send")
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.option("--field", "fields", multiple=True, metavar="NAME=VALUE", help="A field; JSON where it is, else text.")
@click.option("--dry-run", is_flag=True, help="Print the message instead of sending it.")
@as_json
@with_settings
def command(kind: str, fields: tuple[str, ...], dry_run: bool, as_json: bool, loaded: Loaded) -> None:
    """Send a command of any KIND.

    A dotted name reaches into meta: --field meta.lane=bulk. What is wrong is said with the field's name.
    """
    named = parse_fields(fields)
    built = harmless(build(kind, named))
    message = rooted(built, built.meta.lane if "lane" in named.get("meta", {}) else "now")
    if dry_run:
        output.show_json(as_dict(message))
        return
    broker.declare(loaded.settings.main)
    broker.publish(loaded.settings.main, [message])
    output.say(message.meta.cycle) if not as_json else output.show_json({"cycle": message.meta.cycle})


def harmless(command: Command) -> Command:
    """The command without a permission to remove: only a plan gives one, never a person's hand."""
    if not isinstance(command, SyncBlocks):
        return command
    given = [name for name in PERMISSIONS if getattr(command, name)]
    for name in given:
        output.note(f"{name}: cleared; only a plan permits removals")
    return msgspec.structs.replace(command, **{name: PERMISSIONS[name] for name in given})


def parse_fields(texts: Iterable[str]) -> dict[str, Any]:
    """`["limit=5", "meta.lane=now"]` → `{"limit": 5, "meta": {"lane": "now"}}`; raises UsageError."""
    fields: dict[str, Any] = {}
    for path, value in pairs("--field", texts, "NAME=VALUE"):
        _put(fields, path, _value(value))
    return fields


def _put(fields: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
        if not isinstance(fields, dict):
            raise UsageError(f"--field {path}: {parent} has a value already and can have no part")
    if name in fields:
        raise UsageError(f"--field {path}: given twice")
    fields[name] = value


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
