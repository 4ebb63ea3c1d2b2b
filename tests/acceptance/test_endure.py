"""The short form of scripts/endure: sites keep coming back in sync while schedulers and workers are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import endure
from tests.stack.broker import Broker
from tests.stack.rucio_server import RucioServer
from tests.stack.together import Servers

TERMS = endure.Terms(every=4, deep=12, kill=5, change=0.3, most_gap=600, most_takeover=300)


@pytest.mark.timeout(2400)  # what is awaited has limits of its own
def test_sites_keep_coming_back_in_sync(
    clean_rucio: RucioServer, broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    found = endure.play(Servers(broker, clean_rucio, amqp_url), tmp_path, seed=1, minutes=0.35, terms=TERMS)
    endure.report(found)
    assert found.is_good, [*found.wrong, (tmp_path / "log").read_text()[-20_000:]]
    assert found.kills >= 2
