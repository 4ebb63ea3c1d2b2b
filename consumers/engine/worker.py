"""What does a worker process do, from its first connection to its last acknowledgement?"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from common.broker import topology
from common.broker.beats import VERSION, Beats
from common.broker.connection import Connection, jittered
from common.broker.consumer import Consumer, Delivery, Seat, seats
from common.broker.publisher import Publisher, event_message
from common.errors import BrokerError, BrokerRefused, System
from common.messages.beats import Beat, State
from common.messages.commands import KINDS
from common.messages.events import Away, Back
from common.messages.meta import now
from common.settings.model import Main
from common.telemetry import metrics
from consumers.engine import condition, killed
from consumers.engine.execute import Doors, Hand, Handler, WorldFactory
from consumers.engine.health import DeadRun
from consumers.engine.in_hand import Busy
from consumers.engine.outgoing import Context
from consumers.engine.probe import Change, Outages

log = logging.getLogger("phedex_rucio.worker")


def seats_for(kinds: Sequence[str], threads: int) -> list[Seat]:
    """The seats of a worker for these kinds. A kind without lanes is sent by people and small: it goes with `now`."""
    now_queues = [topology.lanes_of(kind)[0] for kind in kinds]
    bulk = [kind for kind in kinds if KINDS[kind].lanes]
    return seats(now_queues, bulk, threads)


def needs_of(queue: str) -> frozenset[System]:
    """Which systems the commands of a queue need."""
    return KINDS[queue.removesuffix(".now")].needs


class Worker:
    """Handles the commands of some kinds on N threads until it is told to stop."""

    def __init__(  # noqa: PLR0917 - a worker is these seven things
        self,
        main: Main,
        kinds: Sequence[str],
        threads: int,
        handlers: Mapping[str, Handler],
        world_factory: WorldFactory,
        probes: Mapping[System, Callable[[], None]],
        name: str,
        notes: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`notes`: what a person should know of this process besides; it goes into its beats."""
        self.name, self._notes = name, notes
        self._started, self._busy = now(), Busy()
        metrics.STILL.set_function(lambda: self._busy.stillest()[1])
        self._state: State = "starting"
        self._beats: Beats | None = None
        self._main, self._threads = main, threads
        self._seats = seats_for(kinds, threads)
        self._queues = [q for seat in self._seats for q in seat.queues]
        self._handlers, self._world_factory = handlers, world_factory
        self._systems = list(probes)
        self._outages = Outages(probes, main, self._system_changed)
        self._dead_run = DeadRun()
        self._inbox: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._draining, self._leaving = threading.Event(), threading.Event()
        self._publishing: Connection | None = None
        self._consuming: Connection | None = None
        self._publisher: Publisher | None = None
        self._consumer: Consumer | None = None
        self._pool: list[threading.Thread] = []
        self._waiting_for = "not connected yet"

    def alive(self) -> dict[str, str]:
        """What is wrong with the parts of the worker itself, so that only a restart helps; "" for each that is well."""
        return condition.alive(
            (self._consuming, self._publishing),
            self._pool,
            draining=self._draining.is_set(),
            stillest=self._busy.stillest(),
            hangs_after=self._main.hangs_after,
        )

    def ready(self) -> dict[str, str]:
        """What keeps commands from being carried out, by system; "" for each that answers as far as we know."""
        return condition.ready(
            (self._consuming, self._publishing),
            self._outages.reasons,
            self._systems,
            waiting_for=self._waiting_for,
            flood=self._dead_run.is_flood,
            draining=self._draining.is_set(),
        )

    @property
    def is_ready(self) -> bool:
        """True while messages can come and be settled."""
        connections = (self._consuming, self._publishing)
        return all(c is not None and c.is_open and not c.blocked for c in connections) and not self.is_held_up

    @property
    def is_held_up(self) -> bool:
        """True while a system is away, or everything dies and commands are only tried now and then."""
        return self._outages.away or self._dead_run.is_flood

    def stop(self) -> None:
        """Ends `run`: nothing new is taken, what is in hand has the grace period. The second call ends it at once.

        May be called from any thread.
        """
        self._orders.put("stop")

    def run(self) -> bool:
        """Serves until `stop`; True if all that was in hand is settled, False if some of it will come again.

        A broker that is away is waited for; one that refuses us is not: BrokerRefused. The queues are declared where
        they are missing.
        """
        if not self._declared():
            return True
        self._begin()
        log.info("worker ready", extra={"worker": self.name, "queues": self._queues, "threads": self._threads})
        self._orders.get()
        return self._drain()

    def _declared(self) -> bool:
        """True when the topology is there; False if we are told to stop before the broker is."""
        pause = 0.5
        while True:
            try:
                topology.declare(self._main)
            except BrokerRefused:
                raise
            except BrokerError as error:
                self._waiting_for = str(error)
                log.warning("the broker is not ready: %s", error, extra={"worker": self.name})
                if self._stop_within(pause):
                    return False
                pause = min(10.0, pause * 2)
            else:
                return True

    def _stop_within(self, seconds: float) -> bool:
        try:
            self._orders.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def _begin(self) -> None:
        self._publishing = Connection(self._main, f"{self.name} publishes")
        self._consuming = Connection(self._main, f"{self.name} consumes")
        self._publisher = Publisher(self._publishing)
        self._consumer = Consumer(self._consuming, self._seats, self._inbox.put)
        doors = Doors(
            Context(self._main, self.name),
            self._publisher,
            self._consumer,
            self._handlers,
            self._world_factory,
            self._outages,
            self._dead_run,
            self._draining,
            self._leaving,
            self._busy,
        )
        self._beats = Beats(self._publishing, self._main.beat, self.beat)
        self._pool = [
            threading.Thread(target=self._serve, args=(Hand(doors),), name=f"hand-{i}", daemon=True)
            for i in range(self._threads)
        ]
        self._pool.append(threading.Thread(target=self._serve_killed, args=(doors,), name="killed", daemon=True))
        for thread in self._pool:
            thread.start()
        if self._main.metrics_port:
            threading.Thread(target=self._outages.watch, name="watch", daemon=True).start()
        self._waiting_for = ""
        self._is_now("ready")

    def _serve(self, hand: Hand) -> None:
        """One thread: message after message until there is a None."""
        while (delivery := self._inbox.get()) is not None:
            try:
                hand.handle(delivery)
            except Exception:
                # A mistake in the engine itself. The message goes back; at its delivery limit it is in sync.killed.
                log.exception("a message could not be settled", extra={"queue": delivery.queue})
                assert self._consumer is not None
                self._consumer.give_back(delivery)

    def _serve_killed(self, doors: Doors) -> None:
        """Now and then one message that killed its workers, with nothing else in hand that it could take along."""
        while not self._draining.wait(jittered(self._main.probe_pause_max)):
            try:
                if self.is_ready and killed.is_waiting(self._main):
                    self._alone(lambda: killed.serve_one(doors))
            except BrokerError as error:
                log.warning("cannot look at what killed its workers: %s", error)
            except Exception:
                log.exception("what killed its workers could not be settled")

    def _alone(self, function: Callable[[], object]) -> None:
        """`function` runs while nothing else is in hand; not at all if we are to stop before that is so."""
        assert self._consumer is not None
        self._consumer.pause("alone", self._queues)
        try:
            while not self._consumer.is_quiet:
                if self._draining.wait(0.05):
                    return
            function()
        finally:
            self._consumer.resume("alone")

    def _drain(self) -> bool:
        """Consumers are cancelled first, so that nothing new starts; handlers see Stop at their next checkpoint."""
        assert self._consumer is not None
        log.info("worker stops", extra={"worker": self.name, "grace": self._main.grace})
        self._is_now("draining")
        self._draining.set()
        self._consumer.stop()
        self._outages.stop()
        self._dead_run.stop()
        for _ in self._pool:
            self._inbox.put(None)
        threading.Thread(target=self._say_idle, name="drain", daemon=True).start()
        order = self._next_order(self._main.grace)
        self._leaving.set()
        self._close()
        return self._ended(order)

    def _ended(self, order: str) -> bool:
        settled = order == "idle"
        if settled:
            log.info("worker ended", extra={"worker": self.name})
        else:
            what = "worker ended with commands in hand: the broker delivers them again, which counts as a delivery"
            log.warning(what, extra={"worker": self.name, "because": order})
        return settled

    def _say_idle(self) -> None:
        for thread in self._pool:
            thread.join()
        self._orders.put("idle")

    def _next_order(self, timeout: float) -> str:
        try:
            return self._orders.get(timeout=timeout)
        except queue.Empty:
            return "grace is over"

    def _close(self) -> None:
        """The consuming connection first: what is not acknowledged goes back to the broker with it."""
        self._is_now("ended")
        deadline = time.monotonic() + 5
        for connection in (self._consuming, self._publishing):
            if connection is not None:
                connection.close(max(0.1, deadline - time.monotonic()))

    def _system_changed(self, change: Change) -> None:
        """Nothing that needs a system is taken while it is away, and everybody may know."""
        assert self._consumer is not None
        pause = f"{change.system.value} away"
        if change.reason:
            self._consumer.pause(pause, [queue for queue in self._queues if change.system in needs_of(queue)])
        else:
            self._consumer.resume(pause)
        self._nudge()
        self._tell(change)

    def beat(self) -> Beat:
        """How this worker is now; waits for nothing."""
        held_up = self._state == "ready" and self.is_held_up
        flood = ["everything dies: one command a minute is tried"] if self._dead_run.is_flood else []
        return Beat(
            role="worker",
            name=self.name,
            version=VERSION,
            state="held_up" if held_up else self._state,
            started=self._started,
            at=now(),
            every=self._main.beat,
            queues=self._queues,
            threads=self._threads,
            in_hand=self._busy.all(),
            away=list(self._outages.reasons),
            notes=[*self._notes(), *flood],
        )

    def _is_now(self, state: State) -> None:
        self._state = state
        self._nudge(last=state == "ended")

    def _nudge(self, *, last: bool = False) -> None:
        if self._beats is not None:
            self._beats.stop() if last else self._beats.nudge()

    def _tell(self, change: Change) -> None:
        """The event is for people: a broker that does not take it must not keep the worker from its work."""
        assert self._publisher is not None
        try:
            self._publisher.publish([event_message(_event(change, self.name))])
        except BrokerError as error:
            log.warning("cannot tell that a system is away or back: %s", error, extra={"system": change.system.value})


def _event(change: Change, worker: str) -> Away | Back:
    if change.reason:
        return Away(system=change.system, worker=worker, since=change.since, reason=change.reason, at=now())
    return Back(system=change.system, worker=worker, since=change.since, at=now())
