"""Which metrics are there? One registry a process; every label value that is known is at zero from the start.

No dataset, block or file is a label: nodes are (there are some hundred). docs/metrics.md tells what each is for.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from common.errors import System
from common.messages.commands import KINDS
from common.outcome import Outcome
from common.sync.limits import Limit
from common.telemetry import logs, spent

PREFIX = "phedex_rucio"
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

# How an execution ends: with an outcome, or so that the command comes again.
ENDS = (*(o.value for o in Outcome if o is not Outcome.DROPPED), "retry", "away", "handed_back", "lost")
# A command that comes again has not ended: its attempts are not counted yet.
AGAIN = frozenset({"retry", "away", "handed_back", "lost"})
BLOCKS = (
    "in_sync", "added", "updated", "revived", "would_add", "would_update", "withheld", "conflicts", "not_at_node",
    "ruled_late", "empty", "doubtful", "would_mark", "would_sweep", "marked", "pending", "swept", "kept_last_copy",
    "locked", "left_out", "adopted", "failed",
)  # fmt: skip
FILES = {"files": "added", "files_removed": "removed", "files_revived": "revived"}
BYTES = {"bytes": "added", "bytes_removed": "removed"}
LIMITS = [limit.value for limit in Limit]
RULES = ("added", "updated", "ended", "withdrawn")
NO_ANSWER = "none"
UNKNOWN = "unknown"
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FAST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_WAITS = (0.1, 1, 10, 60, 300, 1800, 3600, 10800, 43200, 86400)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, namespace=PREFIX, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(name, text, labels, namespace=PREFIX, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
    return Histogram(name, text, labels, namespace=PREFIX, registry=REGISTRY, buckets=list(buckets))


BUILD = Info("build", "The version of this program.", namespace=PREFIX, registry=REGISTRY)
COMMANDS = _counter("commands", "Executions of commands by how they ended.", "kind", "outcome")
DURATION = _histogram("command_duration_seconds", "How long an execution took, settling included.", _SLOW, "kind")
ATTEMPTS = _histogram("command_attempts", "Attempts that a command had when it ended.", range(1, 11), "kind")
QUEUE_WAIT = _histogram("command_wait_seconds", "From the (re)publishing of a command to its start.", _WAITS, "kind")
IN_HAND = _gauge("commands_in_hand", "Commands that are worked on now.", "kind")
STILL = _gauge("command_still_seconds", "Since the last step of the handler that took none for longest; 0: none works.")
CHILDREN = _counter("children", "Commands sent as children of others.", "kind")
REQUESTS = _counter("upstream_requests", "Requests to PhEDEx and Rucio by call and status.", "system", "call", "status")
LATENCY = _histogram(
    "upstream_request_duration_seconds", "How long a request took until its answer.", _FAST, "system", "call"
)
UNTRUSTED = _counter("phedex_untrusted_replies", "Replies of PhEDEx that nothing is concluded from.", "reason")
BLOCK_RESULTS = _counter("blocks", "Blocks by what became of them in a batch.", "result")
FILE_CHANGES = _counter("files", "File replicas changed in Rucio.", "change")
BYTE_CHANGES = _counter("file_bytes", "Bytes of the file replicas changed in Rucio.", "change")
RULE_CHANGES = _counter("rules", "Replication rules changed in Rucio.", "change")
HOLDS = _counter("holds", "Plans of which the guard held something back, by the weightiest limit.", "limit")
HELD_BLOCKS = _gauge("held_blocks", "Blocks that the guard held back in the site's last plan.", "node")
SITE_READ = _gauge("site_read_timestamp_seconds", "PhEDEx' time of the last whole reading that was planned on.", "node")
SITE_IN_SYNC = _gauge("site_in_sync_timestamp_seconds", "PhEDEx' time as of which the site was last in sync.", "node")
AWAY = _gauge("system_away", "1 while the system does not answer this process.", "system")
OUTAGES = _counter("outages", "How often a system was found to be away.", "system")
FLOOD = _gauge("dead_letter_flood", "1 while everything dies and only one command a minute is tried.")
PUBLISHED = _counter("messages_published", "Messages handed to the broker.")
CONFIRMED = _counter("messages_confirmed", "Messages that the broker has confirmed.")
QUEUE_READY = _gauge("queue_messages_ready", "Messages that wait in a queue.", "queue")
QUEUE_CONSUMERS = _gauge("queue_consumers", "Consumers of a queue.", "queue")
QUEUES_AT = _gauge("queues_counted_timestamp_seconds", "When the queues were last counted.")
ACTIVE = _gauge("scheduler_active", "1 while this process is the active scheduler.")
RELOADS_FAILED = _counter("settings_reload_failures", "Changed settings that were refused; the last good ones stay.")
SETTINGS_BAD = _gauge("settings_refused", "1 while the settings file has mistakes and the last good ones are in force.")
LOG_LOST = _counter("log_lines_lost", "Log lines that the device did not take.")

_lock = threading.Lock()
_times: dict[tuple[int, str], float] = {}
_answered: dict[System, float] = {}


def _start_at_zero() -> None:
    BUILD.info({"version": importlib.metadata.version("phedex-rucio")})
    for kind in (*KINDS, UNKNOWN):
        for end in ENDS:
            COMMANDS.labels(kind, end)
        for metric in (DURATION, ATTEMPTS, QUEUE_WAIT, IN_HAND, CHILDREN):
            metric.labels(kind)
    for system in System:
        AWAY.labels(system.value)
        OUTAGES.labels(system.value)
    for metric, values in (
        (BLOCK_RESULTS, BLOCKS),
        (FILE_CHANGES, FILES.values()),
        (BYTE_CHANGES, BYTES.values()),
        (RULE_CHANGES, RULES),
        (HOLDS, LIMITS),
    ):
        for value in values:
            metric.labels(value)
    for call in ("login", "whoami"):
        REQUESTS.labels(System.RUCIO.value, call, "200")
        LATENCY.labels(System.RUCIO.value, call)
    REQUESTS.labels(System.PHEDEX.value, "blockreplicas", "200")
    LATENCY.labels(System.PHEDEX.value, "blockreplicas")


def ended(kind: str, outcome: str, seconds: float, attempt: int, children: int) -> None:
    """An execution has ended and is settled, or is lost to the broker."""
    COMMANDS.labels(kind, outcome).inc()
    DURATION.labels(kind).observe(seconds)
    if children:
        CHILDREN.labels(kind).inc(children)
    if outcome not in AGAIN:
        ATTEMPTS.labels(kind).observe(attempt)


def worked(counts: dict[str, int]) -> None:
    """What a batch did, by the names of its counts."""
    for name in BLOCKS:
        if counts.get(name):
            BLOCK_RESULTS.labels(name).inc(counts[name])
    for metric, names in ((FILE_CHANGES, FILES), (BYTE_CHANGES, BYTES)):
        for name, change in names.items():
            if counts.get(name):
                metric.labels(change).inc(counts[name])


def planned(node: str, *, as_of: datetime, in_sync: bool) -> None:
    """A whole site was planned on a reading of this time; where nothing was to do it was in sync then."""
    _latest(SITE_READ, node, as_of)
    if in_sync:
        _latest(SITE_IN_SYNC, node, as_of)


def in_sync(node: str, as_of: datetime) -> None:
    """All that a plan of this reading asked for is done."""
    _latest(SITE_IN_SYNC, node, as_of)


def _latest(metric: Gauge, node: str, at: datetime) -> None:
    """Never back: cycles end in any order."""
    with _lock:
        key = (id(metric), node)
        _times[key] = max(_times.get(key, 0.0), at.timestamp())
        metric.labels(node).set(_times[key])


def held(node: str, limit: str, blocks: int) -> None:
    """The guard of a site's plan held so many blocks back; none clears what an earlier plan said."""
    if limit and blocks:
        HOLDS.labels(limit).inc()
    HELD_BLOCKS.labels(node).set(blocks)


def requested(system: System, call: str, status: int | None, seconds: float) -> None:
    """A request was sent and answered, or (no status) had no answer."""
    REQUESTS.labels(system.value, call, NO_ANSWER if status is None else str(status)).inc()
    LATENCY.labels(system.value, call).observe(seconds)
    spent.note(system, seconds)
    if status is not None and status < 500:
        _answered[system] = time.monotonic()


def unheard(system: System) -> float:
    """Seconds since a system last answered any thread of this process, in whatever way but with a server error."""
    return time.monotonic() - _answered.get(system, float("-inf"))


_start_at_zero()
logs.on_loss.append(LOG_LOST.inc)
