"""How is PhEDEx asked? One POST, bounded in time and size, that never follows a redirect."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import requests
import urllib3
from requests.adapters import HTTPAdapter

from common.errors import PhedexBadRequest, PhedexError, PhedexStatus, PhedexUnreachable, System, UsageError, Verdict
from common.phedex.trust import SHOWN, Answer, Question
from common.settings.model import Main
from common.telemetry import metrics
from common.telemetry.redact import redact

CONNECT_TIMEOUT = 10.0
PIECE = 256 * 1024
# `ConnectionError(MaxRetryError('… (Caused by NewConnectionError("…: [Errno 111] Connection refused"))'))`
_ERRNO = re.compile(r"\[Errno -?\d+\] ([\w ,.-]+)")


class PhedexBusy(PhedexStatus):
    """PhEDEx answered 5xx or 429: another try may do."""


class ReplyTooLarge(PhedexError):
    """A reply is larger than `phedex_reply_bytes`: ask for less, or allow more."""

    verdict: ClassVar[Verdict] = Verdict.DIE


@contextlib.contextmanager
def _cut_off(connection: urllib3.connection.HTTPConnection) -> Iterator[None]:
    """The connection is shut when its time is up: a time limit of a socket is one of silence, not of dripping."""
    limit, channel = connection.timeout, connection.sock

    def shut() -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(channel, socket.SHUT_RDWR)

    timer = threading.Timer(float(limit) if isinstance(limit, int | float) else CONNECT_TIMEOUT, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Http(urllib3.connection.HTTPConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        with _cut_off(self):
            return super().getresponse()


class _Https(urllib3.connection.HTTPSConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        with _cut_off(self):
            return super().getresponse()


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _Limited(HTTPAdapter):
    """Connections whose status line and headers must be there in time too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


def session(main: Main) -> requests.Session:
    """A session for one thread. TLS is always verified, and the environment (proxies, netrc, bundles) plays no part.

    Raises UsageError for a bundle, certificate or key that is not there.
    """
    for setting in ("phedex_ca", "phedex_cert", "phedex_key"):
        path = getattr(main, setting)
        if path and not Path(path).exists():
            raise UsageError(f"{setting}: there is no {path}")
    made = requests.Session()
    made.trust_env = False
    made.mount("http://", _Limited())
    made.mount("https://", _Limited())
    made.verify = main.phedex_ca or True
    made.headers["User-Agent"] = "phedex-rucio"  # PhEDEx answers HTML instead of plain text to `Mozilla`
    if main.phedex_cert:
        made.cert = (main.phedex_cert, main.phedex_key) if main.phedex_key else main.phedex_cert
    return made


def _reason(error: Exception) -> str:
    """What the system said, which requests and urllib3 wrap in their own words, each with the address again."""
    said = _ERRNO.search(repr(error))
    return said[1] if said else f"{error!r:.300}"


def post(channel: requests.Session, url: str, question: Question, *, timeout: float, limit: int) -> Answer:
    """The answer to a question, status 200 or 3xx, read to its end within `timeout` seconds and `limit` bytes in all.

    Raises PhedexUnreachable, PhedexBadRequest, PhedexBusy, PhedexStatus, ReplyTooLarge, and UsageError for a URL that
    cannot be used.
    """
    asked_at, began = time.time(), time.monotonic()
    deadline, status = began + timeout, None
    try:
        with channel.post(
            url,
            data=list(question.options),
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
        ) as response:
            body = _body(response, question, deadline, limit)
            status = response.status_code
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema) as e:
        raise UsageError(f"phedex_url: {redact(url)} cannot be asked: {redact(str(e))}") from None
    except (OSError, urllib3.exceptions.HTTPError) as error:  # all that requests raises is an OSError
        raise PhedexUnreachable(redact(f"{question}: no whole answer from {url}: {_reason(error)}")) from error
    finally:
        metrics.requested(System.PHEDEX, question.call, status, time.monotonic() - began)
    _check_status(status, body, question)
    return Answer(status, body, asked_at, time.time(), response.headers.get("Location", ""))


def _body(response: requests.Response, question: Question, deadline: float, limit: int) -> bytearray:
    """All of the body. Read in pieces as they come: each wait is limited, and so is their sum."""
    body = bytearray()
    while piece := response.raw.read1(PIECE, decode_content=True):
        body += piece
        if len(body) > limit:
            raise ReplyTooLarge(f"{question}: more than {limit} bytes: ask for less, or raise phedex_reply_bytes")
        if time.monotonic() > deadline:
            raise PhedexUnreachable(f"{question}: not at its end after {len(body)} bytes when the time was up")
    return body


def _check_status(status: int, body: bytearray, question: Question) -> None:
    if status == 200 or 300 <= status < 400:
        return
    text = " ".join(bytes(body[: 4 * SHOWN]).decode(errors="replace").split())[:SHOWN]
    message = f"{question}: status {status}: {text}"
    if status in (400, 404) and not text.startswith("<"):
        raise PhedexBadRequest(message)  # PhEDEx's own text; an HTML page is of a front end that lost PhEDEx
    if status >= 500 or status == 429:
        raise PhedexBusy(message)
    raise PhedexStatus(message)
