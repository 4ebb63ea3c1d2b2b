"""Schedulers as processes on a real broker: who is active, what is sent, what a restart remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.broker import streams
from common.broker.topology import declare
from common.messages.events import Asked, Event
from common.outcome import Outcome
from common.settings.model import Main
from consumers.engine.result import Result
from tests.integration.messaging import all_events, eventually, ready, settings, working

NODES = ("T2_IT_Pisa", "T2_US_MIT", "T2_CH_CERN")
SITES = "".join(f"{node}: {{every: 2}}\n" for node in NODES)
HEARTBEAT = 2

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def main(amqp_url: str) -> Main:
    made = settings(amqp_url)
    declare(made)
    return made


@pytest.fixture
def start(amqp_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a scheduler's process on the file `settings.yaml`; its log goes to `log`."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        env = os.environ | {"AMQP_URL": amqp_url, "PHEDEX_RUCIO_MAIN_HEARTBEAT": str(HEARTBEAT)}
        command = [sys.executable, "-m", "phedex_rucio.main", "scheduler", *arguments]
        with (tmp_path / f"log{len(started)}").open("w") as log:
            process = subprocess.Popen(
                [*command, "--config", str(tmp_path / "settings.yaml")],
                env=env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write(tmp_path: Path, text: str) -> None:
    """The settings, in one step, as a careful editor writes them."""
    (tmp_path / "new").write_text(text)
    (tmp_path / "new").rename(tmp_path / "settings.yaml")


def log_of(tmp_path: Path, number: int) -> str:
    return (tmp_path / f"log{number}").read_text()


def said(tmp_path: Path, number: int, text: str) -> None:
    eventually(lambda: text in log_of(tmp_path, number), f"scheduler {number} says {text!r}")


def asked(events: list[Event]) -> list[str]:
    return [event.cycle for event in events if isinstance(event, Asked)]


def asked_by_now(main: Main) -> list[str]:
    """The cycles that were asked for until now, read until the stream is quiet."""
    with streams.attach(main, "first", "test looks") as stream:
        return asked(list(stream.events(0.5)))


def more_asked(main: Main, number: int) -> list[str]:
    """The cycles, once there are so many more than now."""
    before = len(asked_by_now(main))
    return asked(all_events(main, lambda found: len(asked(found)) >= before + number))


QUICK = "main: {jitter: 0.5, sleep: 1}\n" + SITES


def test_one_is_active_and_the_next_takes_over(
    main: Main, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, QUICK)
    first = start()
    said(tmp_path, 0, "this scheduler holds the lease")
    with working(main, {"sync.site": lambda _command, _world: Result(Outcome.IN_SYNC)}):
        others = [start(), start()]
        for number in (1, 2):
            said(tmp_path, number, "standby: another scheduler is active")
        more_asked(main, 6)
        begun = time.monotonic()
        first.kill()
        active = eventually(
            lambda: [n for n in (1, 2) if "holds the lease" in log_of(tmp_path, n)], "a standby takes over"
        )
        killed = time.monotonic() - begun
        assert len(active) == 1
        more_asked(main, 3)
        frozen, last = others[active[0] - 1], others[2 - active[0]]
        begun = time.monotonic()
        frozen.send_signal(signal.SIGSTOP)
        said(tmp_path, 3 - active[0], "this scheduler holds the lease")
        stopped = time.monotonic() - begun
        frozen.send_signal(signal.SIGCONT)
        said(tmp_path, active[0], "the lease is lost with its connection")
        said(tmp_path, active[0], "standby: another scheduler is active")
        cycles = more_asked(main, 6)
        begun = time.monotonic()
        last.send_signal(signal.SIGTERM)
        assert last.wait(10) == 0
        ended = time.monotonic() - begun
    assert {name: number for name, number in Counter(cycles).items() if number > 1} == {}
    assert {cycle.partition("@")[0] for cycle in cycles} == set(NODES)
    with capsys.disabled():
        print(f"\ntakeover after kill -9: {killed:.1f} s; after SIGSTOP, heartbeat {HEARTBEAT} s: {stopped:.1f} s;")
        print(f"SIGTERM to exit: {ended:.1f} s; {len(cycles)} cycles, 0 of them asked for twice")


def test_nobody_works_so_nothing_piles_up_and_a_restart_remembers(main: Main, start: Start, tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    first = start()
    eventually(lambda: len(asked_by_now(main)) == 3, "three are asked for")
    first.kill()
    start()
    said(tmp_path, 1, "this scheduler holds the lease")
    assert start("--once").wait(30) == 0  # another one is active: nothing to do
    again = start("--dry-run")
    shown, _ = again.communicate(timeout=30)
    assert again.returncode == 0
    assert shown.count("is open") == 3
    # What was only announced may be sent a second time under the same name: never as another cycle.
    assert len(set(asked_by_now(main))) == 3
    assert 3 <= ready(main, "sync.site") <= 6


def test_settings_that_change_while_it_runs(main: Main, start: Start, tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    process = start()
    with working(main, {"sync.site": lambda _command, _world: Result(Outcome.IN_SYNC)}):
        more_asked(main, 3)
        write(tmp_path, "main: {pool: none}\nPisa: {}\n")
        said(tmp_path, 0, "the settings file is wrong, the last good one stays in force")
        said(tmp_path, 0, "main.pool: Expected `int`, got `str`")
        more_asked(main, 3)
        write(tmp_path, QUICK.replace("jitter", "threads: 9, run: false, jitter"))
        assert process.wait(30) == 0
        said(tmp_path, 0, "main.run is False: nothing new is planned")
        said(tmp_path, 0, "main.threads")
        assert log_of(tmp_path, 0).count("the settings file is wrong") == 1


def test_mistakes_at_the_start_and_one_round_for_cron(main: Main, start: Start, tmp_path: Path) -> None:
    write(tmp_path, "main: {pool: none, run: sometimes}\nPisa: {}\n")
    assert start().wait(30) == 2
    for text in ("main.pool: ", "main.run: 'sometimes'", "Pisa: neither `main`"):
        assert text in log_of(tmp_path, 0)
    write(tmp_path, "main: {pool: 2}\n" + SITES + "T2_DE_DESY: {run: false}\n")
    assert start("--once").wait(30) == 0
    assert len(asked_by_now(main)) == 2
    assert start("--once").wait(30) == 0  # the pool is full
    assert len(set(asked_by_now(main))) == 2


def test_a_broker_that_is_away_is_waited_for(broker: object, main: Main, start: Start, tmp_path: Path) -> None:
    write(tmp_path, QUICK)
    start()
    with working(main, {"sync.site": lambda _command, _world: Result(Outcome.IN_SYNC)}):
        more_asked(main, 3)
        broker.kill()  # type: ignore[attr-defined]
        said(tmp_path, 0, "broker away")
        broker.heal()  # type: ignore[attr-defined]
        more_asked(main, 3)
