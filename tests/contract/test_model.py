"""The model of Rucio and the real server answer the same calls alike: results, errors by class, and what remains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rucio.common.exception import RucioException

from tests.model.rucio_model import RucioModel
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site

X, Y = "T2_IT_Pisa", "T2_US_MIT"
BLOCK, OTHER, CONTAINER = "/A/Run-v1/AOD#1", "/A/Run-v1/AOD#2", "/A/Run-v1/AOD"
ACCOUNT = "sync_t2_it_pisa"
Step = tuple[str, tuple[Any, ...], dict[str, Any]]


def did(name: str) -> dict[str, str]:
    return {"scope": "cms", "name": name}


def file(number: int, size: int = 10, adler32: str | None = "00000001") -> dict[str, Any]:
    row = {**did(f"/store/data/{number}.root"), "bytes": size}
    return row if adler32 is None else {**row, "adler32": adler32}


def step(verb: str, *args: Any, **options: Any) -> Step:
    return verb, args, options


def attach(name: str, files: list[dict[str, Any]], rse: str | None = None, ignore: bool = True) -> Step:
    one = {**did(name), "dids": files} | ({"rse": rse} if rse else {})
    return step("attach_dids_to_dids", [one], ignore_duplicate=ignore)


def attach_at(name: str, files: dict[str, list[dict[str, Any]]]) -> Step:
    """The files, by RSE, in one request."""
    every = [{**did(name), "dids": some, "rse": rse} for rse, some in files.items()]
    return step("attach_dids_to_dids", every, ignore_duplicate=True)


def rule(names: list[str], rse: str, account: str = ACCOUNT) -> Step:
    dids = [did(name) for name in names]
    return step(
        "add_replication_rule", dids, 1, rse, account=account, meta='{"a":1}', comment="x", ignore_availability=True
    )


HISTORY: list[Step] = [
    step("list_rses", f"cms_type=real&pnn={X}"),
    step("list_rses", "cms_type=real&pnn=T2_NO_Where"),
    attach(BLOCK, [file(1)], X),
    step("add_dids", [{**did(CONTAINER), "type": "CONTAINER"}, {**did(BLOCK), "type": "DATASET"}]),
    step("add_dids", [{**did(OTHER), "type": "DATASET"}, {**did(BLOCK), "type": "DATASET"}]),
    step("add_dids", [{**did(OTHER), "type": "DATASET"}]),
    attach(BLOCK, [file(1), file(2), file(3, adler32=None)], X),
    attach(BLOCK, [file(1), file(2), file(3, adler32=None)], X),
    attach(BLOCK, [file(1), file(2, size=11)], X),
    attach(BLOCK, [file(4), file(1, adler32="00000002")], Y),
    attach_at(BLOCK, {X: [file(4), file(5)], Y: [file(5), file(2, size=11)]}),
    attach_at(BLOCK, {X: [file(5)], Y: [file(5), file(2)]}),
    attach_at(BLOCK, {X: [file(5)], Y: [file(5), file(2)]}),
    attach(OTHER, [file(9)]),
    attach(OTHER, [file(2)]),
    attach(OTHER, [file(2)], ignore=False),
    attach(CONTAINER, [did(BLOCK), did(OTHER)]),
    attach(CONTAINER, [did(BLOCK)]),
    step("get_metadata_bulk", [did(BLOCK), did("/A/Run-v1/AOD#none"), did(CONTAINER), did("/store/data/1.root")]),
    step("bulk_list_files", [did(BLOCK), did("/A/Run-v1/AOD#none")]),
    step("list_content", "cms", CONTAINER),
    step("list_content", "cms", "/A/Run-v1/RAW"),
    rule([BLOCK], X),
    rule([BLOCK, OTHER], X),
    rule([OTHER], f"rse={X}"),
    step("get_locks_for_dids", [{**did(BLOCK), "type": "dataset"}, {**did(OTHER), "type": "dataset"}]),
    step("list_account_rules", ACCOUNT),
    step("list_did_rules", "cms", BLOCK),
    step("add_replicas", Y, [file(1), file(7)]),
    step("list_dataset_replicas", "cms", BLOCK, deep=True),
    step("list_replicas", [file(n) for n in (1, 2, 4, 5, 7)], all_states=True),
    step("get_replication_rule", "0" * 32),
    step("update_replication_rule", "0" * 32, {"lifetime": None}),
]

THIRD = "/A/Run-v1/AOD#3"
SEEN = [
    step("get_metadata_bulk", [did(BLOCK), did(THIRD), did(CONTAINER), *(file(n) for n in range(1, 8))]),
    step("bulk_list_files", [did(BLOCK), did(OTHER), did(THIRD)]),
    step("list_content", "cms", CONTAINER),
    step("list_content_history", "cms", BLOCK),
    step("list_replicas", [file(n) for n in range(1, 8)], all_states=True, resolve_parents=True),
    step("list_account_rules", ACCOUNT),
    step("list_replication_rules", {"scope": "cms", "did_type": "F"}),
]
REMOVALS: list[Step] = [
    step("add_dids", [{**did(CONTAINER), "type": "CONTAINER"}, {**did(BLOCK), "type": "DATASET"}]),
    step("add_dids", [{**did(OTHER), "type": "DATASET"}, {**did(THIRD), "type": "DATASET"}]),
    attach(BLOCK, [file(1), file(2), file(3)], X),
    attach(BLOCK, [file(1), file(2)], Y),
    attach(OTHER, [file(4), file(5)], X),
    attach(THIRD, [file(2), file(6)], Y),
    attach(CONTAINER, [did(BLOCK), did(OTHER), did(THIRD)]),
    rule([BLOCK, OTHER], X),
    step("delete_replicas", X, [file(1), file(7)]),
    step("delete_replicas", Y, [file(6), file(4)]),
    step("delete_replicas", X, [file(1)]),
    step("delete_replicas", X, [file(1)]),
    step("detach_dids", "cms", BLOCK, [file(3), file(4)]),
    step("detach_dids", "cms", "/A/Run-v1/AOD#none", [file(3)]),
    step("detach_dids", "cms", BLOCK, [file(3)]),
    step("detach_dids", "cms", BLOCK, [file(3)]),
    step("delete_replicas", X, [file(3)]),
    step("delete_replicas", X, [file(4), file(5)]),
    step("update_replicas_states", X, [{**file(2), "state": "U"}]),
    step("update_replicas_states", X, [{**file(2), "state": "U"}, {**file(6), "state": "U"}]),
    step("update_replicas_states", X, [{**file(2), "state": "A"}]),
    attach(OTHER, [file(4), file(5)], X),
    attach(CONTAINER, [did(OTHER)]),
    step("detach_dids", "cms", THIRD, [file(2), file(6)]),
    step("delete_replicas", Y, [file(6)]),
]

KEPT = (
    "name",
    "rse",
    "account",
    "did_type",
    "parent_name",
    "bytes",
    "adler32",
    "rse_expression",
    "locks_ok_cnt",
    "state",
)
KEPT += ("available_length", "states", "is_open", "meta", "parents")


def said(client: Any, one: Step) -> object:
    """What the call gave, without ids and times; an error is its class."""
    verb, args, options = one
    try:
        result = getattr(client, verb)(*args, **options)
        return _plain(verb, result)
    except RucioException as error:
        return type(error).__name__


def _plain(verb: str, result: Any) -> object:
    if verb.startswith(("add_", "attach_", "update_", "delete_", "detach_")):
        return "done"
    rows = [result] if isinstance(result, dict) else list(result)
    kept = [sorted((k, _value(row[k])) for k in KEPT if k in row and _matters(verb, k, row)) for row in rows]
    return sorted(kept, key=repr)


def _value(value: object) -> str:
    if isinstance(value, dict | list):
        return repr(sorted(value.items() if isinstance(value, dict) else set(value)))
    return str(value)


def _matters(verb: str, key: str, row: dict[str, Any]) -> bool:
    """Sums over collections and states of dataset locks are not in the model."""
    if verb == "get_metadata_bulk":
        return key in ("name", "did_type") or (row["did_type"] == "FILE" and key in ("bytes", "adler32"))
    if verb == "list_content":
        return key == "name"
    if verb == "get_locks_for_dids":
        return key in ("name", "rse", "account")
    if verb in ("list_account_rules", "list_did_rules"):
        return key != "bytes"
    if verb == "list_dataset_replicas":
        return key in ("rse", "available_length")
    if verb == "list_replicas":
        return key in ("name", "states", "parents")
    if verb == "list_content_history":
        return key in ("name", "bytes", "adler32")
    if verb == "list_replica_locks":
        return key in ("name", "rse")
    return key != "is_open"


@pytest.fixture
def both(clean_rucio: RucioServer) -> Iterator[tuple[Any, RucioModel]]:
    client = clean_rucio.client()
    for node in (X, Y):
        make_site(clean_rucio, node)
    yield client, RucioModel(rses={node: {"cms_type": "real", "pnn": node} for node in (X, Y)})
    clean_rucio.close_clients()


def test_the_same_calls_get_the_same_answers(both: tuple[Any, RucioModel]) -> None:
    real, model = both
    for one in HISTORY:
        assert (one, said(real, one)) == (one, said(model, one))


def test_rules_that_end_and_meta_that_changes(both: tuple[Any, RucioModel], clean_rucio: RucioServer) -> None:
    answers: list[Callable[[Any, RucioServer | RucioModel], object]] = [_life_of_a_rule]
    real, model = both
    for life in answers:
        assert life(real, clean_rucio) == life(model, model)


def _life_of_a_rule(client: Any, server: RucioServer | RucioModel) -> list[object]:
    client.add_dids([{**did(BLOCK), "type": "DATASET"}])
    for one in (attach(BLOCK, [file(1), file(2)], X), rule([BLOCK], X)):
        said(client, one)
    (number,) = (row["id"] for row in client.list_account_rules(ACCOUNT))
    seen = []
    for options in ({"meta": '{"b":2}'}, {"lifetime": 0}, {"lifetime": None}, {"lifetime": 0}):
        client.update_replication_rule(number, options)
        row = client.get_replication_rule(number)
        seen.append((row["meta"], row["expires_at"] is None, row["locks_ok_cnt"]))
    seen.append(said(client, rule([BLOCK], X)))
    said(client, attach(BLOCK, [file(5)], X))
    _judge(server)
    seen.append([row["name"] for row in client.list_account_rules(ACCOUNT)])
    seen.append(said(client, rule([BLOCK], X)))
    seen.append([row["locks_ok_cnt"] for row in client.list_account_rules(ACCOUNT)])
    return seen


def test_what_is_taken_away_leaves_the_same_behind(both: tuple[Any, RucioModel], clean_rucio: RucioServer) -> None:
    real, model = both
    for one in REMOVALS:
        assert (one, said(real, one)) == (one, said(model, one))
        for look in SEEN:
            assert (one, look, said(real, look)) == (one, look, said(model, look))
    for server in (clean_rucio, model):
        _judge(server)
    for look in SEEN:
        assert (look, said(real, look)) == (look, said(model, look))
    query = "SELECT rse, name FROM replicas r JOIN rses s ON s.id = r.rse_id WHERE tombstone IS NOT NULL"
    assert set(clean_rucio.sql(query)) == model.tombstones
    number = next(row["id"] for row in real.list_account_rules(ACCOUNT) if row["name"] == BLOCK)
    own = next(rule.id for rule in model.rules.values() if rule.name == BLOCK)
    assert said(real, step("list_replica_locks", number)) == said(model, step("list_replica_locks", own))


def _judge(server: RucioServer | RucioModel) -> None:
    if isinstance(server, RucioModel):
        server.judge()
    else:
        server.run_daemon("judge-evaluator")
        server.run_daemon("judge-cleaner")
