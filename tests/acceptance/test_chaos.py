"""The short form of scripts/chaos: some faults of each sort, then quiet, and nothing is lost or wrongly removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts import chaos
from scripts.breaking import Hindered, lies
from scripts.operators import Approvals, typed
from tests.stack.broker import Broker
from tests.stack.rucio_server import RucioServer
from tests.stack.together import Servers


@pytest.mark.timeout(2400)  # what is awaited has limits of its own
def test_everything_breaks_and_nothing_is_lost(
    clean_rucio: RucioServer, broker: Broker, amqp_url: str, tmp_path: Path
) -> None:
    found = chaos.play(Servers(broker, clean_rucio, amqp_url), tmp_path, seed=1, terms=chaos.Terms(seconds=36))
    chaos.report(found)
    assert found.is_good, (tmp_path / "workers.log").read_text()[-20_000:]
    assert len(found.injected) > 3


def test_never_all_independent_questions_lie_in_agreement() -> None:
    """That a block is listed nowhere, and that it was deleted: no two of these at once, and no silent lie in all."""
    absent, deleted = {"blockreplicas", "filereplicas"}, {"deletions"}
    for lie in lies():
        assert not (set(lie.calls) & absent and set(lie.calls) & deleted), lie
        assert lie.calls != ("*",) or lie.kind not in ("empty", "missing_block", "false_deletions", "half_files"), lie
    assert {lie.calls for lie in lies() if lie.kind == "missing_block"} > {("blockreplicas",), ("data",)}


def test_seconds_in_which_rucio_was_held_up() -> None:
    hindered, now = Hindered(), datetime.now(UTC)
    with hindered.now(), hindered.now():
        assert hindered.seconds(now - timedelta(hours=1), now + timedelta(hours=1)) > 0
    assert len(hindered.spans) == 1
    spans = [(now, now + timedelta(seconds=4)), (now + timedelta(seconds=10), now + timedelta(seconds=11))]
    assert Hindered(spans).seconds(now + timedelta(seconds=1), now + timedelta(seconds=10.5)) == 3.5


def test_operators_type_only_what_approves() -> None:
    line = "phedex-rucio sync site T2_IT_Pisa --approve 20260101T000000-abcdef --reason '<why>' --wait"
    assert typed(line)[:5] == ["sync", "site", "T2_IT_Pisa", "--approve", "20260101T000000-abcdef"]
    assert typed(line)[5:] == ["--reason", "an operator said so"]
    assert typed("phedex-rucio plan T2_IT_Pisa") == typed("rm -rf / --approve x") == []
    assert Approvals().old == []
