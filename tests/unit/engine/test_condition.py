"""Is a worker alive, is it ready? In words."""

import threading
from dataclasses import dataclass
from typing import Any

from common.errors import BrokerAway, System
from consumers.engine import condition


@dataclass
class Line:
    """What is looked at of a connection to the broker."""

    name: str = "consumes"
    still: float = 0.5
    is_open: bool = True
    blocked: str = ""
    reason: BrokerAway = BrokerAway("no connection to broker")  # noqa: RUF009


def alive(*lines: Any, threads: list[threading.Thread] | None = None, draining: bool = False) -> dict[str, str]:
    found = condition.alive(lines, threads or [threading.current_thread()], draining=draining)
    return {part: wrong for part, wrong in found.items() if wrong}


def ready(*lines: Any, **changes: Any) -> dict[str, str]:
    given: dict[str, Any] = {"away": {}, "waiting_for": "", "flood": False, "draining": False} | changes
    found = condition.ready(lines, given.pop("away"), [System.PHEDEX, System.RUCIO], **given)
    return {part: wrong for part, wrong in found.items() if wrong}


def ended() -> threading.Thread:
    thread = threading.Thread(target=lambda: None, name="hand-3")
    thread.start()
    thread.join()
    return thread


def test_a_worker_that_is_well() -> None:
    assert alive(Line(), None) == {}
    assert ready(Line(), Line()) == {}


def test_an_io_thread_that_hangs_is_told() -> None:
    assert alive(Line(still=99)) == {"broker connection: consumes": "its thread has not turned for 99 s"}


def test_a_thread_that_died_is_told_but_not_in_a_drain() -> None:
    assert alive(threads=[ended()]) == {"threads": "ended by a mistake in this program: hand-3"}
    assert alive(threads=[ended()], draining=True) == {}


def test_a_handler_that_hangs_is_told_and_no_limit_is_none() -> None:
    threads = [threading.current_thread()]
    slow = ("sync.site T2_IT_Pisa", 99.0)
    for limit, told in ((98, "sync.site T2_IT_Pisa took no step for 99 s"), (100, ""), (0, "")):
        found = condition.alive([], threads, draining=False, stillest=slow, hangs_after=limit)
        assert found["handlers"] == told


def test_what_keeps_commands_from_being_carried_out_is_told() -> None:
    assert ready(None, None, waiting_for="refused") == {"broker": "refused"}
    assert ready(None, Line()) == {"broker": "not connected yet"}
    assert ready(Line(is_open=False)) == {"broker": "no connection to broker"}
    assert ready(Line(blocked="low on disk")) == {"broker": "holds publishers back: low on disk"}
    assert ready(Line(), away={System.RUCIO: "refused"}) == {"rucio": "away: refused"}
    assert ready(Line(), flood=True) == {"commands": "everything dies: one a minute is tried"}
    assert ready(Line(), draining=True) == {"commands": "told to stop: none is taken any more"}
