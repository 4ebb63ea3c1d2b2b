"""The port of a process: what it says, to whom it does not listen."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from common.errors import UsageError
from common.telemetry import serve

ALIVE: dict[str, str] = {"threads": ""}
READY: dict[str, str] = {"broker": "", "rucio": ""}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> Iterator[int]:
    with serve.serving("127.0.0.1", free_port(), lambda: ALIVE, lambda: READY) as port:
        yield port


def asked(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_pages(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    status, text = asked(port, "/metrics")
    assert status == 200
    assert "phedex_rucio_build_info" in text
    assert asked(port, "/")[0] == 404
    assert asked(port, "/healthz") == (200, json.dumps({"status": "ok", "parts": {"threads": "ok"}}, indent=2) + "\n")
    monkeypatch.setitem(READY, "rucio", "away: http://u:geheimgeheim@h does not answer")
    status, text = asked(port, "/readyz")
    assert status == 503
    assert json.loads(text) == {
        "status": "failing",
        "parts": {"broker": "ok", "rucio": "away: http://u:***@h does not answer"},
    }


def test_who_says_nothing_holds_up_nobody_and_is_left_in_the_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LIMIT", 0.5)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(serve.AT_ONCE - 1)]
    for connection in silent:
        connection.sendall(b"GET /metr")
    assert asked(port, "/healthz")[0] == 200
    for connection in silent:
        connection.settimeout(10)
        assert connection.recv(1) == b""
        connection.close()
    assert asked(port, "/healthz")[0] == 200


def test_very_many_at_once_are_turned_away(port: int) -> None:
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(serve.AT_ONCE + 1)]
    crowd[-1].settimeout(10)
    assert crowd[-1].recv(1) == b""
    for connection in crowd:
        connection.close()
    end = time.monotonic() + 10
    while True:  # as soon as one of them is noticed to be gone
        try:
            assert asked(port, "/healthz")[0] == 200
            break
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end


def test_a_port_that_is_taken_is_said_in_a_line(port: int) -> None:
    taken = serve.serving("127.0.0.1", port, lambda: ALIVE, lambda: READY)
    with pytest.raises(UsageError, match=rf"main.metrics_port: 127.0.0.1:{port} cannot be listened on"), taken:
        pass


def test_no_port_is_no_server() -> None:
    with serve.serving("127.0.0.1", 0, lambda: ALIVE, lambda: READY) as port:
        assert port == 0
