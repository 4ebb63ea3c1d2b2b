"""The servers that tests ask for by name: started when the first test wants them, gone with the last.

`broker`, `rucio`: one a test session. `amqp_url`: an empty vhost of the broker for this test. `clean_rucio`: the same
Rucio, emptied for this test. `brokers`: a RabbitMQ of a Debian release; `--broker` says which one is `broker`. Where a
server's program is missing, the tests that need it are skipped, or fail if `CI` is set; only brokers of another release
are skipped even then.

With pytest-xdist (`-n`) each of its processes has servers of its own; `shares.py` says which tests it gets.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.stack import processes

KEPT = {"PHEDEX_RUCIO_CACHE"}

Server = TypeVar("Server")


def _scrub_environment() -> None:
    """No variable sends a test to another Rucio, broker or PhEDEx, and the client's token files are ours alone."""
    for name in set(os.environ) - KEPT:
        if name.startswith(("RUCIO_", "PHEDEX_", "AMQP_URL", "RABBITMQ_", "PG")):
            del os.environ[name]
    atexit.register(processes.remove, processes.private_tmp())


def _let_ctrl_c_through() -> None:
    """Whoever starts the tests in the background has them, and every process of theirs, ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_scrub_environment()
_let_ctrl_c_through()

# After the scrubbing: rucio's client decides at its import where its token files lie.
from common.telemetry import logs  # noqa: E402
from tests import shares  # noqa: E402
from tests.stack import broker as broker_stack  # noqa: E402
from tests.stack import rucio_install, rucio_server  # noqa: E402
from tests.stack.broker import Broker  # noqa: E402
from tests.stack.broker_root import RELEASES, broker_root  # noqa: E402
from tests.stack.rucio_server import RucioServer  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which RabbitMQ do the tests run on?"""
    releases = ", ".join(f"{release} has {version}" for release, version in RELEASES.items())
    parser.addoption(
        "--broker",
        choices=["debian", *RELEASES],
        default="debian",
        help=f"whose RabbitMQ: this machine's own (debian), or that of another Debian release ({releases})",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses a server's fixture carries its marker: `-m 'not rucio'` leaves out all that need a Rucio."""
    for item in items:
        for marker in shares.needs(item):
            item.add_marker(marker)
    items.sort(key=shares.turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> shares.Shares:
    """Units of work are handed out in our order, not the largest first."""
    config.option.loadscopereorder = False
    return shares.Shares(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is installed at its first use (minutes on a new machine) is from now on, beside the first tests."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0" and not session.config.option.collectonly:
        if any("rucio" in shares.needs(item) for item in session.items):
            _beside(rucio_install.empty_cluster)
        if any(shares.wants_newer_broker(item) for item in session.items):
            _beside(lambda: broker_root("trixie"))


def _beside(install: Callable[[], object]) -> None:
    def run() -> None:
        with suppress(processes.StackError):  # whoever needs it tries again, and says what is wrong
            install()

    threading.Thread(target=run, daemon=True).start()


def _launch(start: Callable[[], Server]) -> Server:
    try:
        return start()
    except processes.ServerMissing as missing:
        if os.environ.get("CI") and not isinstance(missing, processes.NotHere):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A command that runs in this process sets the levels of all of it: the next test finds them as they were."""
    levels = {name: logging.getLogger(name).level for name in ("", *logs.LIBRARIES)}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="session")
def brokers() -> Iterator[Callable[[str], Broker]]:
    """The RabbitMQ of a Debian release ("debian": this machine's), started at the first call in this session."""
    servers: dict[str, Broker] = {}

    def started(release: str) -> Broker:
        if release not in servers:
            servers[release] = _launch(lambda: broker_stack.launch(release))
        return servers[release]

    yield started
    for server in servers.values():
        server.close()


@pytest.fixture(scope="session")
def broker(brokers: Callable[[str], Broker], pytestconfig: pytest.Config) -> Broker:
    """A RabbitMQ of this test session. A test that stops or freezes it needs no undoing: `amqp_url` heals it."""
    return brokers(pytestconfig.getoption("broker"))


@pytest.fixture
def amqp_url(broker: Broker) -> Iterator[str]:
    """The address of an empty vhost of a running broker."""
    broker.heal()
    vhost = broker.new_vhost()
    yield broker.url(vhost)
    broker.retire_vhost(vhost)


@pytest.fixture(scope="session")
def rucio() -> Iterator[RucioServer]:
    """A Rucio of this test session, with whatever the tests before have left in it."""
    server = _launch(rucio_server.launch)
    yield server
    server.close()


@pytest.fixture
def clean_rucio(rucio: RucioServer) -> Iterator[RucioServer]:
    """A running, empty Rucio without daemons: root, the service account with the attribute admin, the scope `cms`."""
    rucio.reset()
    yield rucio
    rucio.stop_daemons()
