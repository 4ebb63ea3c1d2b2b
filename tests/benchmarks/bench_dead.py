"""How long do operations on many dead letters take, and in how much memory? `pytest -s tests/benchmarks/bench_dead.py`.

Each operation is a process of its own, as an operator starts it; its greatest memory is what the kernel says.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.broker.dead_letters import PREFETCH, look
from common.broker.publisher import command_message
from common.broker.topology import dead_name, declare
from common.messages.commands import with_meta
from common.messages.meta import Failure, Meta, now
from common.settings.model import Main
from tests.acceptance.command import PROGRAM
from tests.integration.messaging import blocks, publishing, settings

pytestmark = pytest.mark.benchmark
QUEUE = dead_name("sync.blocks")
SOME, MANY = 10_000, 100_000  # the second is more than one consumer can hold


def lay(main: Main, number: int) -> None:
    declare(main)
    errors = [Failure(class_="RucioConflict", message="x" * 120, at=now(), traceback="y" * 300) for _ in range(2)]
    with publishing(main) as publisher:
        publisher.publish(
            command_message(with_meta(blocks(n), Meta(id=f"id{n}", cycle="c", attempt=6, errors=errors)), "", QUEUE)
            for n in range(number)
        )


def measured(main: Main, *arguments: str, output: Path) -> tuple[float, float, str]:
    """Seconds, MiB at most, and what it wrote; fails if it failed."""
    command = [*PROGRAM, "dead", *arguments]
    begun = time.perf_counter()
    pid = _start(command, os.environ | {"AMQP_URL": main.amqp_url}, output)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begun
    assert os.waitstatus_to_exitcode(status) == 0, output.read_text()
    return seconds, usage.ru_maxrss / 1024, output.read_text()


def _start(command: Sequence[str], environment: dict[str, str], output: Path) -> int:
    to_file = (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.posix_spawn(sys.executable, command, environment, file_actions=[to_file])


@pytest.mark.timeout(900)
def test_ten_thousand(amqp_url: str, tmp_path: Path) -> None:
    main, output = settings(amqp_url), tmp_path / "output"
    lay(main, SOME)
    operations: dict[str, tuple[str, ...]] = {
        "list": ("list",),
        "filter": ("list", "--node", "^T1", "--error", "Conf.*x$"),
        "replay a tenth": ("replay", *(f"id{n}" for n in range(0, SOME, 10))),
        "replay": ("replay", "--all"),
    }
    for name, arguments in operations.items():
        seconds, memory, _ = measured(main, *arguments, output=output)
        print(f"\n{SOME:,} letters: {name} {seconds:.1f} s, {memory:.0f} MiB")
    lay(main, SOME)
    seconds, memory, _ = measured(main, "drop", "--all", "--yes", "--to", str(tmp_path / "l.jsonl"), output=output)
    print(f"\n{SOME:,} letters: drop to a file {seconds:.1f} s, {memory:.0f} MiB")
    seconds, memory, _ = measured(main, "load", str(tmp_path / "l.jsonl"), output=output)
    print(f"\n{SOME:,} letters: load {seconds:.1f} s, {memory:.0f} MiB")


@pytest.mark.timeout(900)
def test_more_than_one_consumer_can_hold(amqp_url: str, tmp_path: Path) -> None:
    main, output = settings(amqp_url), tmp_path / "output"
    assert MANY > PREFETCH
    lay(main, MANY)
    for _ in range(3):
        seconds, memory, text = measured(main, "list", "--json", output=output)
        assert json.loads(text)["match"] == MANY
        print(f"\n{MANY:,} letters: list {seconds:.1f} s, {memory:.0f} MiB")
    with look(main, QUEUE) as view:
        assert [letter.message_id for letter in view.letters()] == [f"id{n}" for n in range(MANY)]
    seconds, memory, _ = measured(main, "replay", "--all", output=output)
    print(f"\n{MANY:,} letters: replay {seconds:.1f} s, {memory:.0f} MiB")
    with look(main, QUEUE) as view:
        assert view.count == 0
    assert _in_order(main) == [f"id{n}" for n in range(MANY)]


def _in_order(main: Main) -> list[str]:
    with look(main, "sync.blocks.now") as view:
        return [letter.message_id for letter in view.letters()]
