"""What happens to messages when a worker's process is killed, or asked to end?"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common import cycles
from common.broker import streams
from common.broker.roots import send
from common.broker.topology import declare
from common.messages.events import Event
from common.outcome import Outcome
from common.settings.model import Main
from tests.integration.engine.process import CHILDREN
from tests.integration.messaging import (
    all_events,
    blocks,
    closed,
    eventually,
    letters,
    plain,
    publishing,
    ready,
    settings,
    site,
)

ROOT = Path(__file__).parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(amqp_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker's process for a scenario."""
    started: list[subprocess.Popen[str]] = []

    def start(scenario: str, grace: float = 10) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.integration.engine.process", amqp_url, scenario, str(tmp_path / "mark")]
        process = subprocess.Popen(
            [*command, str(grace)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def begun(process: "subprocess.Popen[str]") -> str:
    """The id of the next command that a handler of the process begins."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("begun "), f"the worker ended with {process.poll()}"
    return line.split()[1]


@pytest.mark.parametrize("point", ["handle", "children", "closed", "ack"])
def test_killed_anywhere_the_cycle_still_ends(amqp_url: str, start: Start, point: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        (root,) = send(publisher, [site()])
    assert start(point).wait(30) == -signal.SIGKILL
    start(point)
    events = all_events(main, lambda found: _cycle(found, root.meta.id).finished)
    cycle = _cycle(events, root.meta.id)
    # Killed between the event and the acknowledgement, both executions have announced their children.
    assert len(cycle.announced) == (2 if point == "ack" else 1) * CHILDREN
    eventually(lambda: ready(main, "sync.site") == ready(main, "sync.blocks") == 0, "the queues are empty")


def test_asked_to_end_under_load_it_ends_in_order_and_loses_nothing(amqp_url: str, start: Start) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        sent = send(publisher, [blocks(n) for n in range(400)])
    for _ in range(5):
        process = start("slow")
        begun(process)
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    start("slow")
    events = all_events(main, lambda found: len({e.id for e in closed(found)}) == len(sent))
    assert sorted(event.id for event in closed(events)) == sorted(command.meta.id for command in sent)
    assert {event.attempt for event in closed(events)} == {1}


def test_a_handler_that_does_not_stop_is_left_after_the_grace_period(amqp_url: str, start: Start) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        (sent,) = send(publisher, [blocks(1)])
    process = start("stuck", grace=1)
    assert begun(process) == sent.meta.id
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    eventually(lambda: ready(main, "sync.blocks") == 1, "the message is back")
    assert [plain(body)["meta"]["id"] for body, _ in letters(main, "sync.blocks")] == [sent.meta.id]


def test_a_second_signal_ends_it_at_once(amqp_url: str, start: Start) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        send(publisher, [blocks(1)])
    process = start("stuck", grace=600)
    begun(process)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "told to stop\n"  # two signals at once would be one
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 1
    eventually(lambda: ready(main, "sync.blocks") == 1, "the message is back")


def test_what_kills_its_workers_dies_alone_and_its_neighbours_live(amqp_url: str, start: Start) -> None:
    """As often as the broker delivers it, then once alone; the neighbours are handled, whatever was in hand."""
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        poison, *good = send(publisher, [blocks(n) for n in (666, 1, 2, 3, 4)])
    events: list[Event] = []
    for _ in range(30):
        process = start("poison", grace=1)
        _until_death_or(process, lambda: _all_closed(main, events, 5))
        if process.poll() is None:
            break
    outcomes = {event.id: event for event in closed(events)}
    assert {outcomes[command.meta.id].outcome for command in good} == {Outcome.CHANGED}
    dead = outcomes[poison.meta.id]
    assert (dead.outcome, dead.error and dead.error.class_) == (Outcome.DEAD, "KilledWorker")
    ((body, _),) = letters(main, "sync.blocks.dead")
    assert plain(body)["meta"]["killed"] == 1
    assert ready(main, "sync.killed") == ready(main, "sync.blocks") == 0


def _until_death_or(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    eventually(lambda: process.poll() is not None or ready(), "the worker's death, or the end", 60)


def _all_closed(main: Main, events: list[Event], number: int) -> bool:
    with streams.attach(main, "first") as stream:
        events[:] = stream.events(0.2)
    return len({event.id for event in closed(events)}) == number


def _cycle(events: list[Event], root: str) -> cycles.Cycle:
    state = cycles.Cycles()
    for event in events:
        cycles.apply(state, event)
    return state.by_name.get(root, cycles.Cycle(root=root))
