"""Credentials that expire, are taken back, or were never right: nothing is lost, nobody is asked, and it is said."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.messages.events import Away, Back, Closed, Event
from common.outcome import Outcome
from common.settings.model import Main
from datasvc.build import Snapshot
from datasvc.serve import running
from tests.acceptance.command import LIMIT, run, worker
from tests.integration.messaging import all_events, closed, eventually, ready
from tests.stack.processes import free_ports
from tests.stack.rucio_server import SERVICE_ACCOUNT, RucioServer
from tests.stack.world import make_site

NODE = "T2_IT_Pisa"
BLOCKS = [f"/Primary/Run2018{era}-v1/AOD#1" for era in "ABCDEF"]
SHORT = """
CREATE FUNCTION short() RETURNS trigger AS $$
BEGIN NEW.expired_at := (now() AT TIME ZONE 'utc') + interval '2 seconds'; RETURN NEW; END $$ LANGUAGE plpgsql;
CREATE TRIGGER short BEFORE INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION short();
"""


@pytest.fixture
def env(tmp_path: Path, amqp_url: str, clean_rucio: RucioServer) -> Iterator[dict[str, str]]:
    make_site(clean_rucio, NODE)
    with Snapshot(tmp_path / "phedex.sqlite") as made:
        made.add_node(NODE)
        for number, block in enumerate(BLOCKS):
            made.add_block(block, [(f"/store/data/{number}.root", 1000, "adler32:00000001,cksum:1")])
            made.add_replica(block, NODE)
    with running(tmp_path / "phedex.sqlite") as url:
        yield {
            "AMQP_URL": amqp_url,
            "PHEDEX_URL": url,
            # The client keeps its token in this folder and the server knows a token for minutes without its table: one
            # that an earlier test left there would spare the logins that are counted here.
            "TMPDIR": str(tmp_path),
            "PHEDEX_RUCIO_MAIN_PROBE_PAUSE": "0.5",
            "PHEDEX_RUCIO_MAIN_PROBE_PAUSE_MAX": "1",
            "PHEDEX_RUCIO_MAIN_WAIT_DELAYS": "0.5,1",
            **clean_rucio.client_environment(),
        }


def asked(port: int, page: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def total(port: int, name: str) -> float:
    """The sum of the samples whose names and labels match."""
    lines = re.findall(rf"^phedex_rucio_{name} (\S+)$", asked(port, "metrics")[1], re.MULTILINE)
    assert lines, name
    return sum(map(float, lines))


def sent(block: str, env: dict[str, str]) -> None:
    done = run("send", "sync.blocks", "--field", f"node={NODE}", "--field", f'blocks=["{block}"]', env=env)
    assert done.returncode == 0, done.stderr


def number_closed(number: int) -> Callable[[list[Event]], bool]:
    return lambda found: len(closed(found)) >= number


def test_tokens_of_two_seconds_and_credentials_that_are_taken_back(
    env: dict[str, str], amqp_url: str, clean_rucio: RucioServer
) -> None:
    main, port, sql = Main(amqp_url=amqp_url), free_ports(1), clean_rucio.sql
    sql(SHORT)
    sql("DELETE FROM tokens")

    def all_expired() -> bool:
        return sql("SELECT count(*) FROM tokens WHERE expired_at > now() AT TIME ZONE 'utc'") == [(0,)]

    with worker(env, "--threads", "2", "--metrics-port", str(port)):
        eventually(lambda: asked(port, "readyz")[0] == 200, "a worker that is ready")
        for number, block in enumerate(BLOCKS[:3], 1):
            sent(block, env)
            all_events(main, number_closed(number), LIMIT)
            eventually(all_expired, "the end of all tokens")
        assert total(port, r'upstream_requests_total\{call="login",status="200",system="rucio"\}') >= 3

        ((password,),) = sql("SELECT password FROM identities WHERE identity = %s", (SERVICE_ACCOUNT,))
        sql("UPDATE identities SET password = 'another' WHERE identity = %s", (SERVICE_ACCOUNT,))
        for block in BLOCKS[3:]:
            sent(block, env)
        events = all_events(main, lambda found: any(isinstance(event, Away) for event in found), LIMIT)
        (away,) = [event for event in events if isinstance(event, Away)]
        assert "Rucio refuses our credentials" in away.reason
        status, said = asked(port, "readyz")
        assert status == 503
        assert "Rucio refuses our credentials" in json.loads(said)["parts"]["rucio"]
        assert json.loads(said)["parts"]["phedex"] == "ok"
        assert asked(port, "healthz")[0] == 200
        assert total(port, r'system_away\{system="rucio"\}') == 1

        sql("UPDATE identities SET password = %s WHERE identity = %s", (password, SERVICE_ACCOUNT))
        events = all_events(main, number_closed(len(BLOCKS)), LIMIT)
        assert total(port, r'commands_total\{kind="sync.blocks",outcome="(?:dead|retry)"\}') == 0
    ends = [event for event in events if isinstance(event, Closed)]
    assert {(event.outcome, event.attempt) for event in ends} == {(Outcome.CHANGED, 1)}
    assert [type(event) for event in events if isinstance(event, Away | Back)] == [Away, Back]
    assert ready(main, "sync.blocks.dead") == 0
    assert sql("SELECT count(*) FROM rules") == [(len(BLOCKS),)]


def test_what_can_never_work_ends_at_once_with_a_line(env: dict[str, str], amqp_url: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong-password")
    refused = run("worker", env=env | {"AMQP_PASSWORD_FILE": str(tmp_path / "wrong")})
    assert refused.returncode == 6, refused.stderr
    assert "refuses the connection" in refused.stderr.splitlines()[-1]
    for command in ("check", "worker", "plan"):
        arguments = [command, NODE] if command == "plan" else [command]
        lost = run(*arguments, env=env | {"RUCIO_CONFIG": str(tmp_path / "no.cfg")})
        assert (lost.returncode, lost.stdout) == (2, "")
        assert lost.stderr.splitlines() == [
            f"phedex-rucio: Rucio's configuration: {tmp_path}/no.cfg cannot be read: "
            "write it, or set RUCIO_CONFIG to another"
        ]
    oidc = run("worker", env=env | {"RUCIO_AUTH_TYPE": "oidc", "TMPDIR": str(tmp_path)})
    assert oidc.returncode == 6, oidc.stderr
    assert "no OIDC token is here" in oidc.stderr.splitlines()[-1]
