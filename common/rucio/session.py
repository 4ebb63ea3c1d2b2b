"""The door to Rucio: one client a thread, every request counted, every error translated."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import requests
from msgspec.json import Decoder
from requests.adapters import HTTPAdapter

from common.errors import NotAuthenticated, RucioError, System
from common.rucio import configuration, streamed
from common.settings.model import Main
from common.telemetry import metrics
from common.telemetry.redact import hide

with configuration.explained():  # the import alone reads rucio.cfg
    from rucio.client.baseclient import STATUS_CODES_TO_RETRY
    from rucio.client.client import Client
    from rucio.common.config import clean_cached_config
    from rucio.common.exception import CannotAuthenticate

    from common.rucio.errors import OURS, translated

T = TypeVar("T")
Row = dict[str, Any]
FROM_CLIENT = (*OURS, ValueError, StopIteration)

# At DEBUG rucio's client writes the password of a login in clear (seen on 41.5.1): its logger starts at INFO.
_logger = logging.getLogger("common.rucio.client")
_logger.setLevel(logging.INFO)


class Counter:
    """How many HTTP requests were sent, logins apart. Tries that got no answer count as well.

    `verb`: the method of the client that sends the next ones. `send_by`: after this time of `clock` nothing more is
    sent, and nothing twice: the client repeats by itself what got no answer, and what is said of the second time hides
    that the first may be carried out yet. `sent_at`: when the last one went out that was not refused for its login.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.logins = 0
        self.verb = "login"
        self.send_by: float | None = None
        self.sent_at = 0.0


class TooLate(Exception):
    """Raised in place of sending a request whose time is over, or that was sent once before, with no answer: `sent`."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("no answer came to this request" if sent else "the time for this request is over")
        self.sent = sent


def clock() -> float:
    """Seconds that go on while this process, or the machine, is stopped; for spans, not for the time of day."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class _Counting(HTTPAdapter):
    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        is_login = "/auth/" in (request.path_url or "")
        now, limit = clock(), self.counter.send_by
        if limit is not None and (now > limit or self.counter.sent_at > 0):
            raise TooLate(sent=self.counter.sent_at > 0)
        if is_login:
            self.counter.logins += 1
        else:
            self.counter.requests += 1
            self.counter.sent_at = now
        began, status = time.monotonic(), None
        try:
            response = super().send(request, *args, **kwargs)
            status = response.status_code
            if status == requests.codes.unauthorized:  # nothing was done
                self.counter.sent_at = 0.0
            elif limit is not None and status in STATUS_CODES_TO_RETRY:  # something in between answered
                response.close()
                raise TooLate(sent=not is_login)
        finally:
            verb = "login" if is_login else self.counter.verb
            metrics.requested(System.RUCIO, verb, status, time.monotonic() - began)
        return response


class _Client(Client):  # type: ignore[misc]
    """Rucio's client without its habits: it asks nobody for anything and tells the server nothing about our process.

    Rucio's own would send our first command-line argument as a header, rewrite `sys.argv[0]`, and for OIDC without a
    token print an address and wait for somebody to type. It makes a new `session` after each 401: hence the property.
    """

    # A 401 is answered by one new login: where that does not help, a second would not. (Rucio's own: two.)
    AUTH_RETRIES = 1

    script_id = property(lambda _: "phedex-rucio", lambda _, __: None)

    def __init__(self, counter: Counter, **options: Any) -> None:
        self._counter = counter
        program = list(sys.argv)
        try:
            super().__init__(logger=_logger, **options)
        finally:
            sys.argv[:] = program

    def _get_creds(self, creds: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = super()._get_creds(creds)
        hide(str(found.get("password") or ""))
        return found

    @property
    def auth_token(self) -> str:
        return self._auth_token

    @auth_token.setter
    def auth_token(self, token: str) -> None:
        hide(token)
        self._auth_token = token

    @property
    def session(self) -> requests.Session:
        return self._session

    @session.setter
    def session(self, session: requests.Session) -> None:
        for prefix in ("http://", "https://"):
            session.mount(prefix, _Counting(self._counter))
        self._session = session

    def _load_json_data(self, response: requests.Response) -> Iterator[Any]:
        if response.headers.get("content-type") == streamed.KIND:
            return streamed.Rows(response)
        return iter(super()._load_json_data(response))

    def _BaseClient__get_token_oidc(self) -> bool:  # noqa: N802
        raise CannotAuthenticate("no OIDC token is here; bring one (BEARER_TOKEN, BEARER_TOKEN_FILE or `rucio whoami`)")


class _Offline(_Client):
    """A client that is made, and so has read all of its configuration, but has sent nothing."""

    def _BaseClient__authenticate(self) -> None:  # noqa: N802
        if self.auth_type == "oidc" and not self._BaseClient__read_token():
            self._BaseClient__get_token_oidc()


def check_configuration(main: Main) -> None:
    """Rucio's client can be made: rucio.cfg and the RUCIO_* variables have all it needs. Nothing is sent.

    Raises NotAuthenticated: BadRucioConfiguration, or for OIDC without a token, which would have to ask somebody.
    """
    with configuration.explained():
        _translating(lambda: _Offline(Counter(), account=main.rucio_account or None), "login")


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
            self.counter.verb = "login"
            options = {"timeout": self.main.rucio_timeout, "account": self.account}
            with configuration.explained():
                self._client = _translating(lambda: _Client(self.counter, **options), "login")
        return self._client

    @property
    def host(self) -> str:
        """The address of the server."""
        return str(self.client.host)

    def close(self) -> None:
        """The connections are closed; the next call opens new ones."""
        if self._client is not None:
            self._client.session.close()

    def probe(self) -> str:
        """The account that we are for Rucio: it is there, its database too, and it knows us. Raises RucioError."""
        return str(self.row("whoami")["account"])

    def call(self, verb: str, *args: Any, about: str = "", **options: Any) -> Any:
        """What the client's method `verb` returns; its errors as ours, whose text names the verb and `about`."""
        what = f"{verb} {about}".strip()
        try:
            return self._called(verb, what, args, options)
        except NotAuthenticated:
            # Refused before anything was done. Tokens and passwords are renewed in their files while we run.
            self._forget()
            return self._called(verb, what, args, options)

    def _called(self, verb: str, what: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        client = self.client
        self.counter.verb = verb
        return _translating(lambda: getattr(client, verb)(*args, **options), what)

    def _forget(self) -> None:
        """The next call makes a new client of what the configuration says by then."""
        self.close()
        self._client = None
        clean_cached_config()

    def call_by(self, limit: float, verb: str, *args: Any, about: str = "", **options: Any) -> tuple[float, float]:
        """The call is made, if it can be sent by this time of `clock`; when it was sent, and answered.

        Raises TooLate where its time was over before it was sent, or where it got no answer.
        """
        client = self.client  # its login is no part of the call
        self.counter.send_by, self.counter.sent_at = limit, 0.0
        try:
            self.counter.verb = verb
            _translating(lambda: getattr(client, verb)(*args, **options), f"{verb} {about}".strip())
        finally:
            self.counter.send_by = None
        return self.counter.sent_at, clock()

    def row(self, verb: str, *args: Any, about: str = "", **options: Any) -> Row:
        """The one object that a call returns; RucioError where the reply is something else, such as a page of HTML."""
        return _checked(self.call(verb, *args, about=about, **options), f"{verb} {about}".strip())

    def rows(
        self, verb: str, *args: Any, about: str = "", only: Decoder[Any] | None = None, **options: Any
    ) -> Iterator[Row]:
        """The rows of a call that lists, as they arrive. `only`: of a TypedDict, for long lists: see `streamed.Rows`.

        Raises RucioError where the reply breaks off, or holds anything but objects: a gateway's HTML page comes back
        as a list of its text.
        """
        what = f"{verb} {about}".strip()
        stream = iter(self.call(verb, *args, about=about, **options))
        if isinstance(stream, streamed.Rows):
            stream.only = only

        while True:
            self.counter.verb = verb  # some of the client's methods send their request only now
            try:
                row = next(stream, None)
            except FROM_CLIENT as error:
                _raise_ours(error, what)
            if row is None:
                return
            yield _checked(row, what)


def _translating(action: Callable[[], T], what: str) -> T:
    """What the action returns; its errors as ours."""
    try:
        return action()
    except FROM_CLIENT as error:
        _raise_ours(error, what)


def _raise_ours(error: Exception, what: str) -> NoReturn:
    """Our error for one of Rucio's client; a wrong configuration stays what it is.

    A reply that is no JSON is a ValueError in the client, an empty one a StopIteration.
    """
    if isinstance(error, configuration.BY_CONFIGURATION):
        raise error
    if isinstance(error, OURS):
        raise translated(error, what) from error
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
