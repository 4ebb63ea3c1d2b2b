"""Does a request end in time, whatever the other side of the connection does, and is TLS always verified?"""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import PhedexUnreachable, Untrusted
from common.phedex import trust
from common.phedex.client import Phedex
from common.phedex.transport import ReplyTooLarge
from common.settings.model import Main
from tests.unit.phedex import good

OK = b"HTTP/1.1 200 OK\r\n"
Talk = Callable[[socket.socket], None]


def _say(content: bytes) -> Talk:
    return lambda connection: connection.sendall(content)


def _drip(content: bytes, drop: bytes) -> Talk:
    """Says something every few milliseconds until nobody listens any more."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(content)
        while not threading.Event().wait(0.02):
            connection.sendall(drop)

    return talk


def _listen(connection: socket.socket) -> None:
    """The whole request is read: a connection that is closed with something unread is reset, not ended."""
    with connection.makefile("rb") as request:
        request.readline()
        request.read(int(http.client.parse_headers(request).get("Content-Length", 0)))


@contextmanager
def _server(talk: Talk, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """An address where each connection is answered by `talk` and then closed."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) if context else connection as secure:
                    _listen(secure)
                    talk(secure)
            except OSError:
                connection.close()  # the client has gone, which is what it should do

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}/phedex/datasvc"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("talk", "expected"),
    [
        (_drip(OK + b"X-Slow: ", b"x"), (PhedexUnreachable, trust.Truncated)),
        (_drip(OK + b"Content-Length: 99999\r\n\r\n", b"x"), PhedexUnreachable),
        (_drip(OK + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", b"x"), PhedexUnreachable),
        (_drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"), PhedexUnreachable),
        (_say(OK + b"Content-Length: 99999\r\n\r\n{}"), PhedexUnreachable),
        (_say(OK + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n'), PhedexUnreachable),
        (_say(OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"), PhedexUnreachable),
        (_say(OK + b"\r\n"), trust.Truncated),
        (_say(b"hello\r\n\r\n"), PhedexUnreachable),
        (_say(b""), PhedexUnreachable),
    ],
)
def test_a_request_ends_and_nothing_is_believed(talk: Talk, expected: type[Exception]) -> None:
    with _server(talk) as address:
        main = Main(phedex_url=f"http://{address}", phedex_timeout=0.4, phedex_tries=1)
        with Phedex(main) as phedex, pytest.raises(expected):
            phedex.probe()


def test_a_body_without_end_is_cut_at_the_limit() -> None:
    with _server(_drip(OK + b"\r\n", b"x" * 100_000)) as address:
        main = Main(phedex_url=f"http://{address}", phedex_reply_bytes=1_000_000, phedex_tries=1)
        with Phedex(main) as phedex, pytest.raises(ReplyTooLarge, match="more than 1000000 bytes"):
            phedex.probe()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", context


def test_a_certificate_nobody_vouches_for_is_refused(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, context = certificate
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))  # the environment decides nothing
    with _server(_say(OK + b"\r\n"), context) as address:
        main = Main(phedex_url=f"https://{address}", phedex_tries=1)
        with Phedex(main) as phedex, pytest.raises(PhedexUnreachable, match="CERTIFICATE_VERIFY_FAILED"):
            phedex.probe()


def test_a_bundle_of_our_own_is_used_and_the_time_limit_holds_with_tls(
    certificate: tuple[Path, ssl.SSLContext],
) -> None:
    bundle, context = certificate
    body = good.body(good.envelope("blockreplicas", block=[]))
    with _server(_say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body), context) as address:
        main = Main(phedex_url=f"https://{address}", phedex_ca=str(bundle), phedex_tries=1)
        with Phedex(main) as phedex, pytest.raises(trust.Stale):  # read whole, and of another year
            phedex.probe()
    with _server(_drip(OK, b"x"), context) as address:
        main = Main(phedex_url=f"https://{address}", phedex_ca=str(bundle), phedex_tries=1, phedex_timeout=0.4)
        with Phedex(main) as phedex, pytest.raises((PhedexUnreachable, Untrusted)):
            phedex.probe()
