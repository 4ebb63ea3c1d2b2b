"""Which tests come first, and which go to the same one of pytest-xdist's processes (`-n`)?

Each process has servers of its own. Most tests wait for servers more than they compute, and last from milliseconds to a
minute: those are handed out one by one, to whoever is free.
"""

import pytest
from xdist.scheduler import LoadScopeScheduling

NEEDS = {"broker": "broker", "amqp_url": "broker", "brokers": "broker", "rucio": "rucio", "clean_rucio": "rucio"}
ONE_BY_ONE = ("tests/acceptance/", "tests/contract/", "tests/integration/", "tests/property/")
# One more broker is started for these; or something is set up for the file.
TOGETHER = (
    "tests/integration/broker/test_newer_brokers.py",
    "tests/integration/test_datasvc.py",
    "tests/integration/test_phedex_client.py",
    "tests/integration/test_phedex_transport.py",
    "tests/integration/test_policy_package.py",
)


class Shares(LoadScopeScheduling):
    """Units of work: a file where its tests are quick or share something, else a single test; in pytest's order."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if is_alone(nodeid) else nodeid.partition("::")[0]


def is_alone(nodeid: str) -> bool:
    """True if the test may run in another process than the others of its file."""
    return nodeid.startswith(ONE_BY_ONE) and not nodeid.startswith(TOGETHER)


def needs(item: pytest.Item) -> set[str]:
    """The servers that a test uses: `broker`, `rucio`."""
    return {NEEDS[name] for name in getattr(item, "fixturenames", ()) if name in NEEDS}


def wants_newer_broker(item: pytest.Item) -> bool:
    """True if the test starts a RabbitMQ of another release, whatever `--broker` says."""
    names = getattr(item, "fixturenames", ())
    return "brokers" in names and "broker" not in names


def turn(item: pytest.Item) -> int:
    """What is sorted by: without servers first (meanwhile theirs are installed), then a broker alone, then Rucio."""
    return max(({"broker": 1, "rucio": 2}[name] for name in needs(item)), default=0)
