"""Facts for tests: a deployment that is well, and events to change it with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from common.broker.standing import Depth, Standing
from common.broker.topology import topology
from common.cycles import Cycles, apply
from common.errors import System
from common.messages.beats import Beat
from common.messages.commands import KINDS
from common.messages.events import Asked, Closed, Event, GuardReport, Retrying
from common.messages.meta import Failure, child_id
from common.outcome import Outcome
from common.settings.model import Main, Settings, Site
from phedex_rucio.overview.facts import Answer, Due, Facts
from phedex_rucio.overview.wrong import problems

NOW = datetime(2026, 3, 14, 3, 12, tzinfo=UTC)
NODE = "T2_IT_Pisa"


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def standing(ready: dict[str, int] | None = None, consumers: int = 1, **changes: Any) -> Standing:
    found = {q.name: Depth(q.name, (ready or {}).get(q.name, 0), consumers) for q in topology(Main()).queues}
    return Standing(**({"queues": found, "missing": [], "down": [], "lease": "held", "blocked": ""} | changes))


def beat(**changes: Any) -> Beat:
    queues = [name for kind in KINDS for name in (kind, f"{kind}.now")]
    usual: dict[str, Any] = {
        "role": "worker",
        "name": "host-17",
        "version": "1",
        "state": "ready",
        "started": ago(days=1),
        "at": ago(seconds=3),
        "every": 15,
        "queues": queues,
        "threads": 4,
    }
    return Beat(**(usual | changes))


def facts(*events: Event, **changes: Any) -> Facts:
    """Well: a worker, an active scheduler, all systems there, one scheduled site."""
    usual: dict[str, Any] = {
        "at": NOW,
        "since": ago(hours=24),
        "settings": Settings(sites={NODE: Site()}),
        "broker": standing(),
        "beats": [beat(), beat(role="scheduler", name="host-3", state="active", queues=[])],
        "state": folded(*events),
        "answers": [Answer(system) for system in System],
        "due": {NODE: Due(NOW + timedelta(minutes=5), "due in 5 min")},
    }
    return Facts(**(usual | changes))


def folded(*events: Event) -> Cycles:
    state = Cycles()
    for event in events:
        apply(state, event)
    return state


def asked(cycle: str = "c", at: datetime = NOW, node: str = NODE, **command: Any) -> Asked:
    return Asked(id=cycle, cycle=cycle, command={"kind": "sync.site", "node": node} | command, at=at)


def closed(cycle: str = "c", outcome: Outcome = Outcome.IN_SYNC, **changes: Any) -> Closed:
    usual: dict[str, Any] = {"id": cycle, "command": "sync.site", "key": NODE, "run": "r", "at": ago(minutes=9)}
    return Closed(cycle=cycle, outcome=outcome, **(usual | changes))


def batch(cycle: str = "c", number: int = 0, outcome: Outcome = Outcome.CHANGED, **changes: Any) -> Closed:
    ident = child_id(cycle, cycle, "r", number)
    return closed(cycle, outcome, **({"id": ident, "command": "sync.blocks", "key": f"{NODE} /A/B/RAW#1"} | changes))


def retrying(cycle: str = "c", ident: str = "", attempt: int = 1, error: str = "FileConflict") -> Retrying:
    next_at = NOW + timedelta(minutes=4)
    why = Failure(class_=error, message="no good", at=NOW)
    return Retrying(id=ident or cycle, cycle=cycle, attempt=attempt, next_at=next_at, error=why, at=ago(minutes=1))


def guard(**changes: Any) -> GuardReport:
    says = ["would mark 3 of 12 rules (25 %), limit 10 %"]
    usual: dict[str, Any] = {"limit": "share", "share": 0.25, "number": 3, "held": 3, "says": says}
    return GuardReport(**(usual | {"override": f"phedex-rucio sync site {NODE} --approve abc"} | changes))


def wrong(found: Facts) -> dict[str, str]:
    """What is wrong, by its code: the words, with what to type."""
    return {p.code: " → ".join([p.says, *p.next]) for p in problems(found) if p.level == "wrong"}


def notes(found: Facts) -> dict[str, str]:
    return {p.code: " → ".join([p.says, *p.next]) for p in problems(found) if p.level == "note"}
