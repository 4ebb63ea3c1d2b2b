"""What does a worker do when the broker cuts it off, freezes, or takes its queue away?"""

import threading
import time

import pytest

from common.broker import consumer
from common.broker.connection import blocking
from common.broker.roots import send
from common.broker.topology import declare
from common.messages.commands import Command
from common.messages.meta import Meta
from common.outcome import Outcome
from consumers.engine.result import Result
from tests.integration.messaging import Seen, all_events, blocks, closed, eventually, publishing, settings, working
from tests.stack.broker import Broker


def test_cut_off_under_load_it_comes_back_and_nothing_is_lost(amqp_url: str, broker: Broker) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        time.sleep(0.002)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher:
        sent = send(publisher, [blocks(n) for n in range(2000)])
        with working(main, {"sync.blocks": handle}) as running:
            eventually(lambda: len(seen.all) > 200, "some are handled")
            broker.close_connections(amqp_url.rpartition("/")[2])
            events = all_events(main, lambda found: len({e.id for e in closed(found)}) == len(sent))
            assert running.stop()
    assert {event.id for event in closed(events)} == {command.meta.id for command in sent}
    assert len(seen.all) - len(sent) <= 4  # what was in hand came again


def test_frozen_for_longer_than_the_heartbeats_it_goes_on_afterwards(amqp_url: str, broker: Broker) -> None:
    main, seen = settings(amqp_url, heartbeat=1, confirm_timeout=2, connect_timeout=2), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with working(main, {"sync.blocks": handle}) as running:
        eventually(lambda: running.worker.is_ready, "the worker is ready")
        broker.freeze()
        eventually(lambda: not running.worker.is_ready, "it notices", 60)
        broker.thaw()
        with publishing(main) as publisher:
            sent = send(publisher, [blocks(n) for n in range(50)])
        all_events(main, lambda found: len({e.id for e in closed(found)}) == len(sent))
        assert running.stop()


def test_a_queue_that_was_deleted_is_served_again_once_it_is_back(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once if the broker says so; at the latest when the idle consumer is renewed: it does not always say so."""
    monkeypatch.setattr(consumer, "RENEW", 0.5)
    main = settings(amqp_url)
    declare(main)
    with (
        publishing(main) as publisher,
        working(main, {"sync.blocks": lambda _command, _world: Result(Outcome.IN_SYNC)}) as running,
    ):
        eventually(lambda: running.worker.is_ready, "the worker is ready")
        with blocking(main, "test deletes") as connection:
            for queue in ("sync.blocks", "sync.blocks.now"):
                connection.channel().queue_delete(queue)
        assert declare(main) == ["sync.blocks.now", "sync.blocks"]
        send(publisher, [blocks(1), blocks(2, meta=Meta(lane="now"))])
        assert len(closed(all_events(main, lambda found: len(closed(found)) == 2))) == 2


def test_never_more_in_hand_than_threads(amqp_url: str, broker: Broker) -> None:
    main, begun, release = settings(amqp_url), Seen(), threading.Event()

    def handle(command: Command, _world: object) -> Result:
        begun.add(command.meta.id)
        release.wait(60)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher:
        send(publisher, [blocks(n, meta=Meta(lane="now" if n % 2 else "bulk")) for n in range(40)])
        with working(main, {"sync.site": handle, "sync.blocks": handle}, threads=5):
            eventually(lambda: len(begun.all) >= 4, "one of people and three batches; the fourth waits for a site")
            vhost = amqp_url.rpartition("/")[2]
            # The broker counts every five seconds. What it has given out is what the handlers have: nothing more.
            eventually(lambda: _unacknowledged(broker, vhost), "the broker's count")
            assert _unacknowledged(broker, vhost) == len(begun.all) == 4
            release.set()
            eventually(lambda: len(begun.all) == 40, "all")


def _unacknowledged(broker: Broker, vhost: str) -> int:
    listed = broker.ctl("list_queues", "-p", vhost, "messages_unacknowledged", "--no-table-headers")
    return sum(map(int, listed.split()))
