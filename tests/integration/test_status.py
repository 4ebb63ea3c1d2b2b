"""What `status` gathers from a real broker and real workers, and whether beats ever get in the way of work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from msgspec.structs import replace

from common.broker.connection import blocking
from common.broker.past import past
from common.broker.publisher import event_message
from common.broker.roots import send
from common.broker.topology import BEATS, EVENTS, SCHEDULER, declare
from common.errors import InvalidMessage, PhedexUnreachable, System
from common.messages.beats import Beat
from common.messages.codec import decode_beat, decode_event, encode_beat
from common.messages.events import Event
from common.messages.meta import now
from common.outcome import Outcome
from common.settings.model import Main, Settings, Site
from consumers.engine.result import Result
from phedex_rucio.overview.facts import Facts
from phedex_rucio.overview.processes import processes
from phedex_rucio.overview.wrong import problems
from phedex_rucio.status_looks import Looks
from tests.integration.broker.test_streams import event, numbers
from tests.integration.messaging import NODE, eventually, publishing, settings, site, working
from tests.stack.broker import Broker

NOWHERE = "http://127.0.0.1:9/phedex/datasvc"


class LoginPage(BaseHTTPRequestHandler):
    """What a single sign-on says to everything."""

    def do_POST(self) -> None:
        body = b"<!DOCTYPE html><html><title>Sign in</title></html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is told."""


@contextmanager
def login_page() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), LoginPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/phedex/datasvc"
        server.shutdown()


def look(main: Main, **changes: Any) -> Facts:
    looks = Looks(Settings(main=main, **changes), timedelta(hours=1), ask_rucio=False)
    try:
        return looks.look()
    finally:
        looks.close()


def found(facts: Facts) -> dict[str, str]:
    return {problem.code: problem.says for problem in problems(facts)}


def say(main: Main, beat: Beat) -> None:
    with blocking(main, "test") as connection:
        connection.channel().basic_publish(BEATS, "", encode_beat(beat))


def beats(main: Main, name: str) -> list[Beat]:
    said: Iterator[Beat] = past(main, BEATS, "first", decode_beat)
    return [beat for beat in said if beat.name == name]


def test_the_past_of_a_stream_is_read_to_its_end_and_no_further(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)

    def read(since: Any) -> list[Event]:
        return list(past(main, EVENTS, since, decode_event))

    assert read("first") == []
    with publishing(main) as publisher:
        publisher.publish(event_message(event(n)) for n in range(3000))
        assert numbers(read("first")) == list(range(3000))
        assert numbers(read(2990)) == list(range(2990, 3000))
        assert read(now() + timedelta(hours=1)) == []


def test_what_was_never_started_is_overdue_since_there_is_anything_to_start_it(amqp_url: str) -> None:
    main = settings(amqp_url, jitter=0.0, phedex_url=NOWHERE)
    declare(main)
    assert "overdue" not in found(look(main, sites={NODE: Site()}))["no_scheduler"]
    started = now() - timedelta(minutes=10)
    worker = Beat(role="worker", name="host-1", version="1", state="ready", started=started, at=now(), every=10)
    scheduler = replace(worker, role="scheduler", name="host-2", state="starting", started=now())
    say(main, worker)
    assert look(main, sites={NODE: Site()}).due[NODE].at == started
    say(main, scheduler)
    assert "overdue" not in found(look(main, sites={NODE: Site()}))["no_scheduler"]
    say(main, replace(scheduler, state="active", started=started, at=now()))
    facts = look(main, sites={NODE: Site()})
    assert facts.due[NODE].at == started
    assert f"1 site overdue, {NODE} since" in found(facts)["no_scheduler"]


def test_from_nobody_to_a_worker_that_hangs(amqp_url: str) -> None:
    """One deployment: no queues, no worker, a worker at work, one that lost a system, a dead letter, a silent one."""
    main = settings(amqp_url, beat=0.2, attempts=1, phedex_url=NOWHERE, wait_delays=[60.0])
    assert "queues_missing" in found(look(main))
    declare(main)
    with publishing(main) as publisher:
        send(publisher, [site()], by="me")
        said = found(look(main, sites={NODE: Site()}))
        assert said["not_served"] == "No worker runs, and there are messages: 1 in sync.site"
        assert said["phedex_away"].startswith("PhEDEx does not answer here: blockreplicas")
        assert said["no_scheduler"].startswith("No scheduler is active")

        let_go, is_away = threading.Event(), threading.Event()

        def handle(command: Any, _: object) -> Result:
            if command.reason == "away":
                raise PhedexUnreachable("no answer")
            if command.reason == "dead":
                raise InvalidMessage("node: nonsense")
            assert let_go.wait(30)
            return Result(Outcome.IN_SYNC)

        def probe() -> None:
            if is_away.is_set():
                raise PhedexUnreachable("still no answer")

        with working(main, {"sync.site": handle}, threads=2, probes={System.PHEDEX: probe}) as running:
            hand = eventually(lambda: _hand(main), "a command in hand")
            assert (hand[0].kind, hand[0].key) == ("sync.site", NODE)
            with blocking(main, "a scheduler") as lease:
                lease.channel().queue_declare(SCHEDULER, exclusive=True)
                facts = look(main)
                assert facts.broker is not None
                assert facts.broker.lease == "held"
                assert not {"no_scheduler", "not_served", "no_worker"} & found(facts).keys()
            send(publisher, [site(reason="dead")])
            let_go.set()
            died = eventually(lambda: found(look(main)).get("dead_letters"), "a dead letter")
            assert died == f"1 dead letter of sync.site; 1 × InvalidMessage: node: nonsense ({NODE})"

            is_away.set()
            send(publisher, [site(reason="away")])
            gone = eventually(
                lambda: found(look(main)).get("phedex_away", "").startswith("PhEDEx is away") and look(main), "away"
            )
            assert "PhEDEx is away for all workers since" in found(gone)["phedex_away"]
            assert "PhedexUnreachable: still no answer" in found(gone)["phedex_away"]
            (one,) = processes(gone)
            assert (one.state, one.away, gone.ready("sync.wait.1m")) == ("held_up", [System.PHEDEX], 1)
            is_away.clear()
            eventually(lambda: processes(look(main))[0].state == "ready", "back")
            running.stop()
        eventually(lambda: beats(main, "w1")[-1].state == "ended", "the last word")
        states = [beat.state for beat in beats(main, "w1")]
        assert states[0] in ("starting", "ready")
        assert "held_up" in states  # `draining` may last too short to be said
        assert processes(look(main)) == []


def _hand(main: Main) -> Any:
    rows = processes(look(main))
    return rows[0].in_hand if rows else []


def test_a_login_page_is_not_phedex(amqp_url: str) -> None:
    with login_page() as url:
        main = settings(amqp_url, phedex_url=url)
        declare(main)
        said = found(look(main))["phedex_away"]
    assert said.startswith("PhEDEx answers, but not as PhEDEx does: ")
    assert "Sign in" in said or "HTML" in said


def test_beats_never_matter_for_work(amqp_url: str, broker: Broker) -> None:
    """Without their exchange, and while the broker takes nothing, work goes on; afterwards they come again."""
    main = settings(amqp_url, beat=0.1, phedex_url=NOWHERE)
    declare(main)
    done = threading.Semaphore(0)

    def handle(_: object, __: object) -> Result:
        done.release()
        return Result(Outcome.IN_SYNC)

    with working(main, {"sync.site": handle}), publishing(main) as publisher:
        eventually(lambda: beats(main, "w1"), "a beat")
        with blocking(main, "test") as connection:
            connection.channel().exchange_delete(BEATS)
        begun = now()
        _work(lambda: send(publisher, [site()]), done)
        declare(main)
        eventually(lambda: beats(main, "w1")[-1].at > begun, "beats once there is an exchange again")
        broker.memory_alarm(True)
        try:
            said = eventually(lambda: found(look(main)).get("broker_blocked"), "the alarm is seen")
            assert said.startswith("The broker takes no messages: it is low on memory or disk")
        finally:
            broker.memory_alarm(False)
        _work(lambda: send(publisher, [site()]), done)
        last = now()
        eventually(lambda: any(beat.at > last for beat in beats(main, "w1")), "beats again")


def _work(ask: Callable[[], object], done: threading.Semaphore) -> None:
    ask()
    assert done.acquire(timeout=30)


def test_a_broker_that_is_away_is_said() -> None:
    facts = look(settings("amqp://guest:geheim@127.0.0.1:9/%2F", phedex_url=NOWHERE))
    assert facts.broker is None
    assert found(facts)["broker_away"].startswith("no connection to broker guest@127.0.0.1:9")
    assert not {"no_worker", "no_scheduler", "queues_missing"} & found(facts).keys()
