"""Who serves which queues?"""

from common.broker.consumer import Seat, seats
from consumers.engine.worker import seats_for

KINDS = ["sync.site", "sync.dataset", "sync.blocks"]


def test_one_thread_takes_all_lanes_in_turn() -> None:
    assert seats(["a.now"], ["a"], 1) == [Seat(("a.now", "a"), 1)]


def test_people_have_a_thread_of_their_own() -> None:
    assert seats(["a.now", "b.now"], ["a", "b"], 2) == [Seat(("a.now", "b.now"), 1), Seat(("a", "b"), 1)]


def test_threads_beyond_one_a_queue_go_to_the_batches() -> None:
    assert seats_for(KINDS, 8) == [
        Seat(("sync.site.now", "sync.dataset", "sync.blocks.now"), 1),
        Seat(("sync.site",), 1),
        Seat(("sync.blocks",), 6),
    ]


def test_fewer_threads_than_queues_share_them_out() -> None:
    assert seats([], ["a", "b", "c"], 2) == [Seat(("a", "c"), 1), Seat(("b",), 1)]


def test_one_kind_with_one_queue_gets_all_threads() -> None:
    assert seats_for(["sync.dataset"], 4) == [Seat(("sync.dataset",), 4)]
