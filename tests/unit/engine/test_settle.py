"""What decides between retry, dead letter and waiting for a system?"""

import traceback
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import PhedexUnreachable, RucioConflict, UsageError
from common.messages.meta import Failure, Meta
from consumers.engine.backoff import wait_index
from consumers.engine.settle import Away, Dead, Retry, failure, settle

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_each_failure_waits_longer_than_the_one_before_and_the_last_delay_repeats() -> None:
    assert [wait_index(attempt, 4) for attempt in range(1, 8)] == [0, 1, 2, 3, 3, 3, 3]
    assert [wait_index(attempt, 1) for attempt in range(1, 4)] == [0, 0, 0]


def test_a_failed_attempt_is_tried_again_one_further() -> None:
    settlement = settle(RucioConflict("somebody was faster"), Meta(id="a"), 6, 4, AT, away=False)
    assert settlement == Retry(
        0,
        Meta(
            id="a",
            attempt=2,
            first_at=AT,
            errors=[Failure(class_="RucioConflict", message="somebody was faster", at=AT)],
        ),
    )


def test_the_last_attempt_dies_with_its_number() -> None:
    settlement = settle(RucioConflict("again"), Meta(id="a", attempt=6), 6, 4, AT, away=False)
    assert isinstance(settlement, Dead)
    assert settlement.meta.attempt == 6


def test_an_error_of_the_command_itself_dies_at_once() -> None:
    assert isinstance(settle(UsageError("no such option"), Meta(), 6, 4, AT, away=False), Dead)


def test_a_mistake_in_the_program_is_tried_again() -> None:
    settlement = settle(KeyError("x"), Meta(), 6, 4, AT, away=False)
    assert isinstance(settlement, Retry)
    assert settlement.meta.errors[0].class_ == "KeyError"


@pytest.mark.parametrize("attempt", [1, 6, 60])
def test_an_outage_costs_no_attempt_and_leaves_no_trace(attempt: int) -> None:
    meta = Meta(id="a", attempt=attempt)
    assert settle(PhedexUnreachable("refused"), meta, 6, 4, AT, away=True) == Away(meta)


def test_only_the_newest_five_errors_stay_and_only_the_last_traceback() -> None:
    meta = Meta()
    for number in range(1, 8):
        try:
            raise RucioConflict(str(number))
        except RucioConflict as error:
            settlement = settle(error, meta, 100, 4, AT, away=False)
        meta = settlement.meta
    assert [error.message for error in meta.errors] == ["3", "4", "5", "6", "7"]
    assert [bool(error.traceback) for error in meta.errors] == [False, False, False, False, True]
    assert "raise RucioConflict" in meta.errors[-1].traceback


def test_a_long_text_is_cut() -> None:
    assert len(failure(RucioConflict("x" * 10_000), AT).message) == 500


def test_the_end_of_the_traceback_stays() -> None:
    """The last ten lines of what Python would print: the place where it was raised, and who called."""

    def deeper(levels: int) -> None:
        if levels == 0:
            raise KeyError("x")
        deeper(levels - 1)

    with pytest.raises(KeyError) as caught:
        deeper(20)
    whole = "".join(traceback.format_tb(caught.value.__traceback__)).splitlines()
    assert len(whole) > 10
    assert failure(caught.value, AT).traceback == "\n".join(whole[-10:])


def test_the_time_of_the_first_failure_stays() -> None:
    once = settle(RucioConflict("x"), Meta(), 6, 4, AT, away=False).meta
    twice = settle(RucioConflict("x"), once, 6, 4, AT + timedelta(hours=1), away=False).meta
    assert (once.first_at, twice.first_at) == (AT, AT)
    assert [error.at for error in twice.errors] == [AT, AT + timedelta(hours=1)]
