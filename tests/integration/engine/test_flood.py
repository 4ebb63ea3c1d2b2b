"""Everything dies: does the worker stop taking, instead of turning a whole queue into dead letters?"""

import threading

import pytest

from common.broker.roots import send
from common.broker.topology import declare
from common.errors import UsageError
from common.messages.commands import Command
from common.outcome import Outcome
from consumers.engine import health
from consumers.engine.result import Result
from tests.integration.messaging import Seen, blocks, eventually, publishing, ready, settings, working

NUMBER, THREADS = 200, 4


def test_a_flood_pauses_the_worker_and_a_success_ends_it(amqp_url: str, caplog: pytest.LogCaptureFixture) -> None:
    main, seen, is_broken = settings(amqp_url), Seen(), threading.Event()
    is_broken.set()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.key)
        if is_broken.is_set():
            raise UsageError("everything is wrong here")
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher:
        send(publisher, [blocks(n) for n in range(NUMBER)])
    with working(main, {"sync.blocks": handle}, threads=THREADS) as running:
        running.worker._dead_run._pause = 1.0  # a minute in real life
        eventually(lambda: "everything dies" in caplog.text, "the flood is noticed")
        # From now on one a second, besides what the threads had begun.
        assert len(seen.all) <= health.LIMIT + 2 * THREADS
        is_broken.clear()
        eventually(lambda: len(seen.all) == NUMBER, "all are handled after the first success")
        assert running.stop()
    dead = ready(main, "sync.blocks.dead")
    assert health.LIMIT <= dead <= health.LIMIT + 2 * THREADS
    assert ready(main, "sync.blocks") == 0
    assert "commands succeed again" in caplog.text
