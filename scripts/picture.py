"""What are Rucio's tables and PhEDEx like now, and since when? The two pictures of scripts/watching.py."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LONG_AGO = datetime.min.replace(tzinfo=UTC)  # what was there when the watch began

Row = Mapping[str, Any]


def did(row: Row, name: str = "name", scope: str = "scope") -> str:
    """A DID as one text, `scope:name`."""
    return f"{row[scope]}:{row[name]}"


def moment(text: str | None) -> datetime | None:
    """A time of Rucio's tables (UTC without a zone) as JSON has it."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def rule_id(row: Row, key: str = "id") -> str:
    """A rule's id as Rucio's API has it; its tables have dashes in it."""
    return str(row[key]).replace("-", "")


@dataclass
class Rule:
    """A rule as it is now. `locked`: since when a person has it locked; None where Rucio did when it was made."""

    account: str
    did: str
    expression: str
    since: datetime
    ends: datetime | None = None
    state: str = "O"
    is_locked: bool = False
    locked: datetime | None = None

    def stands(self, at: datetime) -> bool:
        return self.ends is None or self.ends > at


@dataclass
class Tables:
    """Rucio's replicas, locks, rules and contents. Files, datasets and containers by `scope:name`, RSEs by name.

    `replicas`: the state by file and RSE. `locks`: since when, by (file, RSE) and rule. `parents`: since when, by child
    and parent; `ever`: the same with those that it left.
    """

    replicas: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    locks: dict[tuple[str, str], dict[str, tuple[str, datetime]]] = field(default_factory=lambda: defaultdict(dict))
    rules: dict[str, Rule] = field(default_factory=dict)
    parents: dict[str, dict[str, datetime]] = field(default_factory=lambda: defaultdict(dict))
    ever: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def put_replica(self, row: Row, rse: str) -> None:
        self.replicas[did(row)][rse] = row["state"]

    def drop_replica(self, row: Row, rse: str) -> None:
        self.replicas[did(row)].pop(rse, None)

    def put_lock(self, row: Row, rse: str, since: datetime) -> None:
        self.locks[did(row), rse].setdefault(rule_id(row, "rule_id"), (row["account"], since))

    def drop_lock(self, row: Row, rse: str) -> None:
        self.locks[did(row), rse].pop(rule_id(row, "rule_id"), None)

    def put_rule(self, row: Row, since: datetime) -> None:
        """The rule is as the row says."""
        old = self.rules.get(rule_id(row))
        rule = Rule(row["account"], did(row), row["rse_expression"], since if old is None else old.since)
        rule.ends, rule.state, rule.is_locked = moment(row["expires_at"]), row["state"], bool(row["locked"])
        if rule.is_locked and old is not None:
            rule.locked = old.locked if old.is_locked else since
        self.rules[rule_id(row)] = rule

    def put_content(self, row: Row, since: datetime) -> None:
        child, parent = did(row, "child_name", "child_scope"), did(row)
        self.parents[child].setdefault(parent, since)
        self.ever[child].add(parent)

    def drop_content(self, row: Row) -> None:
        self.parents[did(row, "child_name", "child_scope")].pop(did(row), None)

    def above(self, child: str) -> dict[str, datetime]:
        """All that the child is in, at any height, and since when it has been: the latest step of the way there."""
        found: dict[str, datetime] = {}
        steps = [(child, LONG_AGO)]
        while steps:
            below, since = steps.pop()
            for parent, attached in self.parents.get(below, {}).items():
                when = max(since, attached)
                if parent not in found or when < found[parent]:
                    found[parent] = when
                    steps.append((parent, when))
        return found

    def once_above(self, child: str) -> set[str]:
        """All that the child is or was in."""
        found, steps = set[str](), [child]
        while steps:
            new = self.ever.get(steps.pop(), set()) - found
            found |= new
            steps += new
        return found

    def rules_on(self, names: Mapping[str, datetime]) -> Iterator[tuple[str, Rule, datetime]]:
        """The rules on these, each with its id and since when it has been on the thing below."""
        for number, rule in self.rules.items():
            if rule.did in names:
                yield number, rule, max(rule.since, names[rule.did])

    def with_times_of(self, old: Tables) -> Tables:
        """This picture, read anew after a break; what was there before is as old as it was."""
        for key, held in self.locks.items():
            held |= {rule: old.locks[key][rule] for rule in held if key in old.locks and rule in old.locks[key]}
        for number, rule in self.rules.items():
            if (before := old.rules.get(number)) is not None:
                if rule.is_locked:
                    rule.locked = before.locked if before.is_locked else rule.since
                rule.since = before.since
        for child, parents in self.parents.items():
            parents |= {p: old.parents[child][p] for p in parents if child in old.parents and p in old.parents[child]}
            self.ever[child] |= old.ever.get(child, set())
        return self


_SOMEWHERE = """SELECT DISTINCT f.name FROM file f JOIN replica r ON r.block_id = f.block_id
    WHERE NOT EXISTS (SELECT 1 FROM absent a WHERE a.block_id = r.block_id AND a.node_id = r.node_id
    AND a.file_id = f.id)"""
_COMPLETE = """SELECT b.name, n.name FROM replica r JOIN node n ON n.id = r.node_id JOIN block b ON b.id = r.block_id
    WHERE b.is_open = 0 AND b.files > 0 AND r.files = b.files"""
_KNOWN = "SELECT f.name, b.name FROM file f JOIN block b ON b.id = f.block_id"


class Source:
    """PhEDEx as its snapshot's file has it: which files are at some node, and without a break since when.

    `look` is cheap where nothing has changed. A change is dated with the look that finds it.
    """

    def __init__(self, snapshot: Path) -> None:
        self._sql = sqlite3.connect(f"file:{snapshot}?mode=ro", uri=True, check_same_thread=False, timeout=30)
        self._version = -1
        self.somewhere: dict[str, datetime] = {}
        self.complete: dict[tuple[str, str], datetime] = {}
        self.block_of: dict[str, str] = {}
        self.blocks: set[str] = set()

    def look(self, at: datetime) -> None:
        """The picture is that of now."""
        (version,) = self._sql.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        since = LONG_AGO if self._version == -1 else at
        self._version = version
        files = {name for (name,) in self._sql.execute(_SOMEWHERE)}
        self.somewhere = {name: self.somewhere.get(name, since) for name in files}
        there = set(self._sql.execute(_COMPLETE))
        self.complete = {key: self.complete.get(key, since) for key in there}
        self.block_of = dict(self._sql.execute(_KNOWN))
        self.blocks = set(self.block_of.values())

    def close(self) -> None:
        self._sql.close()
