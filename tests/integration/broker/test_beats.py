"""Is what a process says last what it was last?"""

from __future__ import annotations

import threading

from msgspec.structs import replace

from common.broker.beats import Beats
from common.broker.connection import Connection
from common.broker.past import past
from common.broker.topology import BEATS, declare
from common.messages.beats import Beat
from common.messages.codec import decode_beat
from common.messages.meta import now
from common.settings.model import Main
from tests.integration.messaging import eventually, settings


def states(main: Main) -> list[str]:
    return [beat.state for beat in past(main, BEATS, "first", decode_beat)]


def test_the_last_beat_is_said_though_another_one_was_being_described(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    now_is = Beat(role="worker", name="w", version="1", state="ready", started=now(), at=now(), every=60)
    describing, go_on = threading.Event(), threading.Event()

    def describe() -> Beat:
        described = now_is
        if described.state == "draining":
            describing.set()
            go_on.wait()
        return described

    connection = Connection(main, "test")
    said = Beats(connection, 60, describe)
    try:
        eventually(lambda: "ready" in states(main), "a first beat")
        now_is = replace(now_is, state="draining")
        said.nudge()
        describing.wait()
        now_is = replace(now_is, state="ended")
        said.stop()  # which has waited long enough by itself: that beat is still being described
        go_on.set()
        eventually(lambda: states(main)[-1] == "ended", "the last word", 10)
    finally:
        go_on.set()
        connection.close(5)
