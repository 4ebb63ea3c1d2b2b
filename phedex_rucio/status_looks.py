"""How are the facts gathered, within seconds, whatever is away? Every system is asked on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from msgspec.structs import replace

from common import cycles
from common.broker import connection as connections
from common.broker.past import Reading, reading
from common.broker.standing import Standing, standing
from common.broker.topology import BEATS, EVENTS
from common.errors import BrokerError, NotAuthenticated, NotFound, PhedexRucioError, System
from common.messages.beats import Beat
from common.messages.codec import decode_beat, decode_event
from common.messages.events import Closed, Event
from common.messages.meta import now
from common.phedex.trust import LoginPage, Redirected
from common.rucio import switch
from common.rucio.rses import attributes_of, turned_rses
from common.rucio.session import Rucio
from common.settings.model import Main, Settings
from common.telemetry.redact import redact
from phedex_rucio import wiring
from phedex_rucio.overview.facts import Answer, Due, Facts
from producers.agenda import Moment, agenda
from producers.history import History
from producers.timetable import timetable

T = TypeVar("T")

PATIENCE = 2.5  # seconds that a system has for its answer
LOOK_BACK = timedelta(hours=1)  # so old may the last beat of a process be that is still shown
BRIEF = 200  # characters of an error
SWITCHES = 50  # sites with a turned switch of which the reason is asked


class Question(Generic[T]):
    """Something asked on a thread of its own, which is left alone when its time is up."""

    def __init__(self, ask: Callable[[], T], name: str) -> None:
        self._ask, self._found = ask, threading.Event()
        self._answer: T | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except Exception as error:  # noqa: BLE001 - it is raised again where the answer is wanted
            self._error = error
        self._found.set()

    def answer(self, until: float) -> T | None:
        """The answer, None if it has not come by a time of the monotonic clock; raises what the question raised."""
        if not self._found.wait(max(0.0, until - time.monotonic())):
            return None
        if self._error is not None:
            raise self._error
        return self._answer


class Looks:
    """Looks at a deployment, again and again; what was read of the streams is kept."""

    def __init__(
        self, settings: Settings, since: timedelta, *, ask_rucio: bool, slow: Callable[[], None] = lambda: None
    ) -> None:
        """`slow` is called when the events take longer to be read than anybody expects."""
        self._settings, self._ask_rucio, self._slow = settings, ask_rucio, slow
        self._main = impatient(settings.main)
        self._since = now() - since
        self._streams = ExitStack()
        self._events: Callable[[], Iterator[Event]] | None = None
        self._new_beats: Callable[[], Iterator[Beat]] | None = None
        self._beats: dict[str, Beat] = {}
        self._state, self._history = cycles.Cycles(), History()

    def close(self) -> None:
        """The connections are closed."""
        self._streams.close()

    def look(self) -> Facts:
        """The facts now. Takes as long as the events take to be read, and as a system may need for its answer."""
        until = time.monotonic() + PATIENCE
        phedex = Question(lambda: _timed(System.PHEDEX, self._phedex), "asks PhEDEx")
        rucio = Question(lambda: _timed(System.RUCIO, self._rucio), "asks Rucio") if self._ask_rucio else None
        switches = Question(self._switches, "asks for switches") if self._ask_rucio else None
        broker, found = self._broker()
        asked = {System.PHEDEX: phedex} | ({System.RUCIO: rucio} if rucio else {})
        answers = [broker, *(_answer(system, question, until) for system, question in asked.items())]
        return self._facts(answers, found, _quietly(switches, until) if switches else None)

    def _facts(self, answers: list[Answer], found: Standing | None, turned: dict[str, switch.State] | None) -> Facts:
        at = now()
        return Facts(
            at=at,
            since=self._since,
            where=connections.where(connections.urls(self._main)[0]),
            settings=self._settings,
            broker=found,
            beats=[beat for _, beat in sorted(self._beats.items()) if at - beat.at < LOOK_BACK],
            state=self._state,
            answers=answers,
            switches=turned,
            due=due(self._settings, self._history, self._began(at), at) if found else {},
        )

    def _began(self, at: datetime) -> datetime:
        """Since when what was never started is overdue: the start of the active scheduler, of any, of anything."""
        beats = [beat for beat in self._beats.values() if beat.role == "scheduler" and beat.state != "ended"]
        started = [beat.started for beat in beats if beat.state == "active"] or [beat.started for beat in beats]
        signs = [datetime.fromtimestamp(known.first, UTC) for known in self._history.keys.values()]
        signs += [beat.started for beat in self._beats.values()]
        return max(self._since, min(started or signs, default=at))

    def _broker(self) -> tuple[Answer, Standing | None]:
        begun = time.monotonic()
        try:
            found = standing(self._main)
            seconds = time.monotonic() - begun
            if not {EVENTS, BEATS} & {*found.missing, *found.down}:
                self._read()
        except BrokerError as error:
            self._forget()
            return Answer(System.BROKER, brief(error)), None
        return Answer(System.BROKER, "", seconds), found

    def _read(self) -> None:
        if self._events is None or self._new_beats is None:
            events: Reading[Event] = reading(self._main, EVENTS, self._since, decode_event)
            beats: Reading[Beat] = reading(self._main, BEATS, now() - LOOK_BACK, decode_beat)
            self._events = self._streams.enter_context(events)
            self._new_beats = self._streams.enter_context(beats)
        assert self._events is not None
        assert self._new_beats is not None
        late = time.monotonic() + PATIENCE
        for event in self._events():
            if time.monotonic() > late:
                late = float("inf")
                self._slow()
            cycles.apply(self._state, without_names(event))
            merge_finished(self._state, event)
            self._history.apply(event, time.time())
        for beat in self._new_beats():
            known = self._beats.get(beat.name)
            if known is None or known.at <= beat.at:
                self._beats[beat.name] = beat

    def _forget(self) -> None:
        """After an outage of the broker all is read anew."""
        self._streams.close()
        self._events = self._new_beats = None
        self._state, self._history = cycles.Cycles(), History()

    def _phedex(self) -> None:
        wiring.Doors(replace(self._settings, main=self._main)).phedex.probe()

    def _rucio(self) -> None:
        Rucio(self._main).probe()

    def _switches(self) -> dict[str, switch.State]:
        """The sites whose switch is not on, by node."""
        rucio = Rucio(self._main)
        named = {policy.rse: node for node, policy in self._settings.sites.items() if policy.rse}
        found = {}
        for rse in turned_rses(rucio)[:SWITCHES]:
            attributes = attributes_of(rucio, rse) or {}
            node = named.get(rse) or str(attributes.get("pnn", rse))
            found[node] = switch.state_of(rse, attributes)
        return found


def without_names(event: Event) -> Event:
    """The event without the blocks' names: a day of them may be a gigabyte, and here only numbers count."""
    return replace(event, names={}) if isinstance(event, Closed) and event.names else event


def merge_finished(state: cycles.Cycles, event: Event) -> None:
    """If the event finished its cycle, that takes little room from now on. Asked only where it may be finished."""
    if isinstance(event, Closed):
        cycle = state.by_name[event.cycle]
        if len(cycle.closed) > len(cycle.announced):
            cycles.merge(cycle)


def impatient(main: Main) -> Main:
    """The settings for somebody who waits in front of a screen."""
    return replace(
        main,
        connect_timeout=min(main.connect_timeout, PATIENCE),
        phedex_timeout=min(main.phedex_timeout, PATIENCE),
        phedex_tries=1,
        rucio_timeout=min(main.rucio_timeout, PATIENCE),
    )


def due(settings: Settings, history: History, since: datetime, at: datetime) -> dict[str, Due]:
    """When each entry of the timetable is next due, as a scheduler with the same settings and events would say."""
    main = settings.main
    moment = Moment(at.timestamp(), since.timestamp(), main.pool, main.jitter, main.stalled_after)
    turns = agenda(timetable(settings, at, since), history, moment)
    return {turn.entry.key: Due(datetime.fromtimestamp(turn.due, UTC), turn.waits, turn.entry.off) for turn in turns}


def brief(error: Exception) -> str:
    """The error on a line or two; `check` says all of it."""
    text = " ".join(redact(str(error)).split())
    return text if len(text) <= BRIEF else text[: BRIEF - 1] + "…"


def _timed(system: System, ask: Callable[[], None]) -> Answer:
    begun = time.monotonic()
    try:
        ask()
    except PhedexRucioError as error:
        refused, is_other = isinstance(error, NotAuthenticated), isinstance(error, LoginPage | Redirected)
        return Answer(system, brief(error), time.monotonic() - begun, refused, is_other)
    return Answer(system, "", time.monotonic() - begun)


def _answer(system: System, question: Question[Answer], until: float) -> Answer:
    found = question.answer(until)
    return found or Answer(system, f"no answer within {PATIENCE:g} s", PATIENCE)


def _quietly(question: Question[dict[str, switch.State]], until: float) -> dict[str, switch.State] | None:
    """What Rucio does not tell now is not known; that it does not answer is told by its own question."""
    try:
        return question.answer(until)
    except (PhedexRucioError, NotFound):
        return None
