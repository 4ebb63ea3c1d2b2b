"""Does `check` say which queue differs, and with which exit code?"""

import json
import socket

import pytest

from common.broker.connection import blocking
from common.broker.drift import MISSING, Drift
from common.broker.topology import declare
from common.outcome import Exit
from common.settings.model import Main
from phedex_rucio.check import exit_of
from tests.acceptance.command import run


def test_a_dangerous_queue_is_named_beside_what_is_away(amqp_url: str) -> None:
    main = Main(amqp_url=amqp_url)
    with blocking(main, "test") as connection:
        connection.channel().queue_declare("sync.site.dead", durable=True, arguments={"x-queue-type": "quorum"})
    declare(main)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nowhere = f"http://127.0.0.1:{listening.getsockname()[1]}"
    env = {"AMQP_URL": amqp_url, "PHEDEX_RUCIO_MAIN_PHEDEX_URL": nowhere, "PHEDEX_RUCIO_MAIN_ALLOW_INSECURE": "true"}
    text = run("check", env=env)
    assert text.returncode not in (Exit.DONE, Exit.DIFFERENCES)
    assert "DANGEROUS: sync.site.dead: x-delivery-limit is not set, should be 1000000000" in text.stdout
    found = json.loads(run("check", "--json", env=env).stdout)["queues"]
    assert {drift["name"] for drift in found if drift["argument"] != MISSING} == {"sync.site.dead"}
    assert {drift["argument"] for drift in found if drift["is_dangerous"]} == {"x-delivery-limit", "x-overflow"}


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([], Exit.DONE),
        ([Drift("q", MISSING, None, None, False)], Exit.DONE),
        ([Drift("q", "x-max-age", "30D", "7D", False)], Exit.DIFFERENCES),
        ([Drift("q", "x-max-age", "30D", "7D", False), Drift("r", "x-overflow", "a", "b", True)], Exit.FAILED),
    ],
)
def test_the_exit_code_of_differences(found: list[Drift], code: int) -> None:
    assert exit_of(found) == code
