"""`explain` at 3 a.m.: a side is away, does not let us in or talks nonsense, and the broker has something to tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.broker.connection import blocking
from common.broker.dead_letters import look
from common.broker.publisher import event_message
from common.broker.topology import KILLED, dead_name
from common.errors import System
from common.messages.codec import encode
from common.messages.commands import SyncBlocks
from common.messages.events import Away
from common.messages.meta import now
from common.settings.model import Main
from datasvc.build import Snapshot
from datasvc.serve import running
from phedex_rucio import broker as door
from tests.acceptance.command import run
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site
from tests.two_sides import NODE, block, files_of

BLOCK = block(1)
POISON = b'{"kind": "sync.blocks", "node": "T2_IT_Pisa", "blocks": ["/Primary/Processed-v1/RAW#00001"], "colour": 1}'


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults.json"


@pytest.fixture
def env(clean_rucio: RucioServer, amqp_url: str, tmp_path: Path, faults: Path) -> Iterator[dict[str, str]]:
    make_site(clean_rucio, NODE)
    with Snapshot(tmp_path / "snapshot.db") as snapshot:
        snapshot.add_node(NODE)
        snapshot.add_block(BLOCK, files_of(BLOCK))
        snapshot.add_replica(BLOCK, NODE)
    with running(tmp_path / "snapshot.db", faults) as url:
        yield {"PHEDEX_URL": url, "AMQP_URL": amqp_url, **clean_rucio.client_environment()}


def told(code: int, *arguments: str, env: dict[str, str]) -> str:
    """What `explain` says of the block, having ended with this code."""
    done = run("explain", BLOCK, *arguments, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_side_that_does_not_answer(env: dict[str, str], faults: Path, clean_rucio: RucioServer) -> None:
    main = Main(amqp_url=env["AMQP_URL"])
    door.declare(main)
    since = now()
    with door.publisher(main) as publisher:
        publisher.publish([event_message(Away(system=System.PHEDEX, worker="w", since=since, reason="x", at=since))])

    faults.write_text(json.dumps([{"call": "blockreplicas", "kind": "login"}]))
    says = told(5, NODE, env=env)
    assert f"\nNot known: PhEDEx answers, and not with data since {since:%Y-%m-%d %H:%M} UTC: LoginPage: " in says
    assert "\nNothing is concluded from such a reply: nothing is added or removed by it.\n" in says
    assert f"RSE {NODE}, switch on" in says
    assert told(5, env=env).startswith("Not known: PhEDEx answers, and not with data: LoginPage: ")
    faults.write_text("[]")

    nowhere = {**env, "PHEDEX_URL": "http://127.0.0.1:9/phedex"}
    says = told(5, NODE, env=nowhere)
    assert f"\nNot known: PhEDEx is away since {since:%Y-%m-%d %H:%M} UTC: " in says
    assert "/phedex/json/prod/blockreplicas: Connection refused\n" in says
    assert "\n  phedex-rucio check\n" in says

    without_broker = {**env, "AMQP_URL": "amqp://guest:guest@127.0.0.1:9/x"}
    says = told(3, NODE, env=without_broker)
    assert "\nWould add: 3 files and the rule." in says
    assert "not looked at: no connection to broker guest@127.0.0.1:9 vhost x: Connection refused" in says

    says = told(6, NODE, "--account", "nobody", env=env)
    assert "\nNot known: Rucio refuses us: login: CannotAuthenticate: " in says
    assert "complete, no group, not custodial, subscribed" in says
    # Writes the client's one configuration again: from here on every command is led astray.
    without_rucio = {**env, **clean_rucio.client_environment(url="http://127.0.0.1:9")}
    says = told(5, NODE, env=without_rucio)
    assert "\nNot known: Rucio is away: " in says
    assert "complete, no group, not custodial, subscribed" in says
    assert f"{NODE}" in told(5, env=without_rucio)


def test_a_poisoned_message_and_an_open_cycle(env: dict[str, str]) -> None:
    main = Main(amqp_url=env["AMQP_URL"])
    door.declare(main)
    with blocking(main, "test") as connection:
        connection.channel().basic_publish("", dead_name("sync.blocks"), POISON)
        connection.channel().basic_publish("", KILLED, encode(SyncBlocks(node=NODE, blocks=[BLOCK])))
    sent = run("sync", "site", NODE, env=env)
    assert sent.returncode == 0, sent.stderr
    cycle = sent.stdout.strip()

    says = told(3, NODE, env=env)
    assert "\nWould add: 3 files and the rule." in says
    assert "\nA command about this block died (sync.blocks, body-" in says
    assert "colour: unknown field" in says
    assert says.count("\n  phedex-rucio dead show body-") == 1
    assert "\nA command about this block killed its workers (sync.killed, body-" in says
    assert f"\nA cycle about it is open: {cycle} (sync.site {NODE}, 1 command not finished)." in says
    with look(main, dead_name("sync.blocks")) as view:
        assert [letter.body for letter in view.letters()] == [POISON]
