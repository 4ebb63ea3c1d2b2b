"""The client's habits: no process details leave, no password is logged, nobody is prompted; replies are checked."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rucio.common import config

from common.errors import BadRucioConfiguration, NotAuthenticated, RucioError
from common.rucio import session
from common.rucio.session import Rucio, TooLate, check_configuration, clock, sliced
from common.settings.model import Main


class Answers(BaseHTTPRequestHandler):
    """A gateway in front of nothing: logs in whoever may, and answers `reply` with `kind` to all else."""

    protocol_version = "HTTP/1.1"
    reply = b""
    kind = "application/x-json-stream"
    status = 200
    error = "CannotAuthenticate"
    password = ""  # the only one that is let in; none: everybody is
    token = "a-token"
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        login = self.path.startswith("/auth/")
        status = self._status(login)
        body = b"" if login else self.reply
        self.send_response(status)
        if status == 401:
            self.send_header("ExceptionClass", self.error)
            self.send_header("ExceptionMessage", "no")
        self.send_header("X-Rucio-Auth-Token", self.token)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def _status(self, login: bool) -> int:
        if login:
            good = not self.password or self.headers["X-Rucio-Password"] == self.password
        else:
            good = not self.password or self.headers["X-Rucio-Auth-Token"] == self.token
        return (200 if login else self.status) if good else 401

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    handler = type("Handler", (Answers,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    text = f"[client]\nrucio_host={url}\nauth_host={url}\naccount=sync\nauth_type=userpass\nusername=u\n"
    (tmp_path / "rucio.cfg").write_text(text + f"password=HUNTER2\nauth_token_file_path={tmp_path}/token\n")
    monkeypatch.setenv("RUCIO_CONFIG", str(tmp_path / "rucio.cfg"))
    config.clean_cached_config()
    yield handler
    config.clean_cached_config()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def rucio(gateway: type[Answers]) -> Iterator[Rucio]:
    rucio = Rucio(Main(rucio_timeout=5))
    yield rucio
    rucio.close()


def test_nothing_is_sent_before_it_is_needed_and_logins_are_counted_apart(gateway: type[Answers], rucio: Rucio) -> None:
    assert (rucio.requests, rucio.logins, gateway.seen) == (0, 0, [])
    gateway.reply = b'{"rse": "A"}\n{"rse": "B"}\n'
    assert [row["rse"] for row in rucio.rows("list_rses")] == ["A", "B"]
    assert (rucio.requests, rucio.logins) == (1, 1)


def test_the_command_line_does_not_leave(gateway: type[Answers], rucio: Rucio, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["/usr/bin/prog", "--password=HUNTER3"]
    monkeypatch.setattr(sys, "argv", list(command))
    list(rucio.rows("list_rses"))
    assert sys.argv == command
    assert {headers["X-Rucio-Script"] for headers in gateway.seen} == {"phedex-rucio"}
    assert "HUNTER3" not in json.dumps(gateway.seen)


def test_no_password_in_the_log(gateway: type[Answers], rucio: Rucio, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    list(rucio.rows("list_rses"))
    assert any("HUNTER2" in str(headers) for headers in gateway.seen)
    assert "HUNTER2" not in caplog.text


def test_oidc_without_a_token_asks_nobody(gateway: type[Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUCIO_AUTH_TYPE", "oidc")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("prompted"))
    rucio = Rucio(Main())
    with pytest.raises(NotAuthenticated, match="OIDC"):
        rucio.probe()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, r"rucio\.cfg cannot be read: write it"),
        ("[client]\n", r"rucio\.cfg, section \[client\]: .*rucio_host"),
        ("password = HUNTER2\n", r"rucio\.cfg is not of \[sections\] and name = value lines in line 1"),
        (
            "[client]\nrucio_host = ftp://x\nauth_host = http://x\nauth_type=userpass\nusername=u\npassword=HUNTER2",
            "ftp",
        ),
        ("[client]\nrucio_host = http://x\nauth_host = http://x\nauth_type=userpass\npassword=HUNTER2", "username"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "rucio.cfg").write_text(text)
    monkeypatch.setenv("RUCIO_CONFIG", str(tmp_path / "rucio.cfg"))
    config.clean_cached_config()
    for ask in (lambda: check_configuration(Main()), lambda: Rucio(Main()).probe()):
        with pytest.raises(BadRucioConfiguration, match=says) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert "HUNTER2" not in str(caught.value)
    config.clean_cached_config()


def test_a_configuration_that_has_all_is_good_without_asking_anybody(gateway: type[Answers]) -> None:
    check_configuration(Main())
    assert gateway.seen == []


def test_a_refusal_is_answered_by_one_new_client_and_no_more(gateway: type[Answers], rucio: Rucio) -> None:
    gateway.status, gateway.error = 401, "CannotAuthenticate"
    with pytest.raises(NotAuthenticated, match="Rucio refuses our credentials: whoami"):
        rucio.probe()
    assert (rucio.requests, rucio.logins) == (4, 5)  # two clients, each with one new login after its first 401
    gateway.status, gateway.reply = 200, b'{"account": "sync"}'
    assert rucio.probe() == "sync"


def test_a_password_that_was_renewed_in_its_file_is_used(gateway: type[Answers], rucio: Rucio, tmp_path: Path) -> None:
    gateway.password, gateway.reply = "HUNTER2", b'{"account": "sync"}'
    assert rucio.probe() == "sync"
    gateway.password, gateway.token = "renewed", "another-token"
    with pytest.raises(NotAuthenticated, match="refuses our credentials"):
        rucio.probe()
    path = tmp_path / "rucio.cfg"
    path.write_text(path.read_text().replace("HUNTER2", "renewed"))
    assert rucio.probe() == "sync"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"<html>maintenance</html>"),
        ("application/x-json-stream", b'"text"\n'),
        ("application/x-json-stream", b"<html>\n"),
    ],
)
def test_a_page_is_no_list(gateway: type[Answers], rucio: Rucio, kind: str, body: bytes) -> None:
    gateway.kind, gateway.reply = kind, body
    with pytest.raises(RucioError, match=r"list_account_rules me: the reply"):
        list(rucio.rows("list_account_rules", "me", about="me"))


@pytest.mark.parametrize(("kind", "body"), [("text/html", b"<html>"), ("application/x-json-stream", b"")])
def test_a_page_is_no_object(gateway: type[Answers], rucio: Rucio, kind: str, body: bytes) -> None:
    gateway.kind, gateway.reply = kind, body
    with pytest.raises(RucioError, match="the reply"):
        rucio.row("get_replication_rule", "0" * 32)


def test_lists_are_cut_at_what_rucio_takes() -> None:
    assert [len(part) for part in sliced(range(2500), 5000)] == [1000, 1000, 500]
    assert [len(part) for part in sliced(range(5), 2)] == [2, 2, 1]
    assert list(sliced([], 2)) == []


def test_a_call_goes_out_in_its_time_and_says_when(gateway: type[Answers], rucio: Rucio) -> None:
    gateway.kind, gateway.reply = "application/json", b'{"account": "sync"}'
    began = clock()
    sent, answered = rucio.call_by(began + 60, "whoami")
    assert began <= sent <= answered <= clock()
    assert rucio.requests == 1


def test_a_call_whose_time_is_over_is_not_sent_and_the_next_is(gateway: type[Answers], rucio: Rucio) -> None:
    gateway.kind, gateway.reply = "application/json", b'{"account": "sync"}'
    assert rucio.probe() == "sync"
    before = len(gateway.seen)
    with pytest.raises(TooLate) as late:
        rucio.call_by(clock() - 1, "whoami")
    assert not late.value.sent
    assert (len(gateway.seen), rucio.requests) == (before, 1)
    assert rucio.probe() == "sync"


def test_a_call_whose_time_ends_before_the_client_logs_in_anew_is_not_repeated(
    gateway: type[Answers], rucio: Rucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal the client logs in anew and sends the request again, whenever that is: nothing was done."""
    rucio.client  # noqa: B018 -- logged in
    before, gateway.status = len(gateway.seen), 401
    times = iter([10.0, 11.5])
    monkeypatch.setattr(session, "clock", lambda: next(times))
    with pytest.raises(TooLate) as late:
        rucio.call_by(11.0, "whoami")
    assert not late.value.sent
    assert len(gateway.seen) == before + 1


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_call_that_a_gateway_answers_is_sent_once(gateway: type[Answers], rucio: Rucio, status: int) -> None:
    """The client would repeat it, and what it is told then says nothing of the first time."""
    rucio.client  # noqa: B018 -- logged in
    before, gateway.status = len(gateway.seen), status
    with pytest.raises(TooLate) as late:
        rucio.call_by(clock() + 60, "whoami")
    assert late.value.sent
    assert len(gateway.seen) == before + 1


def test_the_clock_goes_on() -> None:
    assert clock() <= clock()
