"""Does the proxy disturb what goes through it, and only that?"""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.stack.proxy import Proxy


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[Proxy]:
    with Proxy(server.getsockname()[1]) as running:
        yield running


def _connect(proxy: Proxy, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    remote, _ = server.accept()
    remote.settimeout(10)
    return client, remote


def test_bytes_go_both_ways_and_each_request_waits(proxy: Proxy, server: socket.socket) -> None:
    proxy.delay = 0.1
    client, remote = _connect(proxy, server)
    with client, remote:
        for _ in range(3):
            began = time.monotonic()
            client.sendall(b"question")
            assert remote.recv(100) == b"question"
            assert time.monotonic() - began >= 0.1
            remote.sendall(b"answer")
            assert client.recv(100) == b"answer"
    assert proxy.requests == 3


def test_a_cut_ends_both_sides_and_the_next_connection_works(proxy: Proxy, server: socket.socket) -> None:
    client, remote = _connect(proxy, server)
    with client, remote:
        client.sendall(b"x")
        assert remote.recv(1) == b"x"
        proxy.cut()
        assert client.recv(1) == remote.recv(1) == b""
    again, remote_again = _connect(proxy, server)
    with again, remote_again:
        again.sendall(b"y")
        assert remote_again.recv(1) == b"y"


def test_what_is_frozen_arrives_after_the_thaw(proxy: Proxy, server: socket.socket) -> None:
    client, remote = _connect(proxy, server)
    with client, remote:
        proxy.freeze()
        client.sendall(b"x")
        remote.settimeout(0.2)
        with pytest.raises(TimeoutError):
            remote.recv(1)
        remote.settimeout(10)
        proxy.thaw()
        assert remote.recv(1) == b"x"


def test_a_refusing_proxy_lets_nothing_through(proxy: Proxy, server: socket.socket) -> None:
    proxy.refuse()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        assert client.recv(1) == b""
    proxy.allow()
    server.accept()[0].close()  # the refused one got as far as the server
    client, remote = _connect(proxy, server)
    with client, remote:
        client.sendall(b"x")
        assert remote.recv(1) == b"x"
