"""What tests with a real broker share: settings with short times, messages to look at, a worker in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from common.broker import single, streams, topology
from common.broker.connection import Connection, blocking
from common.broker.publisher import Outgoing, Publisher
from common.errors import System
from common.messages.commands import SyncBlocks, SyncSite
from common.messages.events import Closed, Event
from common.settings.model import Main
from consumers.engine.execute import Handler
from consumers.engine.worker import Worker

NODE = "T2_IT_Pisa"
LIMIT = 120.0  # seconds after which something that should have come is missing, on a busy machine too


def settings(url: str, **changes: Any) -> Main:
    """Settings for a test: the waits and pauses of seconds, not of hours."""
    short: dict[str, Any] = {
        "wait_delays": [0.5, 1.0],
        "attempts": 3,
        "grace": 10,
        "confirm_timeout": 5,
        "probe_pause": 0.1,
        "probe_pause_max": 0.2,
    }
    return Main(amqp_url=url, **(short | changes))


def blocks(number: int, **changes: Any) -> SyncBlocks:
    return SyncBlocks(node=NODE, blocks=[f"/Primary/Processed/RAW#{number}"], **changes)


def site(**changes: Any) -> SyncSite:
    return SyncSite(node=NODE, **changes)


def raw(body: bytes, queue: str = "sync.blocks", message_id: str = "") -> Outgoing:
    """A message as a stranger might write it."""
    return Outgoing(topology.COMMANDS, queue, body, message_id)


@contextmanager
def publishing(main: Main) -> Iterator[Publisher]:
    connection = Connection(main, "test publishes")
    try:
        connection.wait_open()
        yield Publisher(connection)
    finally:
        connection.close()


def eventually(check: Callable[[], Any], what: str, timeout: float = LIMIT) -> Any:
    """What `check` gives once it is true; fails if that does not come."""
    end = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < end, f"{what}: not within {timeout:g} s"
        time.sleep(0.02)
    return found


def ready(main: Main, queue: str) -> int:
    """How many messages lie in a queue."""
    return single.count(main, queue)


def letters(main: Main, queue: str) -> list[tuple[bytes, Any]]:
    """Bodies and properties of the messages in a queue; they stay there."""
    with blocking(main, "test looks") as connection:
        channel = connection.channel()
        found = []
        while (taken := channel.basic_get(queue))[0] is not None:
            found.append((taken[2], taken[1]))
        return found


def lost(main: Main, queue: str) -> bool:
    """A consumer had a message and lost its connection, which counts as a delivery; False if there was none."""
    with blocking(main, "test loses") as connection:
        method, _, _ = connection.channel().basic_get(queue)
        return method is not None


def plain(body: bytes) -> Any:
    return msgspec.json.decode(body)


def all_events(main: Main, enough: Callable[[list[Event]], bool], timeout: float = LIMIT) -> list[Event]:
    """The events from the first on, until they are enough; fails if they never are."""
    found: list[Event] = []
    end = time.monotonic() + timeout
    with streams.attach(main, "first", "test events") as stream:
        while not enough(found):
            assert time.monotonic() < end, f"not enough within {timeout:g} s: {found}"
            found.extend(event for event in stream.until(time.monotonic() + 0.1) if event is not None)
    return found


def closed(events: list[Event]) -> list[Closed]:
    return [event for event in events if isinstance(event, Closed)]


@dataclass
class Running:
    """A worker that runs in a thread; `settled` is what its `run` gave."""

    worker: Worker
    thread: threading.Thread
    settled: list[bool] = field(default_factory=list)

    def stop(self) -> bool:
        """Ended in order; True if all in hand was settled."""
        self.worker.stop()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive(), "the worker does not end"
        return self.settled[0]


@contextmanager
def working(
    main: Main,
    handlers: dict[str, Handler],
    threads: int = 4,
    probes: dict[System, Callable[[], None]] | None = None,
    name: str = "w1",
) -> Iterator[Running]:
    """A worker for the kinds that have a handler; ended with the block."""
    worker = Worker(main, list(handlers), threads, handlers, lambda checkpoint: checkpoint, probes or {}, name)  # type: ignore[arg-type,return-value]
    running = Running(worker, threading.Thread())
    running.thread = threading.Thread(target=lambda: running.settled.append(worker.run()), name="worker")
    running.thread.start()
    try:
        yield running
    finally:
        if running.thread.is_alive():
            running.worker.stop()
            running.worker.stop()
            running.thread.join(LIMIT)


class Seen:
    """Which commands a handler was given, in order; safe to fill from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[Any] = []

    def add(self, item: Any) -> int:
        """How many there are now."""
        with self._lock:
            self._items.append(item)
            return len(self._items)

    @property
    def all(self) -> list[Any]:
        with self._lock:
            return list(self._items)
