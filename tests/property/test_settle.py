"""Settlement, whatever fails in whatever order."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from common.broker.consumer import seats
from common.errors import InvalidMessage, PhedexUnreachable, RucioConflict, RucioError
from common.messages.meta import MAX_ERRORS, Meta
from consumers.engine.settle import Away, Dead, Retry, settle

AT = datetime(2026, 11, 24, tzinfo=UTC)
ERRORS = st.sampled_from([RucioConflict("c"), RucioError("r"), PhedexUnreachable("p"), KeyError("k"), ValueError("")])


@given(st.lists(st.tuples(ERRORS, st.booleans()), max_size=40), st.integers(1, 10), st.integers(1, 6))
def test_a_command_dies_after_exactly_its_attempts_however_many_outages_come_between(
    failures: list[tuple[Exception, bool]], attempts: int, waits: int
) -> None:
    meta, counted = Meta(id="a", cycle="c"), 0
    for error, away in failures:
        settlement = settle(error, meta, attempts, waits, AT, away=away)
        counted += not away
        if isinstance(settlement, Dead):
            assert counted == attempts == settlement.meta.attempt
            return
        assert isinstance(settlement, Away if away else Retry)
        if isinstance(settlement, Retry):
            assert 0 <= settlement.wait < waits
        meta = settlement.meta
        assert meta.attempt == counted + 1
        assert len(meta.errors) == min(counted, MAX_ERRORS)
        assert (meta.id, meta.cycle) == ("a", "c")
    assert counted < attempts


@given(st.integers(1, 20), st.integers(1, 10))
def test_what_is_invalid_never_waits(attempt: int, attempts: int) -> None:
    assert isinstance(settle(InvalidMessage("x"), Meta(attempt=attempt), attempts, 4, AT, away=False), Dead)


names = st.lists(st.sampled_from([f"q{i}" for i in range(12)] + ["sync.blocks"]), unique=True)


@given(names, names, st.integers(1, 20))
def test_seats_serve_every_queue_once_and_never_hold_more_than_the_threads(
    first: list[str], second: list[str], threads: int
) -> None:
    now, bulk = [f"{name}.now" for name in first], second
    made = seats(now, bulk, threads)
    assert sorted(q for seat in made for q in seat.queues) == sorted([*now, *bulk])
    assert sum(seat.prefetch for seat in made) <= threads
    assert all(seat.prefetch == 1 or len(seat.queues) == 1 for seat in made)
    if now and bulk:
        assert sum(seat.prefetch for seat in made) == threads or threads > len(now) + len(bulk) or threads == 1
    if now and bulk and threads > 1:
        assert all(set(seat.queues) <= set(now) or set(seat.queues) <= set(bulk) for seat in made)
