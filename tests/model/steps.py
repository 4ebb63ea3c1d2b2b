"""The same calls, made on the model of Rucio and on a real server: answers, errors by class, and all that is inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rucio.common.exception import RucioException

from tests.model.rucio_model import ModelRule, RucioModel
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_account, make_site

X, Y = "T2_IT_Pisa", "T2_US_MIT"
ACCOUNT, COLLEAGUE, THEIRS = "sync_t2_it_pisa", "jdoe", "user.jdoe"


@dataclass(frozen=True)
class RuleOf:
    """Stands for the id of an account's rule on a DID: each side has ids of its own."""

    account: str
    name: str
    scope: str = "cms"

    def id(self, client: Any) -> str:
        rows = client.list_did_rules(self.scope, self.name)
        (found,) = (row["id"] for row in rows if row["account"] == self.account)
        return str(found)


@dataclass(frozen=True)
class Step:
    """A call of the client."""

    verb: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.args} {self.options}"


def step(verb: str, *args: Any, **options: Any) -> Step:
    return Step(verb, args, options)


def did(name: str, scope: str = "cms") -> dict[str, str]:
    return {"scope": scope, "name": name}


def file(number: int, size: int = 10, adler32: str | None = "00000001") -> dict[str, Any]:
    row = {**did(f"/store/data/{number}.root"), "bytes": size}
    return row if adler32 is None else {**row, "adler32": adler32}


def add(kind: str, *names: str, scope: str = "cms") -> Step:
    return step("add_dids", [{**did(name, scope), "type": kind} for name in names])


def attach(
    name: str, children: list[dict[str, Any]], rse: str | None = None, ignore: bool = True, scope: str = "cms"
) -> Step:
    one = {**did(name, scope), "dids": children} | ({"rse": rse} if rse else {})
    return step("attach_dids_to_dids", [one], ignore_duplicate=ignore)


def attach_at(name: str, files: dict[str, list[dict[str, Any]]]) -> Step:
    """The files, by RSE, in one request."""
    every = [{**did(name), "dids": some, "rse": rse} for rse, some in files.items()]
    return step("attach_dids_to_dids", every, ignore_duplicate=True)


def rule(names: list[str], rse: str, account: str = ACCOUNT, scope: str = "cms", **more: Any) -> Step:
    options = {"account": account, "meta": '{"a":1}', "comment": "x", "ignore_availability": True, **more}
    return step("add_replication_rule", [did(name, scope) for name in names], 1, rse, **options)


def change(of: RuleOf, **options: Any) -> Step:
    return step("update_replication_rule", of, options)


# --- answers --------------------------------------------------------------------------------------------------

RULE: tuple[str, ...] = (
    "scope",
    "name",
    "did_type",
    "account",
    "rse_expression",
    "copies",
    "grouping",
    "state",
    "comments",
    "locked",
)
RULE += ("locks_ok_cnt", "locks_replicating_cnt", "locks_stuck_cnt", "meta", "created_at", "expires_at")
# What is compared of the rows of a verb: sums over collections and states of dataset locks are not in the model.
FIELDS: dict[str, tuple[str, ...]] = {
    "list_rses": ("rse",),
    "get_rse": ("rse", "rse_type", "availability_delete", "availability_write", "availability_read"),
    "get_metadata_bulk": ("scope", "name", "did_type"),
    "bulk_list_files": ("scope", "name", "bytes", "adler32", "parent_name"),
    "list_content": ("scope", "name", "type"),
    "list_parent_dids": ("scope", "name", "type"),
    "list_content_history": ("scope", "name", "bytes", "adler32"),
    "get_locks_for_dids": ("scope", "name", "rse", "account"),
    "list_request_by_did": ("scope", "name", "activity"),
    "list_replica_locks": ("scope", "name", "rse", "state"),
    "list_dataset_replicas": ("rse", "available_length"),
    "list_replicas": ("scope", "name", "states", "parents"),
}
WRITES = ("add_", "attach_", "update_", "delete_", "detach_")


def said(client: Any, one: Step) -> object:
    """What the call gave, without ids and times; an error is its class."""
    try:
        args = [arg.id(client) if isinstance(arg, RuleOf) else arg for arg in one.args]
        result = getattr(client, one.verb)(*args, **one.options)
        return "done" if one.verb.startswith(WRITES) else _plain(one.verb, result)
    except RucioException as error:
        return type(error).__name__


def _plain(verb: str, result: Any) -> object:
    if verb == "list_rse_attributes":  # those that the making of a site gives it apart
        return {name: result[name] for name in result if name in ("cms_type", "pnn", X, Y) or "phedex" in name}
    rows = [result] if isinstance(result, dict) else list(result)
    if verb == "list_dids":
        return sorted(map(str, rows))
    return sorted(([(name, _value(row[name])) for name in _fields(verb, row)] for row in rows), key=repr)


def _fields(verb: str, row: dict[str, Any]) -> list[str]:
    fields = FIELDS.get(verb, RULE)
    if verb == "get_metadata_bulk" and row["did_type"] == "FILE":
        fields += ("bytes", "adler32")
    return [name for name in fields if name in row]


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return "a time" if value.tzinfo is None else "a time of some zone"
    if isinstance(value, dict):
        return repr(sorted(value.items()))
    if isinstance(value, list):  # parents, of which each side may name one twice
        return repr(sorted(set(value)))
    return repr(value)


# --- what is inside -------------------------------------------------------------------------------------------

State = dict[str, dict[Any, Any]]
_KEY = "CASE WHEN {0}scope = 'cms' THEN {0}name ELSE {0}scope || ':' || {0}name END"
_RULE = f"u.account, {_KEY.format('u.')}, u.rse_expression"
_TABLES = {
    "content": f"SELECT {_KEY.format('')}, {_KEY.format('child_')}, 1 FROM contents",
    "replicas": f"""SELECT s.rse, {_KEY.format("t.")}, t.state, t.lock_cnt, t.tombstone IS NOT NULL
        FROM replicas t JOIN rses s ON s.id = t.rse_id""",
    "locks": f"""SELECT {_RULE}, s.rse, {_KEY.format("t.")}, t.state
        FROM locks t JOIN rules u ON u.id = t.rule_id JOIN rses s ON s.id = t.rse_id""",
    "dataset locks": f"""SELECT {_RULE}, s.rse, {_KEY.format("t.")}, 1
        FROM dataset_locks t JOIN rules u ON u.id = t.rule_id JOIN rses s ON s.id = t.rse_id""",
    "rules": f"""SELECT {_RULE}, u.state, u.locks_ok_cnt, u.locks_replicating_cnt, u.locks_stuck_cnt, u.locked,
        u.expires_at IS NOT NULL, u.comments, u.meta FROM rules u""",
}
_KEYS = {"content": 2, "replicas": 2, "locks": 5, "dataset locks": 5, "rules": 3}


def inside_server(server: RucioServer) -> State:
    """What Rucio's own tables say."""
    return {
        name: {row[: _KEYS[name]]: row[_KEYS[name] :] for row in server.sql(query)} for name, query in _TABLES.items()
    }


def inside_model(model: RucioModel) -> State:
    """The same of the model."""
    of = {rule.id: (rule.account, rule.name, rule.expression) for rule in model.rules.values()}
    rules = model.rules.values()
    places = (model.datasets, model.containers)
    return {
        "content": {(parent, child): (1,) for place in places for parent in place for child in place[parent]},
        "replicas": {
            one: (state, model.lock_counts[one], one in model.tombstones) for one, state in model.replicas.items()
        },
        "locks": {
            (*of[rule.id], rse, name): (rule.held[name][rse],) for rule in rules for rse, name in rule.replicas()
        },
        "dataset locks": {(*of[rule.id], rse, name): (1,) for rule in rules for rse, name in rule.datasets},
        "rules": {of[rule.id]: _rule_row(rule) for rule in rules},
    }


def _rule_row(rule: ModelRule) -> tuple[Any, ...]:
    state = {"SUSPENDED": "U"}.get(rule.state, rule.state[0])
    counts = [rule.counts[lock] for lock in "ORS"]
    meta = None if rule.meta is None else json.dumps(rule.meta)
    return (state, *counts, rule.locked, rule.ends, rule.comment, meta)


# --- both sides -----------------------------------------------------------------------------------------------


@dataclass
class Both:
    """A real Rucio and the model, which get the same calls."""

    server: RucioServer
    client: Any
    model: RucioModel

    def same(self, *steps: Step) -> list[object]:
        """Each step got the same answer on both sides and left the same; the answers."""
        answers = []
        for one in steps:
            answers.append(said(self.model, one))
            real = said(self.client, one)
            assert real == answers[-1], f"{one}\nreal  {real}\nmodel {answers[-1]}"
            if one.verb.startswith(WRITES):
                self.is_the_same_inside(str(one))
        return answers

    def judge(self) -> None:
        """Evaluator and cleaner have run, and left the same."""
        self._run("judge-evaluator")
        self.model.evaluate()
        self.is_the_same_inside("judge-evaluator")
        self.clean()

    def clean(self) -> None:
        """The cleaner has run."""
        self._run("judge-cleaner")
        self.model.clean()
        self.is_the_same_inside("judge-cleaner")

    def _run(self, daemon: str) -> None:
        """The daemon has done all it had to: it goes on after an error, and ends well."""
        said = self.server.run_daemon(daemon)
        if "DuplicatePreparedStatement" in said and self.server.runner:
            # It got a connection on which a daemon before it had prepared statements: a new runner has none.
            self.server.runner.kill()
            self.server.runner.communicate()
            said = self.server.run_daemon(daemon)
        assert "Traceback" not in said, said[-3000:]

    def is_the_same_inside(self, after: str) -> None:
        real, model = inside_server(self.server), inside_model(self.model)
        for name in real:
            both = {one: (real[name].get(one), model[name].get(one)) for one in {*real[name], *model[name]}}
            differ = {one: rows for one, rows in both.items() if rows[0] != rows[1]}
            assert not differ, f"{name} (real, model) after {after}: {differ}"

    def transfers(self) -> int:
        """How many requests Rucio has in its queue."""
        return int(self.server.sql("SELECT count(*) FROM requests")[0][0])


@contextmanager
def both_sides(server: RucioServer) -> Iterator[Both]:
    """Two sites, a colleague and his scope, on both sides; the server is empty before."""
    client = server.client()
    for node in (X, Y):
        make_site(server, node)
        make_account(client, COLLEAGUE, node)
    client.set_local_account_limit(ACCOUNT, Y, -1)
    client.add_scope(COLLEAGUE, THEIRS)
    yield Both(server, client, RucioModel(rses={node: {"cms_type": "real", "pnn": node} for node in (X, Y)}))
    server.close_clients()
