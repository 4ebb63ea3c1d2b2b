"""One connection to the broker on a thread of its own: how is it opened, kept, reopened and closed?"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol
from urllib.parse import unquote, urlsplit

import pika
from pika import exceptions
from pika.adapters.blocking_connection import BlockingConnection
from pika.adapters.select_connection import IOLoop, SelectConnection

from common.errors import BrokerAway, BrokerBlocked, BrokerError, BrokerRefused
from common.settings.model import Main

log = logging.getLogger("phedex_rucio.broker")

PAUSE, PAUSE_MAX = 0.2, 5.0
TURN = 1.0  # seconds between two signs of life of the loop
REFUSED = (403, 530)  # ACCESS_REFUSED: the user or its rights; NOT_ALLOWED: no such vhost


class User(Protocol):
    """What uses a connection. Both are called on its I/O thread and must not block."""

    def opened(self, connection: SelectConnection) -> None:
        """The connection is open (again): nothing of an earlier one is valid any more."""

    def closed(self, reason: BrokerError) -> None:
        """The connection is lost; it is reopened without being asked."""


class Connection:
    """An open connection, or one that is being reopened with growing pauses until `close`.

    Handlers never run on its thread, so heartbeats flow however long they take.
    """

    def __init__(self, main: Main, name: str) -> None:
        self.main, self.name = main, name
        self.blocked = ""
        self._urls = urls(main)
        self._tries = 0
        self._loop = IOLoop()
        self._pika: SelectConnection | None = None
        self._users: list[User] = []
        self._state = threading.Condition()
        self._is_open = False
        self._closing = False
        self._reason: BrokerError = BrokerAway(f"no connection to {where(self._urls[0])} yet")
        self._refused = False
        self._turned = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"amqp-{name}", daemon=True)
        self._thread.start()

    # What any thread may call

    @property
    def is_open(self) -> bool:
        """True while commands can be sent."""
        return self._is_open

    @property
    def still(self) -> float:
        """Seconds since its loop last turned: more than a few, and the thread hangs or is dead."""
        return time.monotonic() - self._turned

    @property
    def reason(self) -> BrokerError:
        """Why it is not open: the last failure."""
        return self._reason

    def wait_open(self, timeout: float | None = None) -> None:
        """The connection is open; BrokerAway at the timeout (seconds), at once if user or vhost are refused."""
        limit = self.main.connect_timeout if timeout is None else timeout
        with self._state:
            self._state.wait_for(lambda: self._is_open or self._refused or self._closing, limit)
            if not self._is_open:
                raise type(self._reason)(*self._reason.args)

    def attach(self, user: User) -> None:
        """`user` hears of every opening and closing from now on, at once if it is open."""
        self.call(lambda: self._attach(user))

    def call(self, function: Callable[[], None]) -> None:
        """`function` runs on the I/O thread soon; never after `close`. Functions run in the order of the calls."""
        if not self._closing or threading.current_thread() is self._thread:
            self._loop.add_callback_threadsafe(function)

    def later(self, seconds: float, function: Callable[[], None]) -> object:
        """`function` runs on the I/O thread after some seconds; only to be called on that thread."""
        return self._loop.call_later(seconds, function)

    def close(self, timeout: float = 5) -> None:
        """The connection is closed and its thread ended; after `timeout` seconds it is left to die alone."""
        if not self._closing:
            self._loop.add_callback_threadsafe(self._close)
        self._thread.join(timeout)

    def end(self) -> None:
        """The connection is closed soon and never opened again; nobody waits for that. Any thread may call it."""
        self._loop.add_callback_threadsafe(self._close)

    # What happens on the I/O thread

    def _run(self) -> None:
        self._turn()
        self._connect()
        while True:
            try:
                self._loop.start()
                break
            except Exception:
                # A mistake in a callback, ours or pika's: the channels' state is unknown, so a fresh connection.
                log.exception("broker connection: a callback failed", extra={"connection": self.name})
                self._abandon(BrokerAway("the connection was given up after a mistake in this program; see the log"))
        self._loop.close()

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._loop.call_later(TURN, self._turn)

    def _attach(self, user: User) -> None:
        self._users.append(user)
        if self._pika is not None and self._is_open:
            user.opened(self._pika)

    def _connect(self) -> None:
        if self._closing:
            return
        url = self._urls[self._tries % len(self._urls)]
        self._pika = SelectConnection(
            parameters(self.main, url, self.name),
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._lost,
            custom_ioloop=self._loop,
        )

    def _opened(self, connection: SelectConnection) -> None:
        if connection is not self._pika or connection is None:
            return
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        log.info("broker connection open", extra={"connection": self.name, "broker": self._broker()})
        self.blocked = ""
        self._tries = 0
        with self._state:
            self._is_open, self._refused = True, False
            self._state.notify_all()
        for user in self._users:
            user.opened(connection)

    def _failed(self, connection: SelectConnection, error: BaseException | str) -> None:
        if connection is self._pika:
            self._gone(error)

    def _lost(self, connection: SelectConnection, error: BaseException) -> None:
        if connection is self._pika:
            self._gone(error)

    def _gone(self, error: BaseException | str) -> None:
        self._pika = None
        reason = explain(error, self._urls[self._tries % len(self._urls)])
        refused = isinstance(reason, BrokerRefused)
        was_open = self._is_open
        with self._state:
            self._is_open, self._refused, self._reason = False, refused, reason
            self._state.notify_all()
        if was_open:
            for user in self._users:
                user.closed(reason)
        if self._closing:
            self._loop.stop()
        else:
            self._again(reason)

    def _again(self, reason: BrokerError) -> None:
        self._tries += 1
        pause = jittered(min(PAUSE_MAX, PAUSE * 2 ** ((self._tries - 1) // len(self._urls))))
        log.warning("broker away: %s", reason, extra={"connection": self.name, "pause": round(pause, 2)})
        self._loop.call_later(pause, self._connect)

    def _abandon(self, reason: BrokerAway) -> None:
        dropped, self._pika = self._pika, None
        if dropped is not None and dropped.is_open:
            dropped.close()
        self._gone(reason)

    def _blocked(self, _connection: object, frame: pika.frame.Method) -> None:
        self.blocked = str(frame.method.reason) or "no reason given"
        log.warning("broker blocks publishers: %s", self.blocked, extra={"connection": self.name})

    def _unblocked(self, _connection: object, _frame: object) -> None:
        self.blocked = ""
        log.info("broker takes messages again", extra={"connection": self.name})

    def _close(self) -> None:
        self._closing = True
        if self._pika is None or self._pika.is_closed or self._pika.is_closing:
            self._loop.stop()
        else:
            self._pika.close()

    def _broker(self) -> str:
        return where(self._urls[self._tries % len(self._urls)])


@contextmanager
def blocking(main: Main, name: str) -> Iterator[BlockingConnection]:
    """A plain blocking connection for a short piece of work on one thread: declaring, looking, counting.

    Every URL is tried once; raises BrokerAway, also when the connection is lost inside.
    """
    connection = _first(main, name)
    try:
        yield connection
    except exceptions.AMQPConnectionError as error:
        raise explain(error, urls(main)[0]) from error
    finally:
        # What was done is done. Closing, pika gives back what came too late, which a stream refuses (540, seen).
        with suppress(exceptions.ConnectionClosedByBroker):
            if connection.is_open:
                connection.close()


def _first(main: Main, name: str) -> BlockingConnection:
    reason: BrokerError = BrokerAway("no URL of a broker is set")
    for url in urls(main):
        try:
            return BlockingConnection(parameters(main, url, name))
        except (exceptions.AMQPError, OSError) as error:
            reason = explain(error, url)
    raise reason


def jittered(seconds: float) -> float:
    """Between half and all of a pause: many workers lose a system at the same moment and must not return as one."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - no secret


def urls(main: Main) -> list[str]:
    """The brokers to try, in order; `amqp_url` may name several, separated by commas."""
    return [url.strip() for url in main.amqp_url.split(",") if url.strip()]


def parameters(main: Main, url: str, name: str) -> pika.URLParameters:
    """What pika wants to know; the time limits are those of the settings."""
    result = pika.URLParameters(url)
    result.heartbeat = main.heartbeat
    result.blocked_connection_timeout = main.blocked_timeout or None
    result.socket_timeout = main.connect_timeout
    result.stack_timeout = main.connect_timeout
    result.connection_attempts = 1
    result.client_properties = {"connection_name": f"phedex-rucio {name}"}
    return result


def where(url: str) -> str:
    """The broker of a URL for people: user, host, port and vhost, never the password."""
    parts = urlsplit(url)
    user = unquote(parts.username or "guest")
    port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    return f"{user}@{parts.hostname or '127.0.0.1'}:{port} vhost {unquote(parts.path[1:]) or '/'}"


def explain(error: BaseException | str, url: str) -> BrokerError:
    """What pika says as one of our errors, with the broker's name and what to look at."""
    chain = _unwrapped(error)
    text = next((t for t in (_text(e) for e in chain) if t), str(error) or type(error).__name__)
    if any(isinstance(e, exceptions.ConnectionBlockedTimeout) for e in chain):
        return BrokerBlocked(f"broker {where(url)} holds publishers back (memory or disk alarm): {text}")
    if any(_is_refusal(e) for e in chain):
        return BrokerRefused(
            f"broker {where(url)} refuses the connection: {text}; check the user, its password and the vhost"
        )
    return BrokerAway(f"no connection to broker {where(url)}: {text}")


def _unwrapped(error: BaseException | str) -> list[BaseException]:
    """An error and what pika packed into it (`exceptions`, `exception`, or arguments that are errors)."""
    if not isinstance(error, BaseException):
        return []
    inner = [*getattr(error, "exceptions", ()), getattr(error, "exception", None), *error.args]
    return [*(e for i in inner if isinstance(i, BaseException) for e in _unwrapped(i)), error]


def _is_refusal(error: BaseException) -> bool:
    refused = (
        exceptions.AuthenticationError,
        exceptions.ProbableAuthenticationError,
        exceptions.ProbableAccessDeniedError,
    )
    return isinstance(error, refused) or getattr(error, "reply_code", None) in REFUSED


def _text(error: BaseException) -> str:
    return str(getattr(error, "reply_text", "") or getattr(error, "strerror", "") or "")
