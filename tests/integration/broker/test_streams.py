"""What has happened? From the first event, from now on, and after the broker was gone."""

import pytest

from common.broker import streams
from common.broker.publisher import Outgoing, Publisher, event_message
from common.broker.roots import send
from common.broker.topology import EVENTS, declare
from common.errors import BrokerError, System, Unroutable
from common.messages.events import Asked, Away, Event
from common.messages.meta import now
from tests.integration.messaging import blocks, closed, eventually, publishing, settings, site
from tests.stack.broker import Broker


def event(number: int) -> Away:
    return Away(system=System.RUCIO, worker=str(number), since=now(), at=now())


def numbers(events: list[Event]) -> list[int]:
    return [int(e.worker) for e in events if isinstance(e, Away)]


def test_from_the_first_all_is_read_and_more_than_the_prefetch(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        publisher.publish(event_message(event(n)) for n in range(2000))
    with streams.attach(main, "first") as stream:
        assert numbers(list(stream.events(1.0))) == list(range(2000))
        assert stream.offset == 1999
    with streams.attach(main, 1990) as stream:
        assert numbers(list(stream.events(1.0))) == list(range(1990, 2000))


def test_attached_to_what_comes_next_nothing_of_it_is_missed(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        publisher.publish([event_message(event(0))])
        for number in range(1, 6):
            with streams.attach(main, "next") as stream:
                publisher.publish([event_message(event(number))])
                assert numbers([next(stream.events(10))]) == [number]


def test_what_is_no_event_is_passed_over(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher, streams.attach(main, "next") as stream:
        strange = [b"", b"[" * 10_000, b'{"event":"from the future"}', b"\xff"]
        publisher.publish(Outgoing(EVENTS, "x", body) for body in strange)
        publisher.publish([event_message(event(1))])
        assert numbers(list(stream.events(1.0))) == [1]


def test_a_missing_stream_is_told_at_once(amqp_url: str) -> None:
    with pytest.raises(Unroutable, match=EVENTS), streams.attach(settings(amqp_url, connect_timeout=60), "first"):
        pass


@pytest.mark.parametrize("before", [0, 3])
def test_after_a_crash_of_the_broker_it_goes_on_where_it_was(amqp_url: str, broker: Broker, before: int) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        publisher.publish([event_message(event(99))])
        with streams.attach(main, "first" if before else "next") as stream:
            publisher.publish(event_message(event(n)) for n in range(before))
            seen = numbers([next(stream.events(10)) for _ in range(before + 1 if before else 0)])
            broker.kill()
            broker.start()
            eventually(lambda: _published(publisher, [event(n) for n in range(before, 6)]), "the stream takes events")
            eventually(lambda: seen.extend(numbers(list(stream.events(0.5)))) or set(range(6)) <= set(seen), "the rest")
    assert set(seen) - {99} == set(range(6))


def _published(publisher: Publisher, events: list[Away]) -> bool:
    """False while the stream is not up: for about a second after a crash it is in no route (RabbitMQ 3.10)."""
    try:
        publisher.publish(event_message(e) for e in events)
    except BrokerError:
        return False
    return True


def test_a_root_is_announced_before_it_is_sent(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher, streams.attach(main, "next") as stream:
        sent = send(publisher, [site(), blocks(1)], by="somebody")
        heard = list(stream.events(1.0))
    assert [e.id for e in heard if isinstance(e, Asked)] == [root.meta.id for root in sent]
    assert all(root.meta.cycle == root.meta.id and root.meta.by == "somebody" for root in sent)
    assert closed(heard) == []
