"""How does the scheduler live? It reads the events, and while it holds the lease it sends what is due.

A standby reads too, so that it knows all when its turn comes. Nothing is kept but in the stream of events.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from common import cycles
from common.broker import roots, single, topology
from common.broker.lease import Lease
from common.broker.publisher import Publisher, event_message
from common.broker.streams import EventStream, attach
from common.errors import BrokerError, System
from common.messages.commands import Command
from common.messages.events import Away, Back, Event
from common.messages.meta import now as time_of_day
from common.settings.model import Main
from common.settings.run import State as Switch
from common.settings.run import state as switch_of
from common.settings.watched import Watched
from common.telemetry import metrics
from producers.agenda import Moment, Turn, agenda, next_look
from producers.history import History, Known
from producers.slots import parsed
from producers.timetable import timetable

log = logging.getLogger("phedex_rucio.scheduler")

State = Literal["starting", "standby", "active", "draining", "ended"]
PAUSE, PAUSE_MAX = 0.5, 10.0
# A turn may wait for the broker (its timeouts), and for `sleep`; so many such turns are no accident any more.
TURNS = 3
PATIENCE = 1.5  # seconds for the confirms of what is being sent when a signal comes
# So long before its own time a new scheduler looks for what its predecessor announced and may not have sent.
HALF_SENT = 120.0
QUEUES = ("sync.site", "sync.dataset", "sync.blocks")


class Clock:
    """Seconds since 1970 that never jump: the time of day at the start, and what has passed since."""

    def __init__(self) -> None:
        self.started = time_of_day()
        self._ahead = self.started.timestamp() - time.monotonic()

    def now(self) -> float:
        """The time on this clock."""
        return self._ahead + time.monotonic()


@dataclass
class Tenure:
    """The time for which a lease is held. `mark`: our own event; when it is read, all before it has been.

    `since`: when we began to decide; None until then.
    """

    lease: Lease
    publisher: Publisher | None = None
    mark: datetime | None = None
    since: float | None = None


class Scheduler:
    """Sends what is due until it is told to stop, or `main.run` says so.

    For whoever shows how it is: `state`, `notes`, `counts` (sent, stalled) and `turns`, the agenda at its last look.
    `on_change` is called when the state is another.
    """

    def __init__(self, watched: Watched, name: str, *, once: bool = False) -> None:
        self.name = name
        self.state: State = "starting"
        self.on_change: Callable[[], None] = lambda: None
        self.counts: Counter[str] = Counter()
        self.turns: list[Turn] = []
        self._watched, self._once = watched, once
        self._clock = Clock()
        self._history = History()
        self._tenure: Tenure | None = None
        self._unsent: list[Command] = []
        self._said = ""
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ending = False
        self._turned = time.monotonic()
        metrics.ACTIVE.set_function(lambda: float(self._holds_lease()))

    def _holds_lease(self) -> bool:
        tenure = self._tenure
        return tenure is not None and tenure.lease.state == "held"

    def alive(self) -> dict[str, str]:
        """What is wrong with the process itself, so that only a restart helps; "" where nothing is."""
        main = self._watched.settings().main
        longest = main.sleep + main.connect_timeout + main.confirm_timeout + main.blocked_timeout + PAUSE_MAX
        still = time.monotonic() - self._turned
        return {"loop": f"has not turned for {still:.0f} s" if still > TURNS * longest else ""}

    def ready(self) -> dict[str, str]:
        """What keeps it from sending what is due, now or when its turn comes; "" for each part that is well."""
        tenure, ready = self._tenure, self.state in ("active", "standby")
        broker = "" if tenure and tenure.lease.connection.is_open else "no connection"
        return {System.BROKER.value: broker, "scheduler": "" if ready else self.state}

    @property
    def notes(self) -> list[str]:
        """What a person should know: about the settings, the switch, and cycles that are stalled."""
        stalled = [f"{turn.known.cycle.root} is stalled" for turn in self.turns if turn.stalled and turn.known]
        return [*self._watched.notes, *([self._said] if self._said else []), *stalled]

    def stop(self) -> None:
        """Ends `run` within two seconds or so. May be called from any thread."""
        self._orders.put("stop")

    def run(self) -> None:
        """Serves until `stop`, or until `main.run` is off and its open cycles have ended. A broker is waited for.

        With `once`: one round of what is due; raises BrokerError where the broker is away.
        """
        pause = PAUSE
        while not self._is_ending():
            try:
                self._serve()
                pause = PAUSE
            except BrokerError as error:
                if self._once:
                    raise
                self._turned = time.monotonic()
                log.warning("the broker is not ready: %s", error, extra={"scheduler": self.name})
                self._wait(pause)
                pause = min(PAUSE_MAX, pause * 2)
            finally:
                self._release()
        self._end()

    def _serve(self) -> None:
        """The stream is read from its first event on, and what is due is sent, until the end or an error."""
        main = self._watched.settings().main
        topology.declare(main)
        self._history = History()
        with attach(main, "first", f"{self.name} reads") as stream:
            most = 0.1
            while not self._is_ending():
                self._turned = time.monotonic()
                self._read(stream, most)
                most = most if self._is_ending() else self._look()

    def _read(self, stream: EventStream, most: float) -> None:
        """Events are taken in for at most so many seconds; less where a cycle ends, the lease changes, or we do."""
        lease = self._tenure.lease.state if self._tenure else ""
        for event in stream.until(time.monotonic() + most):
            finished = event is not None and self._take(event)
            changed = self._tenure is not None and self._tenure.lease.state != lease
            if finished or changed or self._is_ending():
                return

    def _take(self, event: Event) -> bool:
        """The event is folded; True if something may be decided now that could not before."""
        tenure = self._tenure
        deciding = tenure is not None and tenure.since is not None
        finished = self._history.apply(event, self._clock.now(), live=deciding)
        if finished and not isinstance(event, Away | Back):
            self._tell_in_sync(event.cycle)
        if deciding or tenure is None or not isinstance(event, Back):
            return finished and deciding
        if event.worker == self.name and event.at == tenure.mark:
            tenure.since = float("-inf") if self._once else self._clock.now()
            self._unsent += self._half_sent()
            return True
        return False

    def _tell_in_sync(self, name: str) -> None:
        """A scheduled cycle has ended: if it made a whole site true, the metric says as of when."""
        key, _ = parsed(name) or ("", 0)
        cycle = self._history.keys[key].cycle
        if as_of := cycles.synced_as_of(cycle):
            metrics.in_sync(str(cycle.command["node"]), as_of)

    def _half_sent(self) -> list[Command]:
        """What the scheduler before us announced last and nobody took up: its command may never have been sent."""
        found = self._history.only_asked(self._clock.now() - HALF_SENT)
        return [roots.again(known.cycle.command) for known in found if known.cycle.command]

    # Decisions

    def _look(self) -> float:
        """What is due is sent, if we are the one; in how many seconds at most to look again."""
        settings = self._watched.settings()
        switch = switch_of(settings.main.run, time_of_day(), self._clock.started)
        tenure = self._held(settings.main)
        if tenure is None:
            self._idle(switch)
            return 1.0
        if tenure.since is None:
            return 1.0
        self._become("draining" if switch == "off" else "active")
        self._say("" if switch == "on" else f"main.run is {settings.main.run}: nothing new is planned")
        self._resend(tenure)
        now = self._clock.now()
        entries = timetable(settings, time_of_day(), self._clock.started) if switch == "on" else []
        moment = Moment(
            now, tenure.since, settings.main.pool, settings.main.jitter, settings.main.stalled_after, self._waiting(now)
        )
        self.turns = agenda(entries, self._history, moment)
        self._begin(tenure, [turn for turn in self.turns if not turn.waits])
        if self._once or (switch == "off" and not self._history.open(now, settings.main.stalled_after)):
            self._ending = True
        return max(0.05, next_look(self.turns, self._clock.now(), settings.main.sleep))

    def _idle(self, switch: Switch) -> None:
        """Without the lease: wait, unless there is nothing to wait for."""
        state = self._tenure.lease.state if self._tenure else "asking"
        if state != "standby":
            return
        if self.state != "standby":
            log.info("standby: another scheduler is active", extra={"scheduler": self.name})
        self._become("standby")
        if switch == "off" or self._once:
            self._ending = True

    def _become(self, state: State) -> None:
        if self.state != state:
            self.state = state
            self.on_change()

    def _held(self, main: Main) -> Tenure | None:
        """The tenure if the lease is held, with our mark sent; None while it is not."""
        if self._tenure is None:
            self._tenure = Tenure(Lease(main, f"{self.name} schedules"))
        tenure = self._tenure
        if tenure.lease.state == "lost":
            log.warning("the lease is lost with its connection: %s", tenure.lease.connection.reason)
            self._release()
            return None
        if tenure.lease.state != "held":
            return None
        if tenure.publisher is None:
            tenure.publisher = Publisher(tenure.lease.connection)
            log.info("active: this scheduler holds the lease", extra={"scheduler": self.name})
        if tenure.mark is None:
            mark = time_of_day()
            back = Back(system=System.BROKER, worker=self.name, since=self._clock.started, at=mark)
            tenure.mark = mark
            if not self._sent(tenure, [], [back]):
                tenure.mark = None
        return tenure

    def _waiting(self, now: float) -> frozenset[str]:
        """The kinds of which commands wait in a queue; looked at only where a cycle is stalled."""
        main = self._watched.settings().main
        stalled = [k for k in self._history.keys.values() if self._history.is_stalled(k, now, main.stalled_after)]
        for known in stalled:
            self._tell_stalled(known)
        try:
            return frozenset(kind for kind in QUEUES if single.count(main, kind)) if stalled else frozenset()
        except BrokerError:
            return frozenset(QUEUES)

    def _tell_stalled(self, known: Known) -> None:
        if not known.told_stalled:
            known.told_stalled = True
            self.counts["stalled"] += 1
            text = "a cycle is stalled: nobody has said a word about it; it is planned again at its next turn"
            log.warning(text, extra={"key": known.key, "cycle": known.cycle.root, "open": len(known.cycle.open)})

    # Sending

    def _begin(self, tenure: Tenure, turns: list[Turn]) -> None:
        commands = [roots.rooted(turn.command, f"scheduler {self.name}") for turn in turns]
        if commands and self._sent(tenure, commands):
            for turn, command in zip(turns, commands, strict=True):
                extra = {"key": turn.entry.key, "cycle": command.meta.id, "deep": turn.deep}
                log.info("planned", extra=extra)

    def _resend(self, tenure: Tenure) -> None:
        """What was not confirmed goes out again, unless somebody has taken it up or a later turn has come."""
        commands, self._unsent = [c for c in self._unsent if self._is_missing(c)], []
        if commands and self._sent(tenure, commands):
            log.warning("sent again what may not have been sent", extra={"cycles": [c.meta.id for c in commands]})

    def _is_missing(self, command: Command) -> bool:
        key, slot = parsed(command.meta.id) or ("", 0)
        known = self._history.keys.get(key)
        return known is None or known.slot < slot or (known.slot == slot and known.is_only_asked)

    def _sent(self, tenure: Tenure, commands: list[Command], events: list[Event] | None = None) -> bool:
        """True if all is confirmed. Else what may be missing is kept, to be sent again under the same names."""
        errors: list[BrokerError] = []
        publisher = tenure.publisher
        assert publisher is not None

        def publish() -> None:
            try:
                publisher.publish(event_message(event) for event in events or [])
                roots.send(publisher, commands)
            except BrokerError as error:
                errors.append(error)

        thread = threading.Thread(target=publish, name="sends", daemon=True)
        thread.start()
        while thread.is_alive() and not self._is_ending():
            thread.join(0.2)
        thread.join(PATIENCE)
        if errors or thread.is_alive():
            log.warning("not sent, or not confirmed: %s", errors[0] if errors else "told to stop")
            self._unsent += commands
            return False
        for command in commands:
            self._history.apply(roots.asked(command), self._clock.now(), live=True)
        self.counts["sent"] += len(commands)
        return True

    # Ends

    def _is_ending(self) -> bool:
        while not self._orders.empty():
            self._orders.get()
            self._ending = True
        return self._ending

    def _wait(self, seconds: float) -> None:
        try:
            self._orders.get(timeout=seconds)
            self._ending = True
        except queue.Empty:
            pass

    def _release(self) -> None:
        if self._tenure is not None:
            self._tenure.lease.close()
            self._tenure = None

    def _end(self) -> None:
        self._become("ended")
        if self._unsent:
            what = "ended with commands that may have been announced and not sent; the next scheduler sends them again"
            log.error(what, extra={"cycles": [command.meta.id for command in self._unsent]})
        log.info("scheduler ended", extra={"scheduler": self.name, "sent": self.counts["sent"]})

    def _say(self, text: str) -> None:
        if text and text != self._said:
            log.warning("%s", text, extra={"scheduler": self.name})
        self._said = text


def read_history(stream: EventStream, quiet: float = 1.0) -> tuple[History, float]:
    """All events so far, until none comes for `quiet` seconds; for looking, with the time of the look."""
    history, clock = History(), Clock()
    for event in stream.events(quiet):
        history.apply(event, clock.now())
    return history, datetime.now(UTC).timestamp()
