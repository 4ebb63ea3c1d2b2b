"""Does looking at dead letters leave every one of them where it was?"""

import threading

import pytest

from common.broker import dead_letters
from common.broker.connection import blocking
from common.broker.dead_letters import look
from common.broker.publisher import Outgoing
from common.broker.topology import declare
from common.errors import BrokerAway, Unroutable
from common.settings.model import Main
from tests.integration.messaging import eventually, publishing, ready, settings
from tests.stack.broker import Broker

QUEUE = "sync.blocks.dead"
NUMBER = 300
PREFETCHES = [dead_letters.PREFETCH, 70]  # one consumer, as nearly always, and five


def filled(url: str, number: int = NUMBER) -> Main:
    main = settings(url)
    declare(main)
    _add(main, range(number))
    return main


def _add(main: Main, numbers: range) -> None:
    with publishing(main) as publisher:
        publisher.publish(Outgoing("", QUEUE, b"%d" % n, f"id{n}", headers={"error": "X: y"}) for n in numbers)


def seen(main: Main, prefetch: int) -> list[int]:
    with look(main, QUEUE, prefetch) as view:
        return [int(letter.body) for letter in view.letters()]


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_looking_again_and_again_changes_nothing(amqp_url: str, prefetch: int) -> None:
    main = filled(amqp_url)
    for _ in range(7):
        assert seen(main, prefetch) == list(range(NUMBER))
    assert ready(main, QUEUE) == NUMBER


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_acknowledged_ones_are_gone_and_the_rest_keep_their_order(amqp_url: str, prefetch: int) -> None:
    main = filled(amqp_url)
    gone = {0, 69, 70, 150, 299}
    with look(main, QUEUE, prefetch) as view:
        for letter in view.letters():
            if int(letter.body) in gone:
                view.ack(letter)
    assert (view.read, view.acked) == (NUMBER, len(gone))
    for _ in range(2):
        assert seen(main, prefetch) == [n for n in range(NUMBER) if n not in gone]


def test_one_letter_is_as_it_lies_there(amqp_url: str) -> None:
    main = filled(amqp_url, 1)
    with look(main, QUEUE) as view:
        (letter,) = view.letters()
    assert (letter.body, letter.message_id, letter.error, letter.place) == (b"0", "id0", "X: y", 1)


@pytest.mark.parametrize("prefetch", PREFETCHES)
def test_what_arrives_meanwhile_comes_last_and_next_time(amqp_url: str, prefetch: int) -> None:
    main = filled(amqp_url)
    with look(main, QUEUE, prefetch) as view:
        letters = view.letters()
        next(letters)
        _add(main, range(NUMBER, NUMBER + 5))
        assert len(list(letters)) == NUMBER - 1
    assert seen(main, prefetch) == list(range(NUMBER + 5))


def test_what_arrives_while_others_are_acknowledged_is_kept(amqp_url: str) -> None:
    main = filled(amqp_url)
    with look(main, QUEUE) as view:
        for letter in view.letters():
            if letter.place % 3 == 0:
                view.ack(letter)
            if letter.place == NUMBER // 2:
                _add(main, range(NUMBER, NUMBER + 5))
    left = seen(main, dead_letters.PREFETCH)
    assert sorted(left) == [n for n in range(NUMBER + 5) if n >= NUMBER or n % 3 != 2]
    assert [n for n in left if n < NUMBER] == [n for n in range(NUMBER) if n % 3 != 2]


def test_a_look_that_fails_in_the_middle_gives_all_back(amqp_url: str) -> None:
    main = filled(amqp_url)
    with pytest.raises(ZeroDivisionError), look(main, QUEUE) as view:  # noqa: PT012
        for letter in view.letters():
            view.ack(letter)
            1 // (40 - letter.place)
    eventually(lambda: ready(main, QUEUE) == NUMBER - 40, "the rest is back")
    assert seen(main, dead_letters.PREFETCH) == list(range(40, NUMBER))


def test_a_second_look_waits_for_the_first(amqp_url: str) -> None:
    main, found = filled(amqp_url), list[list[int]]()
    with look(main, QUEUE) as view:
        letters = view.letters()
        next(letters)
        second = threading.Thread(target=lambda: found.append(seen(main, dead_letters.PREFETCH)))
        second.start()
        list(letters)
    second.join(30)
    assert found == [list(range(NUMBER))]


def test_a_second_look_says_who_is_in_its_way(amqp_url: str) -> None:
    main = filled(amqp_url, 3)
    with look(main, QUEUE) as view:
        next(view.letters())
        with pytest.raises(BrokerAway, match="somebody else looks"):
            seen(settings(amqp_url, connect_timeout=1), dead_letters.PREFETCH)


def test_a_broker_that_dies_in_the_middle_has_all_but_the_acknowledged(amqp_url: str, broker: Broker) -> None:
    main = filled(amqp_url, 3000)
    with pytest.raises(BrokerAway), look(main, QUEUE) as view:  # noqa: PT012 - where exactly it notices is open
        for letter in view.letters():
            if letter.place <= 10:
                view.ack(letter)
            if letter.place == 20:
                broker.kill()
    broker.start()
    left = eventually(lambda: _whole(main), "the queue is up again")
    assert len(set(left)) == len(left)
    assert set(range(10, 3000)) <= set(left) <= set(range(3000))


def _whole(main: Main) -> list[int]:
    """What is seen once the queue is up; right after its crash the broker refuses the channel."""
    try:
        return seen(main, dead_letters.PREFETCH)
    except BrokerAway:
        return []


def test_a_deleted_queue_does_not_hang_and_a_missing_one_is_named(amqp_url: str) -> None:
    main = filled(amqp_url)
    with pytest.raises((BrokerAway, Unroutable)), look(main, QUEUE, 50) as view:  # noqa: PT012
        next(view.letters())
        with blocking(main, "test") as connection:
            connection.channel().queue_delete(QUEUE)
        list(view.letters())
    with pytest.raises(Unroutable, match=r"no queue.*phedex-rucio setup"):
        seen(main, dead_letters.PREFETCH)
