"""Is a message safely with the broker? Whatever the broker does."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from common.broker.connection import Connection, blocking
from common.broker.publisher import Outgoing, Publisher
from common.broker.topology import COMMANDS, declare
from common.errors import BrokerAway, BrokerBlocked, BrokerError, BrokerRefused, PublishRefused, Unroutable
from tests.integration.messaging import eventually, letters, publishing, raw, ready, settings
from tests.stack.broker import Broker


def test_all_are_stored_in_their_order(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        assert publisher.publish(raw(b"%d" % n) for n in range(1000)) == 1000
        assert publisher.publish([]) == 0
    assert [body for body, _ in letters(main, "sync.blocks")] == [b"%d" % n for n in range(1000)]


def test_messages_are_read_as_confirms_come_in(amqp_url: str) -> None:
    main = settings(amqp_url, confirm_window=10)
    declare(main)
    ahead = []

    def lazily(publisher: Publisher) -> Iterator[Outgoing]:
        for number in range(200):
            ahead.append(len(publisher._pending) + len(publisher._outbox))
            yield raw(b"%d" % number)

    with publishing(main) as publisher:
        publisher.publish(lazily(publisher))
    assert max(ahead) <= 10


@pytest.mark.parametrize(("exchange", "key"), [(COMMANDS, "nowhere"), ("", "nowhere"), ("nowhere", "sync.blocks")])
def test_what_no_queue_takes_is_an_error_that_names_it(amqp_url: str, exchange: str, key: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        with pytest.raises(Unroutable, match="nowhere"):
            publisher.publish([raw(b"1"), Outgoing(exchange, key, b"2", "2"), raw(b"3")])
        assert publisher.publish([raw(b"4")]) == 1


def test_a_channel_closed_for_one_message_costs_no_other_thread_its_own(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        stored: list[int] = []
        good = threading.Thread(target=lambda: stored.append(publisher.publish(raw(b"%d" % n) for n in range(3000))))
        good.start()
        closed = 0
        while good.is_alive() and closed < 50:  # without end a slow machine would do nothing else
            with pytest.raises(Unroutable, match="nowhere"):
                publisher.publish([Outgoing("nowhere", "sync.blocks", b"bad", "bad")])
            closed += 1
        good.join()
    assert closed > 0
    assert stored == [3000]
    bodies = [body for body, _ in letters(main, "sync.blocks")]
    assert {int(body) for body in bodies} == set(range(3000))  # some of them twice


def test_one_threads_unroutable_message_is_not_blamed_on_another(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    wrong: list[BaseException] = []

    def good() -> None:
        try:
            publisher.publish(raw(b"same") for _ in range(300))
        except BrokerError as error:
            wrong.append(error)

    with publishing(main) as publisher:
        threads = [threading.Thread(target=good) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            with pytest.raises(Unroutable):
                publisher.publish([raw(b"same", "nowhere")])
        for thread in threads:
            thread.join()
    assert wrong == []
    assert ready(main, "sync.blocks") == 1200


def test_a_full_queue_refuses(amqp_url: str) -> None:
    main = settings(amqp_url)
    with blocking(main, "test") as connection:
        arguments = {"x-queue-type": "quorum", "x-max-length": 2, "x-overflow": "reject-publish"}
        connection.channel().queue_declare("small", durable=True, arguments=arguments)
    with publishing(main) as publisher, pytest.raises(PublishRefused, match="queue small"):
        _one_by_one(publisher, (Outgoing("", "small", b"x") for _ in range(10)))


def test_a_memory_alarm_is_told_in_time_and_ends(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url, confirm_timeout=2)
    declare(main)
    with publishing(main) as publisher:
        broker.memory_alarm(True)
        try:
            with pytest.raises(BrokerBlocked, match=r"sync.blocks.*holds publishers back"):
                _one_by_one(publisher, (raw(b"%d" % number) for number in range(100)))
        finally:
            broker.memory_alarm(False)
        eventually(lambda: publisher.wait_ready(1), "the end of the alarm")
        assert publisher.publish([raw(b"after")]) == 1


def test_a_broker_that_dies_meanwhile_is_an_error_and_then_it_works_again(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    declare(main)

    def endless() -> Iterator[Outgoing]:
        number = 0
        while True:
            if number == 2000:
                broker.kill()
            number += 1
            yield raw(b"%d" % number)

    with publishing(main) as publisher:
        with pytest.raises(BrokerAway):
            publisher.publish(endless())
        broker.start()
        eventually(lambda: publisher.wait_ready(1), "the connection")
        assert publisher.publish([raw(b"after")]) == 1
    bodies = [body for body, _ in letters(main, "sync.blocks")]
    # Whatever was confirmed is there: half a window is always confirmed before more is read.
    assert {b"%d" % n for n in range(1, 2000 - main.confirm_window)} <= set(bodies)


def test_a_second_broker_in_the_list_is_found(amqp_url: str) -> None:
    main = settings(f"amqp://127.0.0.1:9/%2F, {amqp_url}")
    declare(main)
    with publishing(main) as publisher:
        assert publisher.publish([raw(b"1")]) == 1


def test_a_refused_user_is_told_at_once(broker: Broker) -> None:
    broker.heal()
    connection = Connection(settings(broker.url("nowhere"), connect_timeout=60), "test")
    with pytest.raises(BrokerRefused):
        connection.wait_open()
    connection.close()
    assert not connection._thread.is_alive()


def _one_by_one(publisher: Publisher, messages: Iterable[Outgoing]) -> None:
    for message in messages:
        publisher.publish([message])
