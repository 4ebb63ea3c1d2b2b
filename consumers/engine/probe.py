"""Is a system away? Asked after an error; while it is away nothing that needs it is taken, and nothing is blamed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime

from common.broker.connection import jittered
from common.errors import PhedexRucioError, System, Verdict
from common.messages.fields import BOTH
from common.messages.meta import now
from common.settings.model import Main
from common.telemetry import metrics
from common.telemetry.redact import redact

log = logging.getLogger("phedex_rucio.worker")


@dataclass(frozen=True)
class Change:
    """A system went away (`reason` says how that showed) or came back (no reason)."""

    system: System
    since: datetime
    reason: str = ""


SUSPECT = 3


class Outages:
    """Which systems are away, as far as this worker knows.

    `changed` is called on the thread that found it, once for each going and coming. After the last system is back one
    command is tried alone; when it has ended, whatever its outcome but for another outage, all go on.
    """

    def __init__(
        self, probes: Mapping[System, Callable[[], None]], main: Main, changed: Callable[[Change], None]
    ) -> None:
        self._probes, self._main, self._changed = probes, main, changed
        self._asking = threading.Lock()
        self._turn = threading.Condition()
        self._since: dict[System, datetime] = {}
        self._reasons: dict[System, str] = {}
        self._first: dict[str, int] = {}  # how often a command was the first after an outage, by id
        self._careful = self._trying = self._stopped = False
        self._stop = threading.Event()

    @property
    def away(self) -> bool:
        """True while any system is away."""
        return bool(self._since)

    @property
    def reasons(self) -> dict[System, str]:
        """The systems that are away, each with how that showed."""
        return dict(self._reasons)

    def is_away(self, error: BaseException) -> bool:
        """True if the error's system does not answer a small question: asked now, by one thread at a time."""
        system = error.system if isinstance(error, PhedexRucioError) and error.verdict is Verdict.ASK else None
        if system is None or system not in self._probes:
            return False
        with self._asking:
            if system not in self._since and (reason := self._ask(system)):
                self._begin(system, reason)
            return system in self._since

    def watch(self) -> None:
        """Until `stop`: a system that has not answered anybody here for a while is asked, so that an idle worker knows.

        To be run on a thread of its own.
        """
        while not self._stop.wait(jittered(self._main.probe_pause_max)):
            for system in self._probes:
                if system not in self._since and metrics.unheard(system) > self._main.probe_pause_max / 2:
                    self._look(system)

    def _look(self, system: System) -> None:
        if reason := self._ask(system):
            with self._asking:
                if system not in self._since:
                    self._begin(system, reason)

    def enter(self, ident: str, needs: Set[System] = BOTH) -> bool:
        """Waits for this thread's turn while one command is tried alone; False if what it needs is away or we stop."""
        with self._turn:
            self._turn.wait_for(lambda: self._lacks(needs) or self._stopped or not (self._careful and self._trying))
            if self._lacks(needs) or self._stopped:
                return False
            self._trying = True
            if self._careful:
                self._first[ident] = self._first.get(ident, 0) + 1
            return True

    def _lacks(self, needs: Set[System]) -> bool:
        return not needs.isdisjoint(self._since)

    def is_suspect(self, ident: str) -> bool:
        """True for a command that was the first after an outage for the third time: it may be what brings it about.

        Without this a command that fells a system would live for ever, for outages cost no attempts.
        """
        return self._first.get(ident, 0) >= SUSPECT

    def leave(self) -> None:
        """A command that `enter` let in has ended: unless a system is away again, all go on."""
        with self._turn:
            self._trying = False
            self._careful = self._careful and self.away
            if not self._careful:
                self._first.clear()
            self._turn.notify_all()

    def stop(self) -> None:
        """No more probing, and nobody waits."""
        self._stop.set()
        with self._turn:
            self._stopped = True
            self._turn.notify_all()

    def _ask(self, system: System) -> str:
        """Why the system counts as away; empty if it answers, even if it answers that it refuses us."""
        try:
            self._probes[system]()
        except PhedexRucioError as error:
            return redact(f"{type(error).__name__}: {error}") if error.verdict is Verdict.ASK else ""
        except Exception as error:
            log.exception("a probe failed by itself", extra={"system": system.value})
            return redact(f"{type(error).__name__}: {error}")
        return ""

    def _begin(self, system: System, reason: str) -> None:
        since = now()
        metrics.AWAY.labels(system.value).set(1)
        metrics.OUTAGES.labels(system.value).inc()
        with self._turn:
            self._since[system] = since
            self._reasons[system] = reason
            self._careful = True
            self._turn.notify_all()
        log.warning("away", extra={"system": system.value, "reason": reason})
        self._changed(Change(system, since, reason))
        threading.Thread(target=self._until_back, args=(system,), name=f"probe-{system.value}", daemon=True).start()

    def _until_back(self, system: System) -> None:
        pause = self._main.probe_pause
        while not self._stop.wait(jittered(pause)):
            if not self._ask(system):
                return self._end(system)
            pause = min(self._main.probe_pause_max, pause * 2)
        return None

    def _end(self, system: System) -> None:
        with self._turn:
            since = self._since.pop(system)
            del self._reasons[system]
            self._trying = False
            self._turn.notify_all()
        metrics.AWAY.labels(system.value).set(0)
        log.warning("back", extra={"system": system.value, "since": since.isoformat()})
        self._changed(Change(system, since))
