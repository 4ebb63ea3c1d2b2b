"""Is a system away?"""

import threading

from common.errors import NotFound, PhedexUnreachable, RucioError, RucioRefused, System
from common.settings.model import Main
from common.telemetry import metrics
from consumers.engine.probe import Change, Outages
from consumers.engine.worker import needs_of

MAIN = Main(probe_pause=0.01, probe_pause_max=0.02)


class Told:
    """What was told of systems; waits for the n-th word."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._changed = threading.Condition()

    def __call__(self, change: Change) -> None:
        with self._changed:
            self.changes.append(change)
            self._changed.notify_all()

    def wait(self, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.changes) >= number, 30)


def no_answer() -> None:
    raise RucioError("connection refused")


def test_only_errors_that_leave_it_open_are_asked_about() -> None:
    asked: list[int] = []
    outages = Outages({System.RUCIO: lambda: asked.append(1)}, MAIN, Told())
    for error in (NotFound("x"), RucioRefused("x"), KeyError("x"), PhedexUnreachable("x")):
        assert not outages.is_away(error)
    assert asked == []
    assert not outages.is_away(RucioError("500"))
    assert asked == [1]


def test_a_probe_that_is_refused_was_answered() -> None:
    def refused() -> None:
        raise RucioRefused("no permission")

    assert not Outages({System.RUCIO: refused}, MAIN, Told()).is_away(RucioError("500"))


def test_away_is_told_once_and_back_once() -> None:
    answers, told = threading.Event(), Told()
    outages = Outages({System.RUCIO: lambda: None if answers.is_set() else no_answer()}, MAIN, told)
    assert [outages.is_away(RucioError("x")) for _ in range(5)] == [True] * 5
    assert outages.away
    assert not outages.enter("a")
    answers.set()
    told.wait(2)
    assert [bool(change.reason) for change in told.changes] == [True, False]
    assert "connection refused" in told.changes[0].reason
    assert not outages.away


def test_a_probe_that_fails_by_itself_counts_as_away_and_is_tried_again() -> None:
    calls, told = iter([KeyError("mistake"), KeyError("mistake"), None]), Told()

    def broken() -> None:
        error = next(calls)
        if error:
            raise error

    assert Outages({System.RUCIO: broken}, MAIN, told).is_away(RucioError("x"))
    told.wait(2)


def test_after_back_one_is_tried_alone_and_then_all() -> None:
    answers, told = threading.Event(), Told()
    outages = Outages({System.RUCIO: lambda: None if answers.is_set() else no_answer()}, MAIN, told)
    assert outages.is_away(RucioError("x"))
    answers.set()
    told.wait(2)
    assert outages.enter("a")
    second_in = threading.Event()
    thread = threading.Thread(target=lambda: outages.enter("a") and second_in.set())
    thread.start()
    assert not second_in.wait(0.05)
    outages.leave()
    assert second_in.wait(30)
    thread.join()


def test_who_waits_for_a_turn_is_sent_away_when_we_stop() -> None:
    outages = Outages({}, MAIN, Told())
    outages.stop()
    assert not outages.enter("a")


def test_a_command_that_is_always_there_when_a_system_goes_is_suspected() -> None:
    told, outages = Told(), None
    failing = iter([True, False] * 3)
    outages = Outages({System.RUCIO: lambda: no_answer() if next(failing) else None}, MAIN, told)
    for times in range(3):
        assert not outages.is_suspect("a")
        assert outages.enter("a")
        assert outages.is_away(RucioError("x"))
        outages.leave()
        told.wait(2 * times + 2)
    assert not outages.is_suspect("a")  # the first time it came with all others
    assert outages.enter("a")
    assert outages.is_suspect("a")
    outages.leave()
    assert not outages.is_suspect("a")


def test_an_idle_worker_finds_out_by_itself_but_asks_nobody_who_has_just_answered() -> None:
    told, asked = Told(), threading.Event()

    def away() -> None:
        asked.set()
        no_answer()

    metrics.requested(System.PHEDEX, "blockreplicas", 200, 0.1)
    outages = Outages({System.RUCIO: away}, MAIN, told)
    thread = threading.Thread(target=outages.watch)
    thread.start()
    told.wait(1)
    outages.stop()
    thread.join()
    assert asked.is_set()
    assert outages.reasons == {System.RUCIO: "RucioError: connection refused"}
    assert metrics.unheard(System.PHEDEX) < 30 < metrics.unheard(System.BROKER)


def test_only_what_needs_an_absent_system_waits_for_it() -> None:
    outages = Outages({System.PHEDEX: no_answer}, MAIN, Told())
    assert outages.is_away(PhedexUnreachable("x"))
    assert not outages.enter("a", frozenset({System.PHEDEX, System.RUCIO}))
    assert outages.enter("b", frozenset({System.RUCIO}))
    outages.leave()
    outages.stop()


def test_each_queue_waits_for_what_its_kind_needs() -> None:
    assert needs_of("sync.blocks.now") == {System.PHEDEX, System.RUCIO}
    assert needs_of("account") == {System.RUCIO}
