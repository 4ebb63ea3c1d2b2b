"""Is all as it should be on every RabbitMQ that we support? The same story on 3.10, 4.0 and 4.3.

"debian" is this machine's own. "forky" takes part with `--broker=forky` only, because it costs a minute to install.
"""

from collections.abc import Callable, Iterator

import pytest

from common.broker.publisher import Publisher
from common.broker.roots import send
from common.broker.topology import DELIVERY_LIMIT, declare, topology
from common.errors import BrokerError, RucioConflict
from common.messages.commands import Command
from common.messages.events import Retrying
from common.outcome import Outcome
from common.settings.model import Main
from consumers.engine.result import Result
from tests.integration.messaging import (
    all_events,
    blocks,
    closed,
    eventually,
    letters,
    lost,
    plain,
    publishing,
    ready,
    settings,
    working,
)
from tests.stack.broker import Broker

OPTIONAL = ["forky"]


@pytest.fixture(params=["debian", "trixie", "forky"])
def server(request: pytest.FixtureRequest, brokers: Callable[[str], Broker], pytestconfig: pytest.Config) -> Broker:
    """The running broker of a release, where it can be had."""
    release = request.param
    if release in OPTIONAL and release != pytestconfig.getoption("broker"):
        pytest.skip(f"only with --broker={release}")
    broker = brokers(release)
    broker.heal()
    return broker


@pytest.fixture
def main(server: Broker) -> Iterator[Main]:
    """Settings for an empty vhost of it."""
    vhost = server.new_vhost()
    yield settings(server.url(vhost))
    server.retire_vhost(vhost)


def test_retries_dead_letters_and_events_outlive_a_crash(server: Broker, main: Main) -> None:
    wanted = topology(main)
    assert declare(main) == [part.name for part in wanted.exchanges] + [part.name for part in wanted.queues]
    assert declare(main) == []
    with publishing(main) as publisher, working(main, {"sync.blocks": _bad_is_666}) as running:
        sent = send(publisher, [blocks(1), blocks(666)])
        all_events(main, lambda found: len(closed(found)) == 2)
        server.kill()
        server.start()
        sent += eventually(lambda: _sent_again(publisher), "the broker takes a command")
        events = all_events(main, lambda found: {e.id for e in closed(found)} >= {c.meta.id for c in sent})
        assert running.stop()
    outcomes = {event.id: (event.outcome, event.attempt) for event in closed(events)}
    good, bad, later = (outcomes[command.meta.id] for command in sent)
    assert (good, bad, later) == ((Outcome.IN_SYNC, 1), (Outcome.DEAD, 3), (Outcome.IN_SYNC, 1))
    assert [event.attempt for event in events if isinstance(event, Retrying)] == [1, 2]
    ((body, properties),) = letters(main, "sync.blocks.dead")
    assert [error["message"] for error in plain(body)["meta"]["errors"]] == ["try 1", "try 2", "try 3"]
    assert not [name for name in properties.headers or {} if name.startswith("x-death")]
    assert ready(main, "sync.blocks") == ready(main, "sync.killed") == 0


def test_what_its_consumers_lose_too_often_is_set_aside(main: Main) -> None:
    """Counted by a limit of ours: without one 3.10 delivers for ever; and it is the same with newer brokers."""
    declare(main)
    with publishing(main) as publisher:
        send(publisher, [blocks(1)])
    for delivered in range(DELIVERY_LIMIT + 1):
        assert ready(main, "sync.killed") == 0, f"after {delivered} deliveries"
        eventually(lambda: lost(main, "sync.blocks"), "the message comes")
    eventually(lambda: ready(main, "sync.killed") == 1, "it is in sync.killed")
    assert ready(main, "sync.blocks") == 0


def test_dead_letters_may_be_looked_at_as_often_as_one_likes(main: Main) -> None:
    """Each look counts as a delivery; the limit that newer brokers have by default would drop the message."""
    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": _bad_is_666}):
        send(publisher, [blocks(666)])
        all_events(main, lambda found: bool(closed(found)))
    for _ in range(2 * DELIVERY_LIMIT):
        eventually(lambda: lost(main, "sync.blocks.dead"), "the dead letter")
    eventually(lambda: ready(main, "sync.blocks.dead") == 1, "the dead letter is still there")


def _bad_is_666(command: Command, _world: object) -> Result:
    if command.key.endswith("#666"):
        raise RucioConflict(f"try {command.meta.attempt}")
    return Result(Outcome.IN_SYNC)


def _sent_again(publisher: Publisher) -> list[Command]:
    """Nothing while a queue or the stream is not up again after the crash."""
    try:
        return send(publisher, [blocks(2)])
    except BrokerError:
        return []
