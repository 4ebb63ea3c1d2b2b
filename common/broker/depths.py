"""How much lies in each queue, and who serves it? Counted now and then for the metrics, on one connection that stays.

A look is answered from the queue's leader without touching a message, so many processes may count: all say the same.
While the broker cannot be asked the last numbers stay, and `queues_counted_timestamp_seconds` shows it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pika import exceptions
from pika.adapters.blocking_connection import BlockingConnection

from common.broker.connection import blocking, jittered
from common.broker.standing import queues
from common.broker.topology import BEATS, EVENTS
from common.errors import BrokerError
from common.settings.model import Main
from common.telemetry import metrics

log = logging.getLogger("phedex_rucio.broker")

EVERY = 30.0  # seconds
SLICE = 1.0  # so soon an end is noticed


@contextmanager
def counted(main: Main, every: float = EVERY) -> Iterator[None]:
    """The metrics tell how much lies in each queue while the block lasts."""
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(main, every, ended), name="counts queues", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(2 * SLICE)


def _run(main: Main, every: float, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            with blocking(main, "counts") as connection:
                while not ended.is_set():
                    _count(connection, main)
                    _idle(connection, jittered(every), ended)
        except (BrokerError, exceptions.AMQPError) as error:
            log.debug("the queues cannot be counted: %s", error)
            ended.wait(jittered(every))


def _count(connection: BlockingConnection, main: Main) -> None:
    for depth in queues(connection, main):
        if depth.name not in (EVENTS, BEATS):
            metrics.QUEUE_READY.labels(depth.name).set(depth.ready)
            metrics.QUEUE_CONSUMERS.labels(depth.name).set(depth.consumers)
    metrics.QUEUES_AT.set(time.time())


def _idle(connection: BlockingConnection, seconds: float, ended: threading.Event) -> None:
    """Some seconds pass, and the broker's heartbeats are answered."""
    end = time.monotonic() + seconds
    while not ended.is_set() and (left := end - time.monotonic()) > 0:
        connection.process_data_events(min(SLICE, left))
