"""The metrics: named as the document names them, there from the start, and true to what was done."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import generate_latest

from common.broker.consumer import Delivery
from common.broker.publisher import Outgoing
from common.errors import System
from common.messages.commands import KINDS, SyncSite
from common.messages.events import GuardReport
from common.messages.meta import Meta
from common.outcome import Outcome
from common.sync.limits import Limit
from common.telemetry import metrics
from consumers.apply.batch import Fate
from consumers.engine.result import Result
from consumers.engine.telling import Ended, Telling, planned

DOCUMENT = (Path(__file__).parents[3] / "docs/metrics.md").read_text()


def value(name: str, **labels: str) -> float:
    """A sample of the registry; fails where there is none."""
    found = metrics.REGISTRY.get_sample_value(f"phedex_rucio_{name}", labels)
    assert found is not None, f"{name} {labels}"
    return found


def test_the_document_names_what_the_registry_has() -> None:
    families = {family.name + ("_total" if family.type == "counter" else "") for family in metrics.REGISTRY.collect()}
    ours = {
        name + ("_info" if name.endswith("_build") else "") for name in families if name.startswith("phedex_rucio_")
    }
    assert ours == set(re.findall(r"^\| `(phedex_rucio_\w+)`", DOCUMENT, re.MULTILINE))


def test_names_follow_the_conventions_of_prometheus() -> None:
    for family in metrics.REGISTRY.collect():
        assert not re.search(r"(_ms|_milliseconds|_minutes|_kb|_mb|_percent)$", family.name)
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert not {"dataset", "block", "file", "name", "key", "id"} & sample.labels.keys()


def test_what_is_known_is_there_from_the_start() -> None:
    for kind in KINDS:
        for end in (*(o.value for o in Outcome if o is not Outcome.DROPPED), "retry", "away", "handed_back", "lost"):
            value("commands_total", kind=kind, outcome=end)
        value("command_duration_seconds_count", kind=kind)
    for fate in Fate:
        value("blocks_total", result=fate.value)
    for name in ("command_still_seconds", "scheduler_active"):
        value(name)
    for limit in Limit:
        value("holds_total", limit=limit.value)
    for system in System:
        value("system_away", system=system.value)
    assert b"_created" not in generate_latest(metrics.REGISTRY)


def handled(ended: Ended, kind: str = "sync.blocks", attempt: int = 1) -> None:
    with Telling(Delivery(kind, kind, b"", "m", 0, 0, 0)) as telling:
        assert value("commands_in_hand", kind=kind) == 1
        metrics.requested(System.RUCIO, "whoami", 200, 0.5)
        telling.ended(Meta(attempt=attempt), "key", ended)
    assert value("commands_in_hand", kind=kind) == 0


def test_an_execution_is_counted_by_its_end_and_a_batch_by_its_blocks() -> None:
    samples = {
        "commands_total": {"kind": "sync.blocks", "outcome": "changed"},
        "command_duration_seconds_count": {"kind": "sync.blocks"},
        "command_attempts_sum": {"kind": "sync.blocks"},
        "children_total": {"kind": "sync.blocks"},
        "blocks_total": {"result": "added"},
        "files_total": {"change": "removed"},
        "file_bytes_total": {"change": "added"},
        "upstream_requests_total": {"system": "rucio", "call": "whoami", "status": "200"},
    }
    before = {name: value(name, **labels) for name, labels in samples.items()}
    counts = {"added": 3, "files_removed": 5, "bytes": 1000}
    handled(Ended("changed", [Outgoing("", "", b"")], counts, children=2), attempt=4)
    handled(Ended("retry", []), attempt=4)
    grown = {name: value(name, **labels) - before[name] for name, labels in samples.items()}
    assert grown == {
        "commands_total": 1,
        "command_duration_seconds_count": 2,
        "command_attempts_sum": 4,
        "children_total": 2,
        "blocks_total": 3,
        "files_total": 5,
        "file_bytes_total": 1000,
        "upstream_requests_total": 2,
    }


def test_a_site_is_in_sync_as_of_a_whole_reading_and_never_goes_back() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    site = SyncSite(node="T2_XX_Metrics")
    labels = {"node": site.node}
    planned(site, Result(Outcome.CHANGED, as_of=at))
    assert value("site_read_timestamp_seconds", **labels) == at.timestamp()
    assert metrics.REGISTRY.get_sample_value("phedex_rucio_site_in_sync_timestamp_seconds", labels) is None
    planned(SyncSite(node=site.node, dataset="/A/*/*"), Result(Outcome.IN_SYNC, as_of=at))
    assert metrics.REGISTRY.get_sample_value("phedex_rucio_site_in_sync_timestamp_seconds", labels) is None
    planned(site, Result(Outcome.IN_SYNC, as_of=at))
    planned(site, Result(Outcome.IN_SYNC, as_of=at - timedelta(days=1)))
    assert value("site_in_sync_timestamp_seconds", **labels) == at.timestamp()


def test_a_hold_is_counted_and_told_until_a_plan_holds_nothing() -> None:
    site, before = SyncSite(node="T2_XX_Held"), value("holds_total", limit="share")
    report = GuardReport(limit="share", share=0.4, number=40, held=40)
    planned(site, Result(Outcome.HELD, guard=report))
    assert value("held_blocks", node=site.node) == 40
    assert value("holds_total", limit="share") == before + 1
    planned(site, Result(Outcome.IN_SYNC))
    assert value("held_blocks", node=site.node) == 0
