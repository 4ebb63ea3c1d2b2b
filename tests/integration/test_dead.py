"""Dead letters in an operator's hands: nothing is lost, whatever is done and whoever dies meanwhile."""

import base64
import json
import os
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from common import cycles
from common.broker.dead_letters import look
from common.broker.publisher import Outgoing, command_message
from common.broker.roots import rooted, send
from common.broker.topology import dead_name, declare
from common.errors import BrokerError, RucioConflict
from common.messages.commands import KINDS, Command, SyncDataset, kind_of, with_meta
from common.messages.meta import Failure, Meta
from common.outcome import Outcome
from common.settings.model import Main
from common.sync.selection import compiled
from consumers.engine.result import Result
from phedex_rucio import dead_work
from phedex_rucio.dead_work import Choice, Kept, Tally
from phedex_rucio.letters import Wanted
from tests.acceptance.command import run
from tests.integration.messaging import (
    all_events,
    blocks,
    closed,
    eventually,
    letters,
    lost,
    plain,
    publishing,
    ready,
    settings,
    site,
    working,
)
from tests.stack.broker import Broker

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALL = list(KINDS)
MANY = 10_000
SOME = 4_000  # enough for a crash in the middle: a few hundred are confirmed at a time
HOSTILE = b"\xff\xfe not JSON"


def dead(command: Command, number: int, error: str = "RucioConflict", at: datetime = AT) -> Command:
    """A command that has been through something."""
    failures = [Failure(class_=error, message=f"try {n}", at=at + timedelta(minutes=n)) for n in (1, 2)]
    meta = Meta(id=f"id{number}", cycle="c", attempt=6, killed=1, first_at=at, errors=failures, by="me")
    return with_meta(command, meta)


def lay(main: Main, commands: Iterable[Command], raw: Iterable[bytes] = ()) -> None:
    """They are dead letters; the raw bodies among those of `sync.blocks`."""
    declare(main)
    with publishing(main) as publisher:
        publisher.publish(command_message(c, "", dead_name(kind_of(c))) for c in commands)
        headers = {"error": "InvalidMessage: message: not JSON"}
        publisher.publish(
            Outgoing("", "sync.blocks.dead", body, f"raw{n}", headers=headers) for n, body in enumerate(raw)
        )


def of_three_kinds(number: int) -> list[Command]:
    kinds = [site(), SyncDataset(dataset="/a/b/RAW"), blocks(1, removable_until=AT)]
    return [dead(kinds[n % 3], n, "RucioError" if n % 10 == 0 else "Untrusted") for n in range(number)]


def in_queues(main: Main, names: Iterable[str]) -> int:
    return sum(ready(main, name) for name in names)


def work_bodies(main: Main) -> list[dict[str, object]]:
    """Every command that waits for a worker."""
    names = [name for kind in ALL for name in ((f"{kind}.now", kind) if KINDS[kind].lanes else (kind,))]
    found = []
    for name in names:
        with look(main, name) as view:
            found += [plain(letter.body) for letter in view.letters()]
    return found


def env(main: Main) -> dict[str, str]:
    return {"AMQP_URL": main.amqp_url}


def test_a_replayed_letter_begins_again_with_its_id_and_history(amqp_url: str) -> None:
    main = settings(amqp_url)
    lay(main, [dead(blocks(1, removable_until=AT), 7)])
    result = run("dead", "replay", "id7", env=env(main))
    assert (result.returncode, result.stdout) == (0, "1 replayed\n"), result.stderr
    ((body, properties),) = letters(main, "sync.blocks.now")
    command = plain(body)
    meta = command["meta"]
    assert "removable_until" not in command
    assert (meta["id"], meta["cycle"], meta["lane"], meta["by"]) == ("id7", "c", "now", "me")
    assert "attempt" not in meta
    assert "killed" not in meta
    assert [error["message"] for error in meta["errors"]] == ["try 1", "try 2"]
    assert (properties.headers or {}).keys() <= {"x-delivery-count"}  # which RabbitMQ 3.10 shows at every delivery
    assert ready(main, "sync.blocks.dead") == 0


def test_dead_by_the_broker_replayed_and_retried_it_still_arrives(amqp_url: str) -> None:
    """On RabbitMQ 3.10 a message with copied death headers is dropped as a cycle in the wait queue."""
    main = settings(amqp_url)
    declare(main)
    with publishing(main) as publisher:
        (root,) = send(publisher, [blocks(1)])
        for _ in range(21):
            eventually(lambda: lost(main, "sync.blocks"), "the message comes")
        eventually(lambda: ready(main, "sync.killed") == 1, "the broker dead-letters it")
        with look(main, "sync.killed") as view:
            (letter,) = view.letters()
            publisher.publish([Outgoing("", "sync.blocks.dead", letter.body, letter.message_id)])
            view.ack(letter)
    assert run("dead", "list", env=env(main)).stdout.splitlines()[2:] == ["sync.blocks: 1 dead, 1 match"]
    assert run("dead", "replay", "--all", env=env(main)).returncode == 0
    assert run("dead", "list", env=env(main)).stdout == "There are no dead letters.\n"
    seen: list[int] = []

    def handle(command: Command, _world: object) -> Result:
        seen.append(command.meta.attempt)
        if len(seen) == 1:
            raise RucioConflict("once more")
        return Result(Outcome.IN_SYNC)

    with working(main, {"sync.blocks": handle}):
        events = all_events(main, lambda found: bool(closed(found)))
    assert [(event.id, event.outcome) for event in closed(events)] == [(root.meta.id, Outcome.IN_SYNC)]
    assert seen == [1, 2]


def test_ten_thousand_of_three_kinds_are_filtered_replayed_and_dropped_exactly(amqp_url: str, tmp_path: Path) -> None:
    main, file = settings(amqp_url), tmp_path / "letters.jsonl"
    commands = of_three_kinds(MANY)
    lay(main, commands)
    result = run("dead", "list", "--error", "^RucioError:", "--json", env=env(main))
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert shown["match"] == MANY // 10
    assert [kind["letters"] for kind in shown["kinds"].values() if kind["letters"]] == [3334, 3333, 3333]
    assert in_queues(main, map(dead_name, ALL)) == MANY
    tally, errors = Tally(), Choice(ALL, Wanted(error=compiled("^RucioError:", "--error")))
    with publishing(main) as publisher:
        dead_work.replay(main, publisher, errors, None, tally)
    assert tally.done == MANY // 10
    expected = {c.meta.id for c in commands if c.meta.errors[-1].class_ == "RucioError"}
    assert Counter(_ids(work_bodies(main))) == Counter(expected)
    left = [c.meta.id for c in commands if c.meta.id not in expected]
    assert _dead_ids(main) == {kind: [i for i in left if int(i[2:]) % 3 == n] for n, kind in enumerate(ALL)}
    dropped = run("dead", "drop", "--all", "--to", str(file), "--yes", "--json", env=env(main))
    assert json.loads(dropped.stdout) == {"dropped": MANY * 9 // 10, "refused": {}, "not_found": []}
    saved = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert Counter(saved) == Counter(left)
    assert in_queues(main, map(dead_name, ALL)) == 0


def _ids(bodies: Iterable[dict[str, object]]) -> list[str]:
    return [body["meta"]["id"] for body in bodies]  # type: ignore[index]


def _dead_ids(main: Main) -> dict[str, list[str]]:
    """By kind, in the order of the queue."""
    found = {}
    for kind in ALL:
        with look(main, dead_name(kind)) as view:
            found[kind] = [plain(letter.body)["meta"]["id"] for letter in view.letters()]
    return found


def test_a_broker_killed_in_the_middle_of_a_replay_loses_nothing(amqp_url: str, broker: Broker) -> None:
    main = settings(amqp_url)
    commands = of_three_kinds(SOME)
    lay(main, commands)
    tally = Tally()

    def kill_in_the_middle() -> None:
        eventually(lambda: tally.done > SOME // 8, "a part is done")
        broker._end()

    broker.settle()
    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with publishing(main) as publisher, pytest.raises(BrokerError):
        dead_work.replay(main, publisher, Choice(ALL, Wanted()), None, tally)
    killer.join()
    assert SOME // 8 < tally.done < SOME
    broker.start()
    eventually(lambda: _can_go_on(main), "all is replayed", 60)
    assert in_queues(main, map(dead_name, ALL)) == 0
    counts = Counter(_ids(work_bodies(main)))
    assert set(counts) == {command.meta.id for command in commands}
    assert max(counts.values()) <= 2


def _can_go_on(main: Main) -> bool:
    """The second run reaches its end; right after a crash a queue may not be up yet."""
    try:
        with publishing(main) as publisher:
            dead_work.replay(main, publisher, Choice(ALL, Wanted()), None, Tally())
    except BrokerError:
        return False
    return True


def test_a_broker_killed_in_the_middle_of_a_drop_loses_nothing(amqp_url: str, broker: Broker, tmp_path: Path) -> None:
    main, file = settings(amqp_url), tmp_path / "letters.jsonl"
    commands = [dead(blocks(n), n) for n in range(3000)]
    lay(main, commands)
    tally = Tally()

    def kill_in_the_middle() -> None:
        eventually(lambda: tally.done > 500, "a part is done")
        broker._end()

    broker.settle()
    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with publishing(main) as publisher, pytest.raises(BrokerError):
        dead_work.drop(main, publisher, Choice(ALL, Wanted()), Kept("me", file), tally)
    killer.join()
    broker.start()
    result = eventually(lambda: _dropped(main, file), "the rest is dropped", 60)
    assert 0 < result < 3000
    assert {json.loads(line)["id"] for line in file.read_text().splitlines()} == {c.meta.id for c in commands}
    assert in_queues(main, map(dead_name, ALL)) == 0


def _dropped(main: Main, file: Path) -> int | None:
    result = run("dead", "drop", "--all", "--to", str(file), "--yes", "--json", env=env(main))
    return int(json.loads(result.stdout)["dropped"]) if result.returncode == 0 else None


def test_what_is_no_command_is_shown_kept_and_never_replayed(amqp_url: str, tmp_path: Path) -> None:
    main, file = settings(amqp_url), tmp_path / "letters.jsonl"
    lay(main, [dead(blocks(1), 1)], raw=[HOSTILE, b'{"kind":"rm.rf"}'])
    replayed = run("dead", "replay", "--all", env=env(main))
    assert (replayed.returncode, replayed.stdout) == (1, "1 replayed\n")
    assert "raw0 cannot be sent: InvalidMessage: message: not JSON" in replayed.stderr
    shown = run("dead", "show", "raw0", env=env(main))
    assert shown.returncode == 0
    assert "cannot be replayed" in shown.stdout
    assert run("dead", "drop", "raw0", "raw1", "--yes", "--to", str(file), env=env(main)).returncode == 0
    first, second = map(json.loads, file.read_text().splitlines())
    assert base64.b64decode(first["body_base64"]) == HOSTILE
    assert second["body"] == '{"kind":"rm.rf"}'
    assert os.stat(file).st_mode & 0o777 == 0o600
    loaded = run("dead", "load", str(file), env=env(main))
    assert (loaded.returncode, loaded.stdout) == (1, "0 loaded\n")
    assert "line 1 cannot be sent: message: not JSON" in loaded.stderr


def test_dropped_is_the_end_of_a_cycle_and_loaded_goes_on(amqp_url: str, tmp_path: Path) -> None:
    main, file = settings(amqp_url), tmp_path / "letters.jsonl"
    root = rooted(blocks(1, removable_until=AT), "me")
    lay(main, [with_meta(root, replace(root.meta, attempt=6))])
    assert run("dead", "drop", root.meta.id, "--yes", "--to", str(file), env=env(main)).returncode == 0
    (event,) = closed(all_events(main, lambda found: bool(closed(found))))
    assert (event.id, event.outcome, event.key) == (root.meta.id, Outcome.DROPPED, root.key)
    state = cycles.Cycles()
    cycles.apply(state, event)
    assert state.by_name[root.meta.cycle].finished
    for _ in range(2):
        assert run("dead", "load", str(file), env=env(main)).stdout == "1 loaded\n"
    again = [plain(body) for body, _ in letters(main, "sync.blocks.now")]
    assert [body["meta"]["id"] for body in again] == [root.meta.id] * 2
    assert not any("removable_until" in body for body in again)


def test_load_takes_a_single_command_and_a_file_cut_short(amqp_url: str, tmp_path: Path) -> None:
    main, file = settings(amqp_url), tmp_path / "one.json"
    declare(main)
    file.write_text('{\n "kind": "sync.site",\n "node": "T2_IT_Pisa"\n}\n')
    for _ in range(2):
        assert run("dead", "load", str(file), env=env(main)).stdout == "1 loaded\n"
    ids = {plain(body)["meta"]["id"] for body, _ in letters(main, "sync.site.now")}
    assert len(ids) == 1
    file.write_text('{"kind":"sync.dataset","dataset":"/a/b/RAW"}\n{"queue":"sync.si')
    cut = run("dead", "load", str(file), env=env(main))
    assert (cut.returncode, cut.stdout) == (1, "1 loaded\n")
    assert "line 2 cannot be sent: not a JSON object" in cut.stderr


def test_slowly_means_at_most_so_many_and_all_in_the_end(amqp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rounds of four letters: what is done is not met again, and the order of the rest is kept."""
    main, tally = settings(amqp_url), Tally()
    lay(main, [dead(blocks(n), n) for n in range(11)], raw=[HOSTILE])
    monkeypatch.setattr(dead_work, "ROUND", 0.1)
    with publishing(main) as publisher:
        dead_work.replay(main, publisher, Choice(["sync.blocks"], Wanted()), 40.0, tally)
    assert (tally.done, list(tally.refused)) == (11, ["raw0"])
    assert [plain(body)["meta"]["id"] for body, _ in letters(main, "sync.blocks.now")] == [f"id{n}" for n in range(11)]


def test_filters_by_node_error_time_and_kind(amqp_url: str) -> None:
    main = settings(amqp_url)
    late = datetime.now(UTC)
    lay(
        main,
        [
            dead(site(), 1),
            dead(replace(site(), node="T1_US_FNAL_Disk"), 2, "RucioRefused"),
            dead(blocks(3), 3, "Untrusted", late),
        ],
        raw=[HOSTILE],
    )
    for options, expected in {
        ("--node", "^T1_"): ["id2"],
        ("--node", "Pisa"): ["id1", "id3"],
        ("--error", "^RucioRefused: try 2$"): ["id2"],
        ("--error", "not JSON"): ["raw0"],
        ("--since", "-2h"): ["id3"],
        ("--since", "2026-01-31T12:03"): ["id3"],
        ("--queue", "sync.site"): ["id1", "id2"],
        (): ["id1", "id2", "id3", "raw0"],
    }.items():
        result = run("dead", "list", *options, "--json", env=env(main))
        assert [one["id"] for one in json.loads(result.stdout)["letters"]] == expected
    shown = run("dead", "list", "--limit", "1", env=env(main))
    assert "id2" not in shown.stdout
    assert "The first 1 of 4 are shown" in shown.stderr


MISTAKES = [
    (("replay",), 2, "nothing is chosen"),
    (("replay", "x", "--all"), 2, "either IDs, or --all"),
    (("drop", "--all"), 2, "give --yes"),
    (("list", "--node", "("), 2, "no regular expression"),
    (("list", "--since", "yesterday"), 2, "neither like -2h nor"),
    (("replay", "--all", "--rate", "fast"), 2, "--rate fast"),
    (("load", "/nowhere.json"), 2, "/nowhere.json: cannot be read"),
    (("drop", "--all", "--yes", "--to", "/nowhere/x"), 2, "/nowhere/x: cannot be opened"),
    (("show", "nobody"), 1, "nobody: no dead letter has this id"),
    (("replay", "nobody"), 1, "nobody: no dead letter has this id"),
]


def test_mistakes_are_one_clear_line(amqp_url: str) -> None:
    main = settings(amqp_url)
    declare(main)
    for arguments, code, message in MISTAKES:
        result = run("dead", *arguments, env=env(main))
        assert result.returncode == code, arguments
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1, result.stderr


def test_a_dry_run_and_a_look_change_nothing(amqp_url: str) -> None:
    main = settings(amqp_url)
    lay(main, [dead(blocks(n), n) for n in range(5)])
    before = _dead_ids(main)
    for arguments in (("replay", "--all", "--dry-run"), ("list",), ("show", "id3"), ("show", "id3", "--json")):
        assert run("dead", *arguments, env=env(main)).returncode == 0
    assert _dead_ids(main) == before
    assert work_bodies(main) == []
