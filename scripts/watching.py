"""A watcher: follows Rucio's tables and PhEDEx while a run goes on, and says at once what must not happen.

Triggers in Rucio's database note each change of a replica, lock, rule, content and announcement; a thread takes the
notes, keeps a picture of both sides and judges each deletion in the order in which things happened. It shares no code
with the sync. What it says is a fault, with the history of the object:

- the last available replica of a file was deleted, while PhEDEx had the file at some node all the while;
- a replica was deleted under a lock or a rule of another account, under a rule of ours that a person has locked, or
  after a person was told that it is kept;
- a rule, or what is in a dataset, of another account was changed by somebody else than that account.

What somebody did only within some seconds (`within`) before the deletion began could not be seen by whoever deletes:
such cases are counted apart (`apart`). Seconds in which Rucio was held up (`held_up`) do not count.

`at_rest` says what must not be found once everything is quiet.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.rows import dict_row

from scripts.picture import LONG_AGO, Row, Source, Tables, did, rule_id

OURS = "sync_"  # what the accounts begin with that own the rules of the sync
SCOPE = "cms"
ANNOUNCED = "phedex_sweeping."
WITHIN = 7.0  # seconds: from the look of whoever deletes to the deletion (5), and for a busy machine
PAUSE = 0.1  # seconds between two looks
KEPT = 60  # notes of the history of each object

_COUNTED = "ARRAY['locks_ok_cnt','locks_replicating_cnt','locks_stuck_cnt','state','error','stuck_at','updated_at']"
_NOTE = f"""
CREATE SCHEMA watching;
CREATE TABLE watching.note (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    begun timestamptz NOT NULL DEFAULT transaction_timestamp(), source text, op text, was jsonb, is_now jsonb);
CREATE FUNCTION watching.take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO watching.note (source, op, was, is_now) VALUES (TG_TABLE_NAME, TG_OP,
        CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END, CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
    IF TG_TABLE_NAME = 'rse_attr_map' AND TG_OP = 'INSERT' THEN
        PERFORM pg_notify('announced', to_jsonb(NEW)->>'value');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER watching_1 AFTER INSERT OR DELETE ON replicas FOR EACH ROW EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_2 AFTER UPDATE ON replicas FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.tombstone IS DISTINCT FROM NEW.tombstone)
    EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_1 AFTER INSERT OR DELETE ON locks FOR EACH ROW EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_1 AFTER INSERT OR DELETE ON contents FOR EACH ROW EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_1 AFTER INSERT OR DELETE ON rules FOR EACH ROW EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_2 AFTER UPDATE ON rules FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state
        OR to_jsonb(OLD) - {_COUNTED} IS DISTINCT FROM to_jsonb(NEW) - {_COUNTED})
    EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_1 AFTER INSERT OR UPDATE ON rse_attr_map FOR EACH ROW
    WHEN (NEW.key LIKE '{ANNOUNCED}%') EXECUTE FUNCTION watching.take();
CREATE TRIGGER watching_2 AFTER DELETE ON rse_attr_map FOR EACH ROW
    WHEN (OLD.key LIKE '{ANNOUNCED}%') EXECUTE FUNCTION watching.take();
"""
_GONE = "DROP FUNCTION IF EXISTS watching.take() CASCADE; DROP SCHEMA IF EXISTS watching CASCADE"
_SAID = ("account", "rse_expression", "copies", "expires_at", "locked", "meta", "comments", "state", "activity")
NOT_A_CHANGE = {"locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt", "state", "error", "stuck_at", "updated_at"}

Sql = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Fault:
    """What must not happen: in words, and what happened to the objects before, a line each."""

    says: str
    history: list[str]

    def __str__(self) -> str:
        return "\n    ".join([self.says, *self.history])


@dataclass(frozen=True)
class Hold:
    """What forbids a deletion, since when, and for how many seconds before it (None: as usual) that may be unseen."""

    kind: str
    says: str
    since: datetime
    within: float | None = None


@dataclass
class Registered:
    """What other people did or are about to do, by their own word: said before it is done.

    `theirs`: rules (by id), replicas (`file@rse`) and contents (`parent child`) that they change or delete themselves.
    `kept`: since when a person may rely on it that a block stays at an RSE.
    """

    theirs: set[str] = field(default_factory=set)
    kept: dict[tuple[str, str], datetime] = field(default_factory=dict)


class Watcher:
    """Watches from the first line of a `with` to its end. `faults`: what was said so far; `apart`: what was counted.

    `host`: the folder of PostgreSQL's socket. `held_up(since, until)`: for how many seconds of that time requests to
    Rucio did not get through. Goes on when PostgreSQL was killed and is there again.
    """

    def __init__(
        self,
        host: Path,
        snapshot: Path | None = None,
        *,
        within: float = WITHIN,
        held_up: Callable[[datetime, datetime], float] = lambda _since, _until: 0.0,
        say: Callable[[str], None] = print,
    ) -> None:
        self.faults: list[Fault] = []
        self.apart: Counter[str] = Counter()
        self.registered = Registered()
        self.deleted = 0
        self._host, self._within, self._held_up, self._say = host, within, held_up, say
        self._source = None if snapshot is None else Source(snapshot)
        self._tables = Tables()
        self._rses: dict[str, str] = {}
        self._past: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._done: set[tuple[int, datetime]] = set()
        self._turned = threading.Condition()
        self._looks = 0
        self._announced: deque[str] = deque(maxlen=1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        with self._connected() as connection:
            connection.execute(_GONE.encode())
            connection.execute(_NOTE.encode())
        self._thread.start()
        self.caught_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            with self._connected() as connection:
                self._take(connection)
                connection.execute(_GONE.encode())
        except psycopg.OperationalError:
            self._say("watcher: PostgreSQL is gone, and the triggers with it or left behind")
        if self._source is not None:
            self._source.close()
        if self._error is not None:
            raise self._error

    # --- what others tell and ask ---------------------------------------------------------------------------------

    def theirs(self, *names: str) -> None:
        """Somebody is about to change or delete these of his own: rules by id, `file@rse`, `parent child`."""
        self.registered.theirs.update(names)

    def kept(self, block: str, rse: str) -> None:
        """A person was told that the block stays at the RSE."""
        self.registered.kept[f"{SCOPE}:{block}", rse] = _now()

    def not_kept(self, block: str, rse: str) -> None:
        """A person is about to allow that the block leaves after all."""
        self.registered.kept.pop((f"{SCOPE}:{block}", rse), None)

    def caught_up(self, timeout: float = 60) -> None:
        """All that was committed before the call has been judged. TimeoutError where PostgreSQL does not come back."""
        with self._turned:
            wanted = self._looks + 2  # one may be on its way
            if not self._turned.wait_for(lambda: self._looks >= wanted or self._error is not None, timeout):
                raise TimeoutError(f"the watcher did not get at Rucio's tables for {timeout:g} s")

    def announcement(self, timeout: float) -> str | None:
        """The value of the next announcement of a sweep, the moment it is there; None if none comes."""
        with self._turned:
            self._announced.clear()
            self._turned.wait_for(lambda: bool(self._announced), timeout)
            return self._announced.popleft() if self._announced else None

    # --- the thread -----------------------------------------------------------------------------------------------

    def _connected(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(
            host=str(self._host),
            user="rucio",
            dbname="rucio",
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=10,
        )

    def _watch(self) -> None:
        try:
            while not self._ended.is_set():
                try:
                    with self._connected() as connection:
                        self._follow(connection)
                except psycopg.OperationalError:
                    self._ended.wait(0.2)  # it was killed and is started again
        except BaseException as error:  # noqa: BLE001 what ends the watch is raised where the watch was asked for
            self._error = error
            with self._turned:
                self._turned.notify_all()

    def _follow(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        # Committed to disk, and so all that was committed before it: what was read stays true over a crash.
        connection.execute("SET synchronous_commit = on")
        connection.execute("LISTEN announced")
        self._read_all(connection)
        while not self._ended.is_set():
            for note in connection.notifies(timeout=PAUSE, stop_after=1):
                with self._turned:
                    self._announced.append(note.payload)
                    self._turned.notify_all()
            self._take(connection)
            with self._turned:
                self._looks += 1
                self._turned.notify_all()

    def _read_all(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        """The picture is that of the tables, and the notes up to it have been judged."""
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._take(connection)
            self._rses = {str(row["id"]): row["rse"] for row in connection.execute("SELECT id, rse FROM rses")}
            fresh, since = Tables(), _now() if self._looks else LONG_AGO
            for row in self._rows(connection, "replicas"):
                fresh.put_replica(row, self._rse(row))
            for row in self._rows(connection, "locks"):
                fresh.put_lock(row, self._rse(row), since)
            for row in self._rows(connection, "contents"):
                fresh.put_content(row, since)
            for row in self._rows(connection, "rules"):
                fresh.put_rule(row, since)
            self._tables = fresh.with_times_of(self._tables)

    def _rows(self, connection: psycopg.Connection[dict[str, Any]], table: str) -> Iterator[Row]:
        for row in connection.execute(f"SELECT to_jsonb(t) AS found FROM {table} t".encode()):
            yield row["found"]

    def _rse(self, row: Row) -> str:
        return self._rses.get(row["rse_id"], str(row["rse_id"]))

    def _take(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        """The notes that are there are judged and gone."""
        notes = connection.execute("DELETE FROM watching.note RETURNING *").fetchall()
        read_at = _now()
        if self._source is not None:
            self._source.look(read_at)
            for block, rse in list(self.registered.kept):
                if (block.removeprefix(f"{SCOPE}:"), rse) in self._source.complete:  # PhEDEx has had it back
                    self.registered.kept.pop((block, rse), None)
        if any(self._is_new_rse(note) for note in notes):
            self._rses = {str(row["id"]): row["rse"] for row in connection.execute("SELECT id, rse FROM rses")}
        for note in sorted(notes, key=lambda note: int(note["id"])):
            if (note["id"], note["at"]) not in self._done:
                self._one(note, min(read_at, note["at"] + timedelta(seconds=1)))
        if notes:
            self._done = {(note["id"], note["at"]) for note in notes}

    def _is_new_rse(self, note: Row) -> bool:
        row = note["is_now"] or note["was"]
        return "rse_id" in row and row["rse_id"] not in self._rses

    # --- one note -------------------------------------------------------------------------------------------------

    def _one(self, note: Row, seen: datetime) -> None:
        """`seen`: by when others could see it. A note is made before its transaction ends."""
        was, is_now = note["was"], note["is_now"]
        row = is_now or was
        self._remember(note, row)
        match note["source"], note["op"]:
            case "replicas", "DELETE":
                self._deleted(note, row, self._rse(row))
            case "replicas", _:
                self._tables.put_replica(row, self._rse(row))
            case "locks", "INSERT":
                self._tables.put_lock(row, self._rse(row), seen)
            case "locks", _:
                self._tables.drop_lock(row, self._rse(row))
            case "contents", "INSERT":
                self._tables.put_content(row, seen)
            case "contents", _:
                self._left(row, note["begun"])
            case "rules", "DELETE":
                self._tables.rules.pop(rule_id(row), None)
                self._foreign_rule(row, "was deleted")
            case "rules", op:
                if op == "UPDATE":
                    self._changed(was, is_now)
                self._tables.put_rule(row, seen)

    def _remember(self, note: Row, row: Row) -> None:
        what = ", ".join(f"{key} {_short(row[key])}" for key in (*_SAID, "key", "value") if row.get(key) is not None)
        where = f" at {self._rse(row)}" if "rse_id" in row else ""
        line = f"{note['at']:%T.%f} {note['op'].lower()} {note['source']} {_name(row)}{where}: {what}"
        for key in _keys(row):
            self._past[key].append(line)

    def _deleted(self, note: Row, row: Row, rse: str) -> None:
        """A replica is gone: was it the last, and whose was it?"""
        file, begun = did(row), note["begun"]
        self.deleted += 1
        held = list(self._holds(file, rse, begun))
        self._tables.drop_replica(row, rse)
        if f"{file}@{rse}" in self.registered.theirs:
            return
        for hold in held:
            self._judge(f"{file} was deleted at {rse} under {hold.says}", hold, file, begun)
        if row["scope"] != SCOPE or self._source is None:
            return
        left = [state for state in self._tables.replicas[file].values() if state == "A"]
        if row["state"] == "A" and not left and (since := self._source.somewhere.get(row["name"])) is not None:
            hold = Hold("the last copy", "", since)
            self._judge(f"{file}: its last available replica was deleted, at {rse}; PhEDEx has it", hold, file, begun)

    def _holds(self, file: str, rse: str, at: datetime) -> Iterator[Hold]:
        """What forbids to delete the file there."""
        seen = set()
        for number, (account, since) in self._tables.locks.get((file, rse), {}).items():
            rule = self._tables.rules.get(number)
            if not account.startswith(OURS) and (rule is None or rule.stands(at)):
                seen.add(number)
                yield Hold("a lock of others", f"a lock of {account} (rule {number})", since)
        above = self._tables.above(file) | {file: LONG_AGO}
        for number, rule, since in self._tables.rules_on(above):
            if rule.expression != rse or number in seen or not rule.stands(at):
                continue  # on an expression of several RSEs, where it holds the file is known by its locks alone
            if not rule.account.startswith(OURS) and rule.state != "W":
                yield Hold("a rule of others", f"a rule of {rule.account} on {rule.did} ({number})", since)
            if rule.account.startswith(OURS) and rule.locked is not None:
                yield Hold("a locked rule", f"rule {number} of {rule.account}, locked by a person", rule.locked)
        for parent in above:
            if (told := self._still_kept(file, parent, rse)) is not None:
                yield Hold("a kept block", f"the word that {parent} is kept", told, within=0)

    def _still_kept(self, file: str, block: str, rse: str) -> datetime | None:
        """Since when a person relies on it; no more for a file that PhEDEx took out of the block."""
        told = self.registered.kept.get((block, rse))
        if told is None or self._source is None:
            return told
        name = block.removeprefix(f"{SCOPE}:")
        invalidated = name in self._source.blocks and self._source.block_of.get(file.removeprefix(f"{SCOPE}:")) != name
        return None if invalidated else told

    def _left(self, row: Row, begun: datetime) -> None:
        """Something is no more in a dataset or container: of others, it stays until they take it out themselves."""
        child, parent = did(row, "child_name", "child_scope"), did(row)
        since = self._tables.parents[child].get(parent, LONG_AGO)
        self._tables.drop_content(row)
        if row["scope"] != SCOPE and f"{parent} {child}" not in self.registered.theirs:
            hold = Hold("a dataset of others", "", since)
            self._judge(f"{child} was taken out of {parent}, which is not ours", hold, child, begun)

    def _changed(self, was: Row, is_now: Row) -> None:
        names = sorted(key for key in was if was[key] != is_now[key] and key not in NOT_A_CHANGE)
        if names:
            self._foreign_rule(was, f"was changed: {', '.join(f'{n} {was[n]} → {is_now[n]}' for n in names)}")
        if was["account"].startswith(OURS) and was["locked"] and not is_now["locked"]:
            rule = self._tables.rules.get(rule_id(was))
            if rule is not None and rule.locked and rule_id(was) not in self.registered.theirs:
                self._fault(f"rule {rule_id(was)} on {did(was)} was unlocked by somebody else", did(was))

    def _foreign_rule(self, row: Row, what: str) -> None:
        if not row["account"].startswith(OURS) and rule_id(row) not in self.registered.theirs:
            self._fault(f"rule {rule_id(row)} of {row['account']} on {did(row)} {what} by somebody else", did(row))

    # --- the word -------------------------------------------------------------------------------------------------

    def _judge(self, says: str, hold: Hold, name: str, begun: datetime) -> None:
        """A fault where whoever deleted could have known: it had been so for long enough before that began."""
        if hold.since == LONG_AGO:
            self._fault(f"{says}, from the beginning", name)
            return
        apart = (begun - hold.since).total_seconds() - self._held_up(hold.since, begun)
        if apart <= (self._within if hold.within is None else hold.within):
            self.apart[hold.kind] += 1
        else:
            self._fault(f"{says}, for {apart:.1f} s before that began", name)

    def _fault(self, says: str, name: str) -> None:
        names = [name, *sorted(self._tables.once_above(name))]
        history = sorted({line for key in names for line in self._past.get(key, ())})
        fault = Fault(f"{_now():%T} {says}", history[-KEPT:] + self._past_announcements())
        self.faults.append(fault)
        self._say(f"WATCHER: {fault}")

    def _past_announcements(self) -> list[str]:
        return list(self._past[ANNOUNCED])[-5:]


def _now() -> datetime:
    return datetime.now(UTC)


def _keys(row: Row) -> list[str]:
    """Whose history a row belongs to."""
    if "key" in row:
        return [ANNOUNCED]
    return [did(row, "child_name", "child_scope"), did(row)] if "child_name" in row else [did(row)]


def _name(row: Row) -> str:
    if "child_name" in row:
        return f"{did(row, 'child_name', 'child_scope')} in {did(row)}"
    return did(row) if "name" in row else ""


def _short(value: object) -> str:
    return str(value)[:160]


# --- once everything is quiet --------------------------------------------------------------------------------------

_AT_REST = {
    "a lock of ours without a replica": """SELECT l.account || ': ' || l.name || ' at ' || s.rse FROM locks l
        JOIN rses s ON s.id = l.rse_id LEFT JOIN replicas r USING (scope, name, rse_id)
        WHERE l.account LIKE %(ours)s AND r.name IS NULL""",
    "a replica under a rule of ours without a lock": """SELECT u.name || ': ' || c.child_name || ' at ' || s.rse
        FROM rules u JOIN rses s ON s.rse = u.rse_expression AND NOT s.deleted
        JOIN contents c ON c.scope = u.scope AND c.name = u.name AND c.child_type = 'F'
        JOIN replicas r ON r.scope = c.child_scope AND r.name = c.child_name AND r.rse_id = s.id
        LEFT JOIN locks l ON l.rule_id = u.id AND l.scope = r.scope AND l.name = r.name AND l.rse_id = r.rse_id
        WHERE u.account LIKE %(ours)s AND u.expires_at IS NULL AND l.name IS NULL""",
    "a rule of ours for a file that has no replica there": """SELECT u.name || ': ' || c.child_name || ' at ' || s.rse
        FROM rules u JOIN rses s ON s.rse = u.rse_expression AND NOT s.deleted
        JOIN contents c ON c.scope = u.scope AND c.name = u.name AND c.child_type = 'F'
        LEFT JOIN replicas r ON r.scope = c.child_scope AND r.name = c.child_name AND r.rse_id = s.id
        WHERE u.account LIKE %(ours)s AND u.expires_at IS NULL AND r.name IS NULL""",
    "a transfer is queued": """SELECT q.name || ' to ' || s.rse || ', rule of ' || coalesce(u.account, 'nobody')
        FROM requests q JOIN rses s ON s.id = q.dest_rse_id LEFT JOIN rules u ON u.id = q.rule_id""",
    "a tombstone on a replica under a rule of ours": """SELECT r.name || ' at ' || s.rse FROM replicas r
        JOIN rses s ON s.id = r.rse_id JOIN locks l USING (scope, name, rse_id)
        WHERE l.account LIKE %(ours)s AND r.tombstone IS NOT NULL""",
    "a dataset of ours outside its container": """SELECT d.name FROM dids d
        WHERE d.scope = %(scope)s AND d.did_type = 'D' AND position('#' IN d.name) > 0
        AND (EXISTS (SELECT 1 FROM contents i WHERE i.scope = d.scope AND i.name = d.name)
            OR EXISTS (SELECT 1 FROM rules u WHERE u.scope = d.scope AND u.name = d.name))
        AND NOT EXISTS (SELECT 1 FROM contents o WHERE o.child_scope = d.scope AND o.child_name = d.name
            AND o.scope = d.scope AND o.name = split_part(d.name, '#', 1))""",
    "an announcement that nobody took away": f"""SELECT s.rse || ': ' || a.key || ' ' || coalesce(a.value, '')
        FROM rse_attr_map a JOIN rses s ON s.id = a.rse_id WHERE a.key LIKE '{ANNOUNCED}%%'""",
}


def at_rest(sql: Sql) -> list[str]:
    """What must not be in Rucio's tables once its daemons have run and nobody writes any more, a line each."""
    values = {"ours": OURS.replace("_", r"\_") + "%", "scope": SCOPE}
    return [f"{what}: {row[0]}" for what, query in _AT_REST.items() for row in sorted(sql(query, values))]


def main() -> None:
    """Follows a running Rucio from beside it, until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m scripts.watching", description=__doc__)
    parser.add_argument("host", type=Path, help="the folder of PostgreSQL's socket")
    parser.add_argument("--snapshot", type=Path, help="PhEDEx' snapshot")
    options = parser.parse_args()
    with Watcher(options.host, options.snapshot) as watcher:
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print(f"{len(watcher.faults)} faults, counted apart: {dict(watcher.apart)}")


if __name__ == "__main__":
    main()
