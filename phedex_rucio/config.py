"""What is configured, where does it come from, and is a file right?"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import yaml

from common.settings import original
from common.settings.load import Loaded, load, of_document
from common.settings.read_yaml import read_yaml
from common.settings.shown import lines
from phedex_rucio import output
from phedex_rucio.options import as_json, with_settings


@click.group("config")
def command() -> None:
    """Show the settings and where they come from; check or convert a file."""


@command.command("show")
@as_json
@with_settings
def show(as_json: bool, loaded: Loaded) -> None:
    """Every setting in force with its origin: default, file, a variable's name, or flag. Secrets are hidden."""
    found = lines(loaded)
    if as_json:
        output.show_json({line.path: {"value": line.value, "from": line.origin} for line in found})
        return
    output.show_table(("SETTING", "VALUE", "FROM"), [(line.path, _shown(line.value), line.origin) for line in found])


@command.command("convert")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def convert(file: Path) -> None:
    """Write today's form of a settings FILE of the original service (synccmssites.yaml), with what became of each key.

    What is written passes `config check`. Exit code 2 where the file is none of that service.
    """
    new, notes = original.convert(read_yaml(file))
    of_document(new, file, environ={})
    for note in notes:
        output.say(f"# {' '.join(note.split())}")
    output.say(yaml.safe_dump(new, sort_keys=False, default_flow_style=False).rstrip())
    output.note(f"{len(notes)} notes stand at the top as comments: look through them.")


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path) -> None:
    """Check a settings FILE alone, without the environment; every mistake is listed, exit code 2."""
    settings = load(file, environ={}).settings
    output.say(f"{file}: right; main, default and {len(settings.sites)} sites")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
