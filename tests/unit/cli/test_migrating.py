"""Every new command line of docs/migrating.md is one that there is, with the options that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from phedex_rucio.main import cli

DOCUMENT = Path(__file__).parents[3] / "docs/migrating.md"


def lines() -> Iterator[str]:
    """The words in backquotes that begin with `PR`, which stands for phedex-rucio."""
    for found in re.findall(r"`PR ([^`]+)`", DOCUMENT.read_text()):
        yield re.sub(r"[\[\]…]", " ", found)


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and what is left of them."""
    found: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(found, click.Group) and (inner := found.get_command(context, words[0])) is not None:
        found, words = inner, words[1:]
    return found, words


@pytest.mark.parametrize("line", sorted(set(lines())))
def test_the_command_and_its_options_exist(line: str) -> None:
    command, rest = resolved(line.split())
    assert not isinstance(command, click.Group), f"{line}: no command"
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in rest if word.startswith("-")} <= known


def test_they_are_many() -> None:
    assert len(set(lines())) > 20
