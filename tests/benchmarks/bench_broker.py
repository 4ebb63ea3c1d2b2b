"""What does the engine cost over the bare broker? Ratios of one run: `pytest -s tests/benchmarks/bench_broker.py`."""

import statistics
import threading
import time
from collections.abc import Callable

import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

from common.broker.connection import blocking
from common.broker.publisher import Outgoing, Publisher, command_message
from common.broker.topology import COMMANDS, EVENTS, declare
from common.messages.commands import Command
from common.messages.meta import Meta
from common.outcome import Outcome
from common.settings.model import Main
from consumers.engine.result import Result
from tests.integration.messaging import blocks, publishing, raw, settings, working

pytestmark = pytest.mark.benchmark
ROUNDS, MESSAGES, THREADS = 5, 3000, 8


def test_a_window_of_confirms_against_one_by_one(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        windowed, single = _rounds(
            lambda: _rate(10_000, lambda: publisher.publish(raw(b"x" * 1000) for _ in range(10_000))),
            lambda: _rate(1_000, lambda: _one_by_one(publisher, 1_000)),
        )
    ratio = windowed / single
    print(f"\npublish 1 kB: {windowed:,.0f}/s in windows of 256, {single:,.0f}/s one by one: {ratio:.1f} times")
    assert ratio > 3


def test_commands_that_do_nothing_against_a_loop_written_by_hand(amqp_url: str) -> None:
    """Both take the same messages with the same prefetch, and confirm one `closed` event before each acknowledgement.

    The loop by hand is pika's BlockingConnection as its documentation shows it. A second one does no event at all.
    """
    main = settings(amqp_url)
    declare(main)
    engine, by_hand, bare = _rounds(
        lambda: _engine(main), lambda: _by_hand(main, event=True), lambda: _by_hand(main, event=False)
    )
    print(
        f"\ncommands that do nothing, {THREADS} threads: engine {engine:,.0f}/s, by hand {by_hand:,.0f}/s "
        f"(ratio {engine / by_hand:.2f}), by hand without events {bare:,.0f}/s (ratio {engine / bare:.2f})"
    )
    assert engine / by_hand > 0.8


def _rounds(*measures: Callable[[], float]) -> list[float]:
    """The medians of alternating rounds: what else the machine does hits all alike."""
    results = [[measure() for measure in measures] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def _rate(number: int, work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return number / (time.perf_counter() - begun)


def _one_by_one(publisher: Publisher, number: int) -> None:
    for _ in range(number):
        publisher.publish([raw(b"x" * 1000)])


def _fill(main: Main) -> None:
    def messages(number: int) -> Outgoing:
        return command_message(blocks(number, meta=Meta(id=f"i{number}", cycle=f"i{number}")), COMMANDS)

    with publishing(main) as publisher:
        publisher.publish(messages(number) for number in range(MESSAGES))


def _engine(main: Main) -> float:
    """From the worker's start, its connections included, to the last handler's call."""
    _fill(main)
    left, done = iter(range(MESSAGES - 1, -1, -1)), threading.Event()

    def handle(_command: Command, _world: object) -> Result:
        if next(left) == 0:
            done.set()
        return Result(Outcome.IN_SYNC)

    begun = time.perf_counter()
    # One thread more: it is kept for the queue of people, so the batches have THREADS.
    with working(main, {"sync.blocks": handle}, threads=THREADS + 1):
        assert done.wait(120)
        seconds = time.perf_counter() - begun
    return MESSAGES / seconds


def _by_hand(main: Main, *, event: bool) -> float:
    _fill(main)
    handled = 0

    def on_message(channel: BlockingChannel, method: Basic.Deliver, _properties: BasicProperties, _body: bytes) -> None:
        nonlocal handled
        if event:
            channel.basic_publish(EVENTS, "closed", b"x" * 300, BasicProperties(delivery_mode=2), mandatory=True)
        channel.basic_ack(method.delivery_tag)
        handled += 1
        if handled == MESSAGES:
            channel.stop_consuming()

    begun = time.perf_counter()
    with blocking(main, "by hand") as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=THREADS)
        if event:
            channel.confirm_delivery()
        channel.basic_consume("sync.blocks", on_message)
        channel.start_consuming()
        return MESSAGES / (time.perf_counter() - begun)
