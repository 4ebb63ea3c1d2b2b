"""Which queues exist? On a real broker, from nothing and again."""

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from common.broker.connection import blocking
from common.broker.topology import declare, topology, wait_name
from common.errors import BrokerAway, BrokerRefused, Unroutable
from common.settings.model import Main
from tests.integration.messaging import settings
from tests.stack.broker import Broker


def test_an_empty_vhost_gets_everything_and_the_next_time_nothing(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    wanted = topology(main)
    names = [part.name for part in (*wanted.exchanges, *wanted.queues)]
    assert declare(main) == names
    before = _everything(broker, amqp_url)
    assert declare(main) == []
    assert _everything(broker, amqp_url) == before


def test_the_broker_has_the_arguments_that_keep_messages(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    declare(main)
    queues = _everything(broker, amqp_url)
    assert (
        queues["sync.blocks"]
        == queues["sync.blocks.now"]
        == {
            "x-queue-type": "quorum",
            "x-overflow": "reject-publish",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "sync.killed",
            "x-dead-letter-strategy": "at-least-once",
        }
    )
    assert queues["sync.blocks.dead"]["x-delivery-limit"] == queues["sync.killed"]["x-delivery-limit"] == 1_000_000_000
    assert queues["sync.wait.500ms"]["x-message-ttl"] == 500
    assert "x-dead-letter-routing-key" not in queues["sync.wait.500ms"]
    assert queues["sync.events"] == {"x-queue-type": "stream", "x-max-age": "30D"}


def test_what_is_missing_is_created_and_what_differs_is_left_alone(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    with blocking(main, "test") as connection:
        connection.channel().queue_declare("sync.site", durable=True)
    created = declare(main)
    assert "sync.site" not in created
    assert "sync.site.now" in created
    assert _everything(broker, amqp_url)["sync.site"] == {"x-queue-type": "classic"}


def test_who_may_only_work_finds_what_another_user_declared(amqp_url: str, broker: Broker) -> None:
    vhost = unquote(urlsplit(amqp_url).path[1:])
    user = f"worker-of-{vhost}"
    broker.ctl("add_user", user, "secret")
    try:
        broker.ctl("set_permissions", "-p", vhost, user, "^$", "^sync.commands$", "^sync.site$")
        worker = settings(amqp_url.replace("guest:guest", f"{user}:secret"))
        with pytest.raises(Unroutable, match=r"sync\.commands: the broker does not let us use or declare it"):
            declare(worker)
        declare(settings(amqp_url))
        assert declare(worker) == []
    finally:
        broker.ctl("delete_user", user)


def test_the_names_of_waits_say_how_long() -> None:
    assert [wait_name(s) for s in (0.5, 1, 30, 300, 1800, 10800, 90)] == [
        f"sync.wait.{word}" for word in ("500ms", "1s", "30s", "5m", "30m", "3h", "90s")
    ]


def test_a_wrong_password_is_named_and_not_printed(broker: Broker) -> None:
    broker.heal()
    main = Main(amqp_url=broker.url().replace("guest:guest", "guest:s3cret"))
    with pytest.raises(BrokerRefused, match=r"guest@127.0.0.1:\d+ vhost / refuses") as caught:
        declare(main)
    assert "s3cret" not in str(caught.value)


def test_a_missing_vhost_is_named(broker: Broker) -> None:
    broker.heal()
    with pytest.raises(BrokerRefused, match="vhost nowhere"):
        declare(Main(amqp_url=broker.url("nowhere")))


def test_no_broker_at_all_is_away() -> None:
    with pytest.raises(BrokerAway, match=r"no connection to broker guest@127\.0\.0\.1:9"):
        declare(Main(amqp_url="amqp://127.0.0.1:9/%2F"))


def _everything(broker: Broker, url: str) -> dict[str, dict[str, Any]]:
    return broker.queues(url.rpartition("/")[2])
