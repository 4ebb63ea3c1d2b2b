"""What happens to messages when a worker's process is killed, or asked to end?"""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from common import cycles
from common.broker import streams
from common.broker.connection import blocking
from common.broker.roots import send
from common.broker.topology import declare, topology
from common.messages.events import Event
from common.outcome import Outcome
from common.settings.model import Main
from tests.integration.engine.process import CHILDREN
from tests.integration.messaging import (
    LIMIT,
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
from tests.stack.processes import free_ports, setpriv

ROOT = Path(__file__).parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(amqp_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker's process for a scenario."""
    started: list[subprocess.Popen[str]] = []

    def start(scenario: str, grace: float = 10, port: int = 0) -> "subprocess.Popen[str]":
        program = [*setpriv(None), sys.executable, "-m", "tests.integration.engine.process"]
        process = subprocess.Popen(
            [*program, amqp_url, scenario, str(tmp_path / "mark"), str(grace), str(port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
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
    assert start(point).wait(LIMIT) == -signal.SIGKILL
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
        assert process.wait(LIMIT) == 0
    start("slow")
    events = all_events(main, lambda found: len({e.id for e in closed(found)}) == len(sent))
    assert sorted(event.id for event in closed(events)) == sorted(command.meta.id for command in sent)
    assert {event.attempt for event in closed(events)} == {1}


def test_a_handler_that_hangs_is_told_and_a_restart_loses_nothing(amqp_url: str, start: Start) -> None:
    """A liveness probe sees it and asks the process to end; its message is left after the grace period."""
    main, port = settings(amqp_url), free_ports(1)
    declare(main)
    with publishing(main) as publisher:
        (sent,) = send(publisher, [blocks(1)])
    process = start("stuck", grace=1, port=port)
    assert begun(process) == sent.meta.id
    told = eventually(lambda: _failing(port).get("handlers", "ok") != "ok" and _failing(port), "/healthz tells it")
    assert told.pop("handlers").startswith(f"sync.blocks {sent.key} took no step for ")
    assert set(told.values()) == {"ok"}
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 1
    eventually(lambda: ready(main, "sync.blocks") == 1, "the message is back")
    start("slow")
    (event,) = closed(all_events(main, closed))
    assert (event.id, event.attempt) == (sent.meta.id, 1)


def _failing(port: int) -> dict[str, str]:
    """What /healthz says of each part if it says 503; nothing if it says 200."""
    answer = requests.get(f"http://127.0.0.1:{port}/healthz", timeout=LIMIT)
    assert answer.status_code in (200, 503)
    return answer.json()["parts"] if answer.status_code == 503 else {}


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
    assert process.wait(LIMIT) == 1
    eventually(lambda: ready(main, "sync.blocks") == 1, "the message is back")


def test_what_kills_its_workers_dies_alone_and_its_neighbours_live(amqp_url: str, start: Start) -> None:
    """As often as the broker delivers it, then once alone; the neighbours are handled, whatever was in hand.

    That is three times here and not `DELIVERY_LIMIT`: each takes a new process. That the broker counts up to the real
    one is tested in `test_newer_brokers.py`.
    """
    main = settings(amqp_url)
    _declare_with_limit(main, "sync.blocks", 3)
    declare(main)
    with publishing(main) as publisher:
        poison, *good = send(publisher, [blocks(n) for n in (666, 1, 2, 3, 4)])
    events: list[Event] = []
    deaths = 0
    while not _all_closed(main, events, 5):
        process = start("poison", grace=1)
        _until_death_or(process, lambda: _all_closed(main, events, 5))
        deaths += process.poll() is not None
        assert deaths <= 5
    assert deaths >= 4
    outcomes = {event.id: event for event in closed(events)}
    assert {outcomes[command.meta.id].outcome for command in good} == {Outcome.CHANGED}
    dead = outcomes[poison.meta.id]
    assert (dead.outcome, dead.error and dead.error.class_) == (Outcome.DEAD, "KilledWorker")
    ((body, _),) = letters(main, "sync.blocks.dead")
    assert plain(body)["meta"]["killed"] == 1
    assert ready(main, "sync.killed") == ready(main, "sync.blocks") == 0


def _declare_with_limit(main: Main, name: str, limit: int) -> None:
    queue = next(queue for queue in topology(main).queues if queue.name == name)
    with blocking(main, "test declares") as connection:
        arguments = queue.arguments | {"x-delivery-limit": limit}
        connection.channel().queue_declare(name, durable=True, arguments=arguments)


def _until_death_or(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    eventually(lambda: process.poll() is not None or ready(), "the worker's death, or the end")


def _all_closed(main: Main, events: list[Event], number: int) -> bool:
    with streams.attach(main, "first") as stream:
        events[:] = stream.events(0.2)
    return len({event.id for event in closed(events)}) == number


def _cycle(events: list[Event], root: str) -> cycles.Cycle:
    state = cycles.Cycles()
    for event in events:
        cycles.apply(state, event)
    return state.by_name.get(root, cycles.Cycle(root=root))
