"""What killed its workers runs once more, alone, and a copy of it comes back if that worker dies too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from common.broker.consumer import Delivery
from common.broker.publisher import Outgoing
from common.broker.single import Taken
from common.errors import BrokerAway, BrokerBlocked, BrokerError
from common.messages import codec
from common.messages.commands import Command, SyncBlocks
from common.messages.events import Closed, Retrying
from common.messages.meta import Meta
from common.outcome import Outcome
from common.settings.model import Main
from consumers.engine import execute, killed
from consumers.engine.execute import Doors
from consumers.engine.health import DeadRun
from consumers.engine.outgoing import Context
from consumers.engine.probe import Outages
from consumers.engine.result import Result

MAIN = Main(deadline=600, grace=30, wait_delays=[30, 300], attempts=6)
COMMAND = SyncBlocks(node="T2_IT_Pisa", blocks=["/A/B-v1/AOD#1"], meta=Meta(id="c/1", cycle="c", attempt=2))
QUEUE = "sync.blocks.now"


@dataclass
class Broker:
    """`sync.killed`, the queues of the copies, and what was published; `told` is the order in which it all happened.

    It stands where `single` and a Publisher stand. What a real broker does with it, tests with a broker show.
    """

    lies: list[bytes] = field(default_factory=list)
    held: dict[str, tuple[float, str, str]] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    published: list[Outgoing] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    publish_fails: list[BrokerError] = field(default_factory=list)
    drop_fails: list[BrokerError] = field(default_factory=list)

    def count(self, _main: Main, queue: str) -> int:
        return len(self.lies) if queue == "sync.killed" else 0

    @contextmanager
    def taken(self, _main: Main, queue: str) -> Iterator[Taken | None]:
        assert queue == "sync.killed"
        yield Taken(QUEUE, self.lies[0], "m1", self._ack) if self.lies else None
        self.told.append("put down")

    def _ack(self) -> None:
        self.told.append("acknowledged")
        self.lies.pop(0)

    def hold(self, _main: Main, name: str, seconds: float, exchange: str, routing_key: str) -> None:
        self.held[name] = (seconds, exchange, routing_key)
        self.told.append("a queue")

    def drop(self, _main: Main, name: str) -> None:
        if self.drop_fails:
            raise self.drop_fails.pop(0)
        self.dropped.append(name)
        self.told.append("dropped")

    def publish(self, messages: Iterable[Outgoing]) -> int:
        if self.publish_fails:
            raise self.publish_fails.pop(0)
        new = list(messages)
        self.published += new
        self.told += [f"to {message.place}" for message in new]
        return len(new)


@pytest.fixture
def rabbit(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker([codec.encode(COMMAND)])
    monkeypatch.setattr(killed, "single", made)
    monkeypatch.setattr(execute, "SETTLE_PAUSE", 0.001)
    return made


class NoSource:
    """The consumer: what is run alone did not come from it."""

    def ack(self, _delivery: Delivery) -> None:
        raise AssertionError("acknowledged to the consumer")

    def is_lost(self, _delivery: Delivery) -> bool:
        raise AssertionError("asked of the consumer")


def serve(rabbit: Broker, handle: Callable[[Command], Result] | None = None) -> list[Command]:
    """One message is served; what was handled."""
    handled: list[Command] = []

    def handler(command: Command, _world: object) -> Result:
        rabbit.told.append("handled")
        handled.append(command)
        return handle(command) if handle else Result(Outcome.CHANGED)

    doors = Doors(
        context=Context(MAIN, "w"),
        publisher=rabbit,  # type: ignore[arg-type]
        source=NoSource(),
        handlers={"sync.blocks": handler},
        world_factory=lambda _checkpoint: None,  # type: ignore[arg-type,return-value]
        outages=Outages({}, MAIN, lambda _change: None),
        dead_run=DeadRun(),
        draining=threading.Event(),
        leaving=threading.Event(),
    )
    killed.serve_one(doors)
    return handled


def events(rabbit: Broker) -> list[object]:
    return [codec.decode_event(m.body) for m in rabbit.published if m.exchange == "sync.events"]


def test_it_is_waited_for_as_soon_as_there_is_one(rabbit: Broker) -> None:
    before = killed.is_waiting(MAIN)
    rabbit.lies.clear()
    assert (before, killed.is_waiting(MAIN)) == (True, False)


def test_without_a_message_nothing_happens(rabbit: Broker) -> None:
    rabbit.lies.clear()
    assert serve(rabbit) == []
    assert rabbit.told == ["put down"]


def test_a_copy_is_confirmed_before_it_runs_and_dropped_once_it_ended(rabbit: Broker) -> None:
    (handled,) = serve(rabbit)
    (private,) = rabbit.held
    assert rabbit.told == [
        "a queue",
        f"to queue {private}",
        "acknowledged",
        "put down",
        "handled",
        "to sync.events closed",
        "dropped",
    ]
    assert rabbit.dropped == [private]
    assert handled == replace(COMMAND, meta=replace(COMMAND.meta, killed=1, lane="now"))
    (closed,) = events(rabbit)
    assert isinstance(closed, Closed)
    assert (closed.id, closed.outcome) == ("c/1", Outcome.CHANGED)


def test_the_copy_comes_back_to_where_it_lay_after_more_than_the_longest_execution(rabbit: Broker) -> None:
    """The deadline is looked at between two steps, and a drain gives the last one its grace: twice both is more."""
    serve(rabbit)
    ((private, held),) = rabbit.held.items()
    assert private.startswith("sync.killed.")
    assert held == (2 * (600 + 30), "sync.killed", QUEUE)
    copy = rabbit.published[0]
    assert (copy.exchange, copy.routing_key, copy.message_id) == ("", private, "c/1")
    assert codec.decode(copy.body).meta.killed == 1


def test_each_has_a_queue_of_its_own(rabbit: Broker) -> None:
    serve(rabbit)
    rabbit.lies.append(codec.encode(COMMAND))
    serve(rabbit)
    assert len(rabbit.held) == 2


def test_what_had_its_chance_is_a_dead_letter(rabbit: Broker) -> None:
    """And at once, whatever number its attempt has."""
    had = replace(COMMAND, meta=replace(COMMAND.meta, killed=1))
    rabbit.lies[:] = [codec.encode(had)]
    assert serve(rabbit) == []
    assert rabbit.held == {}
    assert rabbit.told == ["to queue sync.blocks.dead", "to sync.events closed", "acknowledged", "put down"]
    letter = codec.decode(rabbit.published[0].body)
    assert (letter.meta.id, letter.meta.attempt, letter.meta.killed) == ("c/1", 2, 1)
    assert letter.meta.errors[-1].class_ == "KilledWorker"
    assert letter.meta.errors[-1].message.startswith("T2_IT_Pisa /A/B-v1/AOD#1: its worker died each time")
    (closed,) = events(rabbit)
    assert isinstance(closed, Closed)
    assert (closed.outcome, closed.seconds, closed.worker) == (Outcome.DEAD, 0.0, "w")


def test_what_is_no_command_is_a_dead_letter_as_it_is(rabbit: Broker) -> None:
    rabbit.lies[:] = [b'{"kind": "sync.blocks"}']
    assert serve(rabbit) == []
    assert rabbit.told == ["to queue sync.blocks.dead", "to sync.events closed", "acknowledged", "put down"]
    assert rabbit.published[0].body == b'{"kind": "sync.blocks"}'
    assert rabbit.published[0].message_id == "m1"
    assert rabbit.lies == []


def test_what_is_newer_waits_for_the_upgrade(rabbit: Broker) -> None:
    rabbit.lies[:] = [b'{"kind": "sync.blocks", "v": 99, "news": true}']
    assert serve(rabbit) == []
    assert rabbit.told == [f"to sync.wait.30s {QUEUE}", "to sync.events retrying", "acknowledged", "put down"]
    (retrying,) = events(rabbit)
    assert isinstance(retrying, Retrying)
    assert (retrying.id, retrying.attempt) == ("m1", 1)


def test_what_is_newer_waits_longest_in_the_last_queue(rabbit: Broker) -> None:
    rabbit.lies[:] = [b'{"kind": "sync.blocks", "v": 99, "meta": {"attempt": 5}}']
    serve(rabbit)
    assert rabbit.published[0].exchange == "sync.wait.5m"


def test_nothing_is_acknowledged_or_run_without_a_confirmed_copy(rabbit: Broker) -> None:
    rabbit.publish_fails = [BrokerBlocked("no confirm")]
    with pytest.raises(BrokerBlocked):
        serve(rabbit)
    assert rabbit.told == ["a queue"]
    assert len(rabbit.lies) == 1


def test_a_broker_that_blocks_at_the_end_is_waited_for(rabbit: Broker) -> None:
    """The message is not lost with a channel: it was acknowledged, and nobody brings it again."""

    def handle(_command: Command) -> Result:
        rabbit.publish_fails = [BrokerBlocked("an alarm"), BrokerBlocked("an alarm")]
        return Result(Outcome.IN_SYNC)

    serve(rabbit, handle)
    assert rabbit.told[-2:] == ["to sync.events closed", "dropped"]
    assert len(events(rabbit)) == 1


def test_a_copy_that_could_not_be_dropped_is_told_and_no_error(
    rabbit: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    rabbit.drop_fails = [BrokerAway("gone")]
    serve(rabbit)
    assert rabbit.dropped == []
    assert len(events(rabbit)) == 1
    assert [r.getMessage() for r in caplog.records if "copy" in r.getMessage()] == ["a copy will come back: gone"]


def test_a_failure_of_the_command_is_settled_as_usual_and_its_copy_dropped(rabbit: Broker) -> None:
    def handle(_command: Command) -> Result:
        raise KeyError("a mistake")

    serve(rabbit, handle)
    assert rabbit.told[-3:] == [f"to sync.wait.5m {QUEUE}", "to sync.events retrying", "dropped"]
    assert len(rabbit.dropped) == 1
