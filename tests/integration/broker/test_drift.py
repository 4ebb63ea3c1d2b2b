"""Is each way in which a queue can differ found, named, and judged?"""

from typing import Any

import pytest

from common.broker.connection import blocking
from common.broker.drift import MISSING, Drift, drifts
from common.broker.topology import Queue, declare, topology
from tests.integration.messaging import settings
from tests.stack.broker import Broker

NO_STRATEGY = {"x-dead-letter-strategy": None}
Changes = dict[str, Any]

# queue, what is changed (None: left out), the arguments found to differ, dangerous
Row = tuple[str, Changes, set[str], bool]
DRIFTS: list[Row] = [
    ("sync.blocks", {"x-delivery-limit": 5}, {"x-delivery-limit"}, False),
    ("sync.blocks", NO_STRATEGY, {"x-dead-letter-strategy"}, True),
    ("sync.blocks", {"x-dead-letter-strategy": "at-most-once"}, {"x-dead-letter-strategy"}, True),
    ("sync.blocks", {"x-overflow": "drop-head"} | NO_STRATEGY, {"x-overflow", "x-dead-letter-strategy"}, True),
    ("sync.blocks", {"x-dead-letter-exchange": None} | NO_STRATEGY, {"x-dead-letter-exchange", *NO_STRATEGY}, True),
    ("sync.site.now", {"x-message-ttl": 86_400_000}, {"x-message-ttl"}, True),
    ("sync.site.dead", {"x-message-ttl": 5_000_000}, {"x-message-ttl"}, True),
    ("sync.site.dead", {"x-delivery-limit": 3}, {"x-delivery-limit"}, True),
    ("sync.site.dead", {"x-delivery-limit": None}, {"x-delivery-limit"}, True),
    ("sync.site.dead", {"x-max-length": 9, "x-expires": 9_000_000}, {"x-max-length", "x-expires"}, True),
    ("sync.killed", {"x-message-ttl": 5_000_000}, {"x-message-ttl"}, True),
    ("sync.wait.500ms", {"x-message-ttl": 700}, {"x-message-ttl"}, False),
    ("sync.wait.1s", NO_STRATEGY, {"x-dead-letter-strategy"}, True),
    ("sync.events", {"x-max-age": "7D"}, {"x-max-age"}, False),
    (
        "sync.dataset",
        dict.fromkeys(("x-queue-type", "x-overflow", "x-delivery-limit"), None) | NO_STRATEGY,
        set(),
        True,
    ),
]


def _rounds() -> list[list[Row]]:
    """The rows, as many at once as there are queues: declaring all of them takes longest."""
    left, rounds = list(DRIFTS), []
    while left:
        now = list({row[0]: row for row in reversed(left)}.values())
        rounds.append(now)
        left = [row for row in left if row not in now]
    return rounds


@pytest.mark.parametrize("rows", _rounds())
def test_every_drift_is_found_and_nothing_is_changed(amqp_url: str, broker: Broker, rows: list[Row]) -> None:
    main = settings(amqp_url)
    wanted = {queue.name: queue for queue in topology(main).queues}
    for name, changes, _, _ in rows:
        _create(amqp_url, wanted[name], changes)
    declare(main)
    before = broker.queues(amqp_url.rpartition("/")[2])
    found = drifts(main)
    assert broker.queues(amqp_url.rpartition("/")[2]) == before
    assert {drift.name for drift in found} == {row[0] for row in rows}
    for row in rows:
        _are_of(row, [drift for drift in found if drift.name == row[0]], wanted[row[0]])


def _are_of(row: Row, found: list[Drift], wanted: Queue) -> None:
    _, changes, arguments, dangerous = row
    assert {drift.argument for drift in found} >= arguments
    assert not arguments or len(found) == len(arguments)
    assert any(drift.is_dangerous for drift in found) is dangerous
    without = {"x-queue-type": "classic"}  # what a queue is that was declared without a type
    for drift in found:
        if drift.argument in changes:
            there = changes[drift.argument] or without.get(drift.argument)
            assert (drift.wanted, drift.found) == (wanted.arguments.get(drift.argument), there)


def _create(url: str, queue: Queue, changes: Changes) -> None:
    arguments = {name: value for name, value in (queue.arguments | changes).items() if value is not None}
    with blocking(settings(url), "test") as connection:
        connection.channel().queue_declare(queue.name, durable=True, arguments=arguments)


def test_what_setup_declared_does_not_differ(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    assert drifts(main) == []


def test_what_is_missing_is_named_and_not_created(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    wanted = topology(main)
    found = drifts(main)
    assert {drift.name for drift in found} == {part.name for part in (*wanted.exchanges, *wanted.queues)}
    assert {(drift.argument, drift.is_dangerous) for drift in found} == {(MISSING, False)}
    assert broker.queues(amqp_url.rpartition("/")[2]) == {}


def test_a_queue_that_does_not_survive_a_restart_and_an_exchange_of_another_type(amqp_url: str) -> None:
    main = settings(amqp_url)
    with blocking(main, "test") as connection:
        channel = connection.channel()
        channel.queue_declare("sync.site", durable=False)
        channel.exchange_declare("sync.commands", "topic", durable=True)
    declare(main)
    found = drifts(main)
    assert Drift("sync.commands", "type", "direct", "topic", is_dangerous=True) in found
    assert Drift("sync.site", "durable", True, False, is_dangerous=True) in found
