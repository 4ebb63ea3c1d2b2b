"""The door to Rucio: one client a thread, every request counted, every error translated."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from rucio.client.client import Client
from rucio.common.exception import CannotAuthenticate

from common.errors import RucioError
from common.rucio.errors import OURS, translated
from common.settings.model import Main

T = TypeVar("T")
Row = dict[str, Any]

# At DEBUG rucio's client writes the password of a login in clear (seen on 41.5.1): its logger starts at INFO.
_logger = logging.getLogger("common.rucio.client")
_logger.setLevel(logging.INFO)


class Counter:
    """How many HTTP requests were sent, logins apart. Tries that got no answer count as well."""

    def __init__(self) -> None:
        self.requests = 0
        self.logins = 0


class _Counting(HTTPAdapter):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if "/auth/" in (request.path_url or ""):
            self.counter.logins += 1
        else:
            self.counter.requests += 1
        return super().send(request, *args, **kwargs)


class _Client(Client):  # type: ignore[misc]
    """Rucio's client without its habits: it asks nobody for anything and tells the server nothing about our process.

    Rucio's own would send our first command-line argument as a header, rewrite `sys.argv[0]`, and for OIDC without a
    token print an address and wait for somebody to type. It makes a new `session` after each 401: hence the property.
    """

    script_id = property(lambda _: "phedex-rucio", lambda _, __: None)

    def __init__(self, counter: Counter, **options: Any) -> None:
        self._counter = counter
        program = list(sys.argv)
        try:
            super().__init__(logger=_logger, **options)
        finally:
            sys.argv[:] = program

    @property
    def session(self) -> requests.Session:
        return self._session

    @session.setter
    def session(self, session: requests.Session) -> None:
        for prefix in ("http://", "https://"):
            session.mount(prefix, _Counting(self._counter))
        self._session = session

    def _BaseClient__get_token_oidc(self) -> bool:  # noqa: N802
        raise CannotAuthenticate("no OIDC token is here; bring one (BEARER_TOKEN, BEARER_TOKEN_FILE or `rucio whoami`)")


class Rucio:
    """Rucio for one thread, as RUCIO_CONFIG, RUCIO_HOME and RUCIO_ACCOUNT say. Nothing is sent before it is needed.

    `account`: another account to act as; without it that of the settings, of RUCIO_ACCOUNT, or of rucio.cfg.
    """

    def __init__(self, main: Main, account: str | None = None) -> None:
        self.main = main
        self.account = account or main.rucio_account or None
        self.counter = Counter()
        self._client: Any = None

    @property
    def requests(self) -> int:
        """The HTTP requests sent so far, without logins."""
        return self.counter.requests

    @property
    def logins(self) -> int:
        """The logins sent so far."""
        return self.counter.logins

    @property
    def client(self) -> Any:
        """Rucio's own client; made, and logged in where no token is at hand, at the first use."""
        if self._client is None:
            options = {"timeout": self.main.rucio_timeout, "account": self.account}
            self._client = _translating(lambda: _Client(self.counter, **options), "login")
        return self._client

    def close(self) -> None:
        """The connections are closed; the next call opens new ones."""
        if self._client is not None:
            self._client.session.close()

    def probe(self) -> str:
        """The account that we are for Rucio: it is there, its database too, and it knows us. Raises RucioError."""
        return str(self.row("whoami")["account"])

    def call(self, verb: str, *args: Any, about: str = "", **options: Any) -> Any:
        """What the client's method `verb` returns; its errors as ours, whose text names the verb and `about`."""
        client = self.client
        return _translating(lambda: getattr(client, verb)(*args, **options), f"{verb} {about}".strip())

    def row(self, verb: str, *args: Any, about: str = "", **options: Any) -> Row:
        """The one object that a call returns; RucioError where the reply is something else, such as a page of HTML."""
        return _checked(self.call(verb, *args, about=about, **options), f"{verb} {about}".strip())

    def rows(self, verb: str, *args: Any, about: str = "", **options: Any) -> Iterator[Row]:
        """The rows of a call that lists, as they arrive.

        Raises RucioError where the reply breaks off, or holds anything but objects: a gateway's HTML page comes back
        as a list of its text.
        """
        what = f"{verb} {about}".strip()
        stream = iter(self.call(verb, *args, about=about, **options))
        while (row := _translating(lambda: next(stream, None), what)) is not None:
            yield _checked(row, what)


def _translating(action: Callable[[], T], what: str) -> T:
    """What the action returns. A reply that is no JSON is a ValueError in the client, an empty one a StopIteration."""
    try:
        return action()
    except OURS as error:
        raise translated(error, what) from error
    except (ValueError, StopIteration) as error:
        raise RucioError(f"Rucio: {what}: the reply is not what it should be ({error!r:.200})") from None


def _checked(row: object, what: str) -> Row:
    if isinstance(row, dict):
        return row
    raise RucioError(f"Rucio: {what}: the reply is no object but begins with {str(row)[:80]!r}")


def sliced(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter; at most 1,000, which is what Rucio takes in a list."""
    part: list[T] = []
    for item in items:
        part.append(item)
        if len(part) >= min(size, 1000):
            yield part
            part = []
    if part:
        yield part
