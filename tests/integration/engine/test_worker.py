"""What becomes of messages, good and bad, in a worker on a real broker?"""

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from common import cycles
from common.broker.consumer import Delivery
from common.broker.publisher import command_message
from common.broker.roots import send
from common.broker.topology import COMMANDS, DELIVERY_LIMIT, declare
from common.errors import PhedexUnreachable, RucioConflict, RucioError, System, UsageError
from common.messages.codec import MAX_BYTES
from common.messages.commands import Command, SyncBlocks
from common.messages.events import Away, Back, Event, Retrying
from common.messages.meta import Meta
from common.messages.setup import Account
from common.outcome import Outcome
from consumers.engine.execute import Hand
from consumers.engine.result import Failed, Result, Stop
from tests.integration.messaging import (
    Seen,
    all_events,
    blocks,
    closed,
    eventually,
    letters,
    plain,
    publishing,
    raw,
    ready,
    settings,
    site,
    working,
)
from tests.stack.broker import Broker

GOOD = b'{"kind":"sync.blocks","node":"T2_IT_Pisa","blocks":["/a/b/RAW#1"]}'
HOSTILE = {
    "nothing": b"",
    "no JSON": b"\xff\xfe\x00",
    "half a message": GOOD[:-5],
    "a list": b"[1,2]",
    "no kind": b'{"node":"T2_IT_Pisa"}',
    "unknown kind": b'{"kind":"rm.rf"}',
    "unknown field": GOOD[:-1] + b',"force":true}',
    "wrong type": b'{"kind":"sync.blocks","node":7,"blocks":["/a/b/RAW#1"]}',
    "bad name": b'{"kind":"sync.blocks","node":"T2_IT_Pisa","blocks":["/a/b/RAW#1\\n"]}',
    "deep": b'{"kind":"sync.blocks","node":' + b"[" * 60_000 + b"]" * 60_000 + b"}",
    "too large": GOOD[:-1] + b',"meta":{"by":"' + b"x" * MAX_BYTES + b'"}}',
    "bad id": GOOD[:-1] + b',"meta":{"id":{"a":1}}}',
    "another kind in this queue": b'{"kind":"sync.site","node":"T2_IT_Pisa"}',
}


def done(_command: Command, _world: object) -> Result:
    return Result(Outcome.IN_SYNC)


def test_hostile_messages_die_with_their_reason_and_hold_up_nobody(amqp_url: str) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        for number, body in enumerate(HOSTILE.values()):
            publisher.publish([raw(body, message_id=f"bad{number}"), raw(GOOD, message_id=f"good{number}")])
        events = all_events(main, lambda found: len(closed(found)) >= 2 * len(HOSTILE))
        assert running.stop()
    assert sorted(seen.all) == sorted(f"good{n}" for n in range(len(HOSTILE)))
    dead = {properties.message_id: (body, properties) for body, properties in letters(main, "sync.blocks.dead")}
    another = f"bad{list(HOSTILE).index('another kind in this queue')}"
    for number, body in enumerate(HOSTILE.values()):
        if f"bad{number}" != another:
            assert dead[f"bad{number}"][0] == body
            assert dead[f"bad{number}"][1].headers["error"].startswith("InvalidMessage: ")
    assert [plain(body)["kind"] for body, _ in letters(main, "sync.site.dead")] == ["sync.site"]
    outcomes = {event.id: event.outcome for event in closed(events)}
    assert all(outcomes[f"bad{n}"] == Outcome.DEAD and outcomes[f"good{n}"] == Outcome.IN_SYNC for n in range(13))
    assert ready(main, "sync.blocks") == 0


def test_a_failing_command_comes_back_with_its_history_and_dies_at_the_last_attempt(amqp_url: str) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add((command.meta.attempt, [error.message for error in command.meta.errors]))
        raise RucioConflict(f"try {command.meta.attempt}")

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        (root,) = send(publisher, [blocks(1)], by="me")
        events = all_events(main, lambda found: bool(closed(found)))
        assert running.stop()
    assert seen.all == [(1, []), (2, ["try 1"]), (3, ["try 1", "try 2"])]
    ((body, properties),) = letters(main, "sync.blocks.dead")
    meta = plain(body)["meta"]
    assert (meta["id"], meta["attempt"], meta["by"]) == (root.meta.id, 3, "me")
    assert [error["message"] for error in meta["errors"]] == ["try 1", "try 2", "try 3"]
    assert meta["first_at"] == meta["errors"][0]["at"]
    assert not [name for name in properties.headers or {} if name.startswith("x-death")]
    retries = [event for event in events if isinstance(event, Retrying)]
    assert [event.attempt for event in retries] == [1, 2]
    assert [round((event.next_at - event.at).total_seconds(), 3) for event in retries] == main.wait_delays
    assert [event.error and event.error.message for event in closed(events)] == ["try 3"]


def test_an_error_of_the_command_itself_dies_at_once(amqp_url: str) -> None:
    main = settings(amqp_url)

    def handle(_command: Command, _world: object) -> Result:
        raise UsageError("no such node")

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}):
        send(publisher, [blocks(1)])
        (event,) = closed(all_events(main, lambda found: bool(closed(found))))
    assert (event.outcome, event.attempt) == (Outcome.DEAD, 1)


def test_a_newer_version_waits_for_the_upgrade_with_all_its_fields(amqp_url: str) -> None:
    main = settings(amqp_url, attempts=2)
    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": done}):
        publisher.publish([raw(b'{"kind":"sync.blocks","v":7,"new":[1],"meta":{"id":"n","hue":1}}')])
        events = all_events(main, lambda found: bool(closed(found)))
    ((body, _),) = letters(main, "sync.blocks.dead")
    letter = plain(body)
    assert (letter["v"], letter["new"], letter["meta"]["hue"], letter["meta"]["attempt"]) == (7, [1], 1, 2)
    assert [error["class"] for error in letter["meta"]["errors"]] == ["NewerVersion"] * 2
    assert [event.outcome for event in closed(events)] == [Outcome.DEAD]


def test_children_are_in_their_parents_cycle_and_the_cycle_ends(amqp_url: str) -> None:
    main, seen = settings(amqp_url), Seen()

    def plan(command: Command, _world: object) -> Result:
        return Result(Outcome.CHANGED, {"missing": 700}, follow=(blocks(n) for n in range(700)))

    def handle(command: Command, _world: object) -> Result:
        seen.add(command)
        return Result(Outcome.CHANGED, {"added": 1})

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.site": plan, "sync.blocks": handle}, threads=8):
        (root,) = send(publisher, [site(meta=Meta(lane="now"))], by="me")
        events = all_events(main, lambda found: _cycle(found, root.meta.id).finished)
    cycle = _cycle(events, root.meta.id)
    assert cycle.counts == {"missing": 700, "added": 700}
    assert {command.meta.id for command in seen.all} == cycle.announced
    assert {(c.meta.cycle, c.meta.parent, c.meta.lane, c.meta.by) for c in seen.all} == {
        (root.meta.id, root.meta.id, "now", "me")
    }


def test_a_part_that_failed_goes_on_alone_one_attempt_further(amqp_url: str) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        assert isinstance(command, SyncBlocks)
        seen.add((command.blocks, command.meta.attempt))
        if len(command.blocks) == 1:
            return Result(Outcome.CHANGED)
        parts = [blocks(n) for n in (1, 2)]
        return Result(
            Outcome.CHANGED,
            follow=[Failed(parts[0], RucioConflict("a file differs")), Failed(parts[1], UsageError("!"))],
        )

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}):
        (root,) = send(publisher, [SyncBlocks(node="T2_IT_Pisa", blocks=blocks(1).blocks + blocks(2).blocks)])
        events = all_events(main, lambda found: _cycle(found, root.meta.id).finished)
    assert seen.all[1:] == [(blocks(1).blocks, 2)]
    assert sorted(event.outcome for event in closed(events)) == [Outcome.CHANGED, Outcome.CHANGED, Outcome.DEAD]
    ((body, _),) = letters(main, "sync.blocks.dead")
    assert plain(body)["blocks"] == blocks(2).blocks


def test_a_part_that_failed_at_the_last_attempt_dies_alone(amqp_url: str) -> None:
    main = settings(amqp_url, attempts=1)

    def handle(_command: Command, _world: object) -> Result:
        return Result(Outcome.CHANGED, follow=[Failed(blocks(1), RucioConflict("a file differs"))])

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}):
        (root,) = send(publisher, [blocks(7)])
        events = all_events(main, lambda found: _cycle(found, root.meta.id).finished)
    assert {event.id: event.outcome for event in closed(events)} == {
        root.meta.id: Outcome.CHANGED,
        next(iter(_cycle(events, root.meta.id).announced)): Outcome.DEAD,
    }


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_few_threads_serve_all_lanes(amqp_url: str, threads: int) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        return Result(Outcome.IN_SYNC)

    kinds = ["sync.site", "sync.dataset", "sync.blocks"]
    queues = ["sync.site", "sync.site.now", "sync.blocks", "sync.blocks.now"]
    declare(main)
    with publishing(main) as publisher, working(main, dict.fromkeys(kinds, handle), threads=threads):
        for number in range(40):
            command = site() if "site" in queues[number % 4] else blocks(number)
            message = command_message(command, COMMANDS, queues[number % 4])
            publisher.publish([replace(message, message_id=str(number))])
        eventually(lambda: len(seen.all) == 40, "all messages")
    assert sorted(seen.all, key=int) == [str(n) for n in range(40)]


def test_people_do_not_wait_behind_a_full_queue(amqp_url: str) -> None:
    main, release, seen = settings(amqp_url), threading.Event(), Seen()

    def handle(command: Command, _world: object) -> Result:
        if command.meta.lane == "bulk":
            release.wait(30)
        seen.add(command.meta.lane)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher:
        send(publisher, [blocks(n) for n in range(20)])
        with working(main, {"sync.blocks": handle}, threads=2):
            send(publisher, [blocks(99, meta=Meta(lane="now"))])
            eventually(lambda: seen.all == ["now"], "the command of a person")
            release.set()
            eventually(lambda: len(seen.all) == 21, "the others")


def test_a_long_handler_does_not_cost_the_connection(amqp_url: str) -> None:
    main, seen = settings(amqp_url, heartbeat=1), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        time.sleep(6)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        send(publisher, [blocks(1)])
        all_events(main, lambda found: bool(closed(found)))
        assert running.stop()
        assert running.worker._consumer is not None
        assert running.worker._consumer.lost_acks == 0
    assert len(seen.all) == 1


def test_an_outage_costs_no_attempts_and_is_told_once(amqp_url: str) -> None:
    main, seen = settings(amqp_url, attempts=2), Seen()
    down, asked = threading.Event(), Seen()
    down.set()

    def probe() -> None:
        if asked.add(1) > 4:
            down.clear()
        if down.is_set():
            raise RucioError("no answer")

    def handle(command: Command, _world: object) -> Result:
        seen.add((command.meta.id, command.meta.attempt))
        if down.is_set():
            raise RucioError("connection refused")
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}, probes={System.RUCIO: probe}):
        sent = send(publisher, [blocks(n) for n in range(30)])
        events = all_events(main, lambda found: len(closed(found)) >= 30)
    assert {event.id: event.outcome for event in closed(events)} == {c.meta.id: Outcome.IN_SYNC for c in sent}
    assert {attempt for _, attempt in seen.all} == {1}
    assert not [event for event in events if isinstance(event, Retrying)]
    assert [type(event) for event in events if isinstance(event, Away | Back)] == [Away, Back]


def test_while_phedex_is_away_what_needs_only_rucio_goes_on(amqp_url: str) -> None:
    main, down = settings(amqp_url), threading.Event()
    down.set()

    def probe() -> None:
        if down.is_set():
            raise PhedexUnreachable("no answer")

    def sync(_command: Command, _world: object) -> Result:
        probe()
        return Result(Outcome.IN_SYNC)

    def account(_command: Command, _world: object) -> Result:
        return Result(Outcome.CHANGED)

    handlers = {"sync.blocks": sync, "account": account}
    declare(main)
    with publishing(main) as publisher, working(main, handlers, probes={System.PHEDEX: probe}):
        waiting = send(publisher, [blocks(n) for n in range(3)])
        all_events(main, lambda found: any(isinstance(event, Away) for event in found))
        done = {command.meta.id for command in send(publisher, [Account(rse="T2_IT_Pisa")])}
        events = all_events(main, lambda found: done <= {event.id for event in closed(found)})
        assert {event.id for event in closed(events)} == done
        down.clear()
        events = all_events(main, lambda found: len(closed(found)) == 4)
    assert {event.id for event in closed(events)} == done | {command.meta.id for command in waiting}
    assert not [event for event in events if isinstance(event, Retrying)]


def test_if_the_system_answers_the_command_is_at_fault(amqp_url: str) -> None:
    main = settings(amqp_url, attempts=2)

    def handle(_command: Command, _world: object) -> Result:
        raise RucioError("500")

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}, probes={System.RUCIO: lambda: None}):
        send(publisher, [blocks(1)])
        events = all_events(main, lambda found: bool(closed(found)))
    assert [(event.outcome, event.attempt) for event in closed(events)] == [(Outcome.DEAD, 2)]
    assert not [event for event in events if isinstance(event, Away)]


def test_a_deadline_without_any_work_done_costs_an_attempt(amqp_url: str) -> None:
    main = settings(amqp_url, attempts=2, deadline=0.2)

    def handle(_command: Command, checkpoint: Any) -> Result:
        while True:
            checkpoint()
            time.sleep(0.01)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}):
        send(publisher, [blocks(1)])
        events = all_events(main, lambda found: bool(closed(found)))
    assert [event.error and event.error.class_ for event in closed(events)] == ["DeadlineExceeded"]


def test_what_the_engine_cannot_settle_is_set_aside_at_the_delivery_limit(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, seen = settings(amqp_url, probe_pause_max=600), Seen()

    def handle(_hand: Hand, delivery: Delivery) -> None:
        seen.add(delivery.message_id)
        raise ZeroDivisionError

    monkeypatch.setattr(Hand, "handle", handle)
    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": done}) as running:
        (sent,) = send(publisher, [blocks(1)])
        eventually(lambda: ready(main, "sync.killed") == 1, "it is in sync.killed")
        assert running.stop()
    assert seen.all == [sent.meta.id] * (DELIVERY_LIMIT + 1)


def test_what_does_not_end_within_the_grace_period_is_told(amqp_url: str, caplog: pytest.LogCaptureFixture) -> None:
    main, begun, release = settings(amqp_url, grace=0.2), threading.Event(), threading.Event()

    def handle(_command: Command, _world: object) -> Result:
        begun.set()
        release.wait(60)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        send(publisher, [blocks(1)])
        assert begun.wait(30)
        assert not running.stop()
        eventually(lambda: ready(main, "sync.blocks") == 1, "the message is back")
        release.set()
    (told,) = [record for record in caplog.records if "with commands in hand" in record.message]
    assert (told.levelname, vars(told)["because"]) == ("WARNING", "grace is over")


def test_a_drain_hands_back_what_is_not_begun_and_what_can_stop(amqp_url: str) -> None:
    main, begun = settings(amqp_url), Seen()

    def handle(command: Command, checkpoint: Any) -> Result:
        begun.add(command.meta.id)
        while True:
            checkpoint()
            time.sleep(0.01)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}, threads=4) as running:
        sent = send(publisher, [blocks(n) for n in range(10)])
        eventually(lambda: len(begun.all) == 3, "three in hand")
        assert running.stop()
    back = [plain(body)["meta"] for body, _ in letters(main, "sync.blocks")]
    assert sorted(meta["id"] for meta in back) == sorted(c.meta.id for c in sent)
    assert all("attempt" not in meta and "errors" not in meta for meta in back)


def test_a_handler_that_did_something_leaves_the_rest_as_a_child(amqp_url: str) -> None:
    main, begun = settings(amqp_url), threading.Event()

    def handle(command: Command, checkpoint: Any) -> Result:
        begun.set()
        try:
            while True:
                checkpoint()
                time.sleep(0.01)
        except Stop:
            return Result(Outcome.CHANGED, {"added": 1}, follow=[blocks(2)])

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        (root,) = send(publisher, [blocks(1)])
        begun.wait(30)
        assert running.stop()
    ((body, _),) = letters(main, "sync.blocks")
    (event,) = closed(all_events(main, lambda found: bool(closed(found))))
    assert (event.id, event.children, event.counts) == (root.meta.id, 1, {"added": 1})
    assert plain(body)["meta"]["parent"] == root.meta.id


def test_a_broker_that_crashes_in_the_middle_loses_nothing(amqp_url: str, broker: Broker) -> None:
    main, seen = settings(amqp_url), Seen()

    def handle(command: Command, _world: object) -> Result:
        seen.add(command.meta.id)
        time.sleep(0.005)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher:
        sent = send(publisher, [blocks(n) for n in range(2000)])
        with working(main, {"sync.blocks": handle}, threads=8) as running:
            eventually(lambda: len(seen.all) > 300, "some are handled")
            broker.kill()
            broker.start()
            events = all_events(main, lambda found: len({e.id for e in closed(found)}) == 2000, 60)
            assert running.stop()
    assert {event.id for event in closed(events)} == {command.meta.id for command in sent} == set(seen.all)
    assert ready(main, "sync.blocks") == 0
    assert ready(main, "sync.killed") == 0


def test_results_wait_for_a_broker_that_is_blocked(amqp_url: str, broker: Broker) -> None:
    """What was written before the broker said that it blocks may be stored though it was not confirmed in time."""
    main, begun, release = settings(amqp_url, confirm_timeout=1), Seen(), threading.Event()

    def handle(command: Command, _world: object) -> Result:
        begun.add(command.meta.id)
        release.wait(30)
        return Result(Outcome.IN_SYNC)

    declare(main)
    with publishing(main) as publisher, working(main, {"sync.blocks": handle}) as running:
        send(publisher, [blocks(1)])
        eventually(lambda: begun.all, "it is in hand")
        broker.memory_alarm(True)
        release.set()
        eventually(lambda: not running.worker.is_ready, "the worker knows that it is blocked")
        broker.memory_alarm(False)
        events = all_events(main, lambda found: bool(closed(found)))
        assert running.stop()
    assert len(begun.all) == 1
    assert {(event.id, event.run) for event in closed(events)} == {(begun.all[0], closed(events)[0].run)}


def _cycle(events: list[Event], root: str) -> cycles.Cycle:
    state = cycles.Cycles()
    for event in events:
        cycles.apply(state, event)
    return state.by_name.get(root, cycles.Cycle(root=root))
