"""The examples of docs/migrating.md are true: each is run as it stands there, on recorded nodes and an empty Rucio."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from datasvc import recording
from datasvc.serve import running
from phedex_rucio.main import cli
from tests.stack.rucio_server import RucioServer
from tests.stack.world import client_environment

ROOT = Path(__file__).parents[2]
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
PROMPT = "$ phedex-rucio "


class Example(NamedTuple):
    """A command line, and lines of what it prints, in order."""

    line: str
    prints: list[str]


def examples() -> Iterator[Example]:
    """The lines after a prompt in `console` blocks; below each, what it prints. `#` begins a comment."""
    text = "\n".join(CONSOLE.findall((ROOT / "docs/migrating.md").read_text()))
    for part in text.split(f"\n{PROMPT}")[1:]:
        line, *rest = part.splitlines()
        yield Example(line, [_bare(each) for each in rest if each.strip() and not each.startswith("#")])


def _bare(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def empty(clean_rucio: RucioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty Rucio, PhEDEx with the recorded nodes, and a folder with somebody's old settings."""
    recording.load(tmp_path / "phedex.sqlite")
    (tmp_path / "synccmssites.yaml").write_text((ROOT / "tests/unit/settings/synccmssites.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with running(tmp_path / "phedex.sqlite") as url, client_environment(clean_rucio):
        monkeypatch.setenv("PHEDEX_URL", url)
        yield


def test_the_examples_do_what_they_say(empty: None) -> None:
    """In one process: what a process of its own adds for each line is what the other acceptance tests are for."""
    found = list(examples())
    assert len(found) > 20
    for example in found:
        result = CliRunner().invoke(cli, shlex.split(example.line))
        assert (result.exit_code, result.exception) == (0, None), f"{example.line}\n{result.output}"
        printed = iter(_bare(line) for line in result.output.splitlines())
        for line in example.prints:
            assert line in printed, f"{example.line}\nprints no (or not then): {line}\n{result.output[:2000]}"
