"""Do the test servers do what the other tests rely on?"""

import pika
import pytest
from pika.exceptions import AMQPConnectionError
from rucio.common.exception import RucioException

from tests.stack import world
from tests.stack.broker import Broker
from tests.stack.rucio_server import RucioServer

NODE = "T1_FR_CCIN2P3_Buffer"


def test_a_vhost_is_empty_and_takes_messages(amqp_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("work", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "work", b"one", mandatory=True)
        assert channel.basic_get("work", auto_ack=True)[2] == b"one"


def test_a_crashed_broker_keeps_confirmed_messages(broker: Broker, amqp_url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(amqp_url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("work", durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", "work", b"one", mandatory=True)
    broker.kill()
    with pytest.raises(AMQPConnectionError):
        connection.process_data_events(time_limit=10)
    broker.start()
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as after:
        channel = after.channel()
        assert next(channel.consume("work", inactivity_timeout=60))[2] == b"one"
        channel.cancel()


def test_a_site_is_ready_for_rules_and_a_reset_empties_rucio(clean_rucio: RucioServer) -> None:
    client = clean_rucio.client()
    for _ in range(2):
        assert world.make_site(clean_rucio, NODE, "T1_FR_CCIN2P3_Tape", "TAPE") == "T1_FR_CCIN2P3_Tape"
    assert [row["rse"] for row in client.list_rses(f"cms_type=real&pnn={NODE}")] == ["T1_FR_CCIN2P3_Tape"]
    client.add_dataset("cms", "/A/B-v1/RAW#1")
    client.add_replication_rule(
        [{"scope": "cms", "name": "/A/B-v1/RAW#1"}], 1, "T1_FR_CCIN2P3_Tape", account="sync_t1_fr_ccin2p3_tape"
    )
    assert clean_rucio.sql("SELECT account, name FROM rules") == [("sync_t1_fr_ccin2p3_tape", "/A/B-v1/RAW#1")]

    clean_rucio.reset()
    assert list(clean_rucio.client().list_rses()) == []
    assert clean_rucio.sql("SELECT count(*) FROM rules") == [(0,)]


def test_the_cleaner_takes_an_expired_rule(clean_rucio: RucioServer) -> None:
    client = clean_rucio.client()
    world.make_site(clean_rucio, NODE)
    client.add_dataset("cms", "/A/B-v1/RAW#1")
    (rule,) = client.add_replication_rule([{"scope": "cms", "name": "/A/B-v1/RAW#1"}], 1, NODE)
    client.update_replication_rule(rule, {"lifetime": -1})
    assert rule in clean_rucio.run_daemon("judge-cleaner")
    assert clean_rucio.sql("SELECT count(*) FROM rules") == [(0,)]


def test_rucio_and_its_database_stop_and_come_back(clean_rucio: RucioServer) -> None:
    client = clean_rucio.client()
    clean_rucio.postgres.kill()
    assert clean_rucio.answers()
    with pytest.raises(RucioException):
        client.whoami()
    clean_rucio.postgres.start()
    clean_rucio.kill()
    assert not clean_rucio.answers()
    clean_rucio.start()
    assert client.whoami()["account"] == "phedex_sync"
