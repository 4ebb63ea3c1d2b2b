"""The short form of scripts/chaos: some faults of each sort, then quiet, and nothing is lost or wrongly removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import chaos
from tests.stack.broker import Broker
from tests.stack.rucio_server import RucioServer
from tests.stack.together import Servers


@pytest.mark.timeout(2400)  # what is awaited has limits of its own
def test_everything_breaks_and_nothing_is_lost(
    clean_rucio: RucioServer, broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    found = chaos.play(Servers(broker, clean_rucio, amqp_url), tmp_path, seed=1, minutes=0.6)
    chaos.report(found)
    assert found.is_good, (tmp_path / "workers.log").read_text()[-20_000:]
    assert len(found.injected) > 3
