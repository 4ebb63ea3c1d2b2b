"""What the model tells a test that watches: what was written, in order, and what must hold."""

from __future__ import annotations

import pytest
from rucio.common.exception import ReplicaNotFound

from tests.model.rucio_model import RucioModel, key, parts
from tests.model.steps import ACCOUNT, COLLEAGUE, THEIRS, Step, X, Y, add, attach, did, file, rule, step

BLOCK, FILE = "/A/Run-v1/AOD#1", file(1)["name"]


def run(model: RucioModel, *steps: Step) -> None:
    for one in steps:
        getattr(model, one.verb)(*one.args, **one.options)


@pytest.fixture
def model() -> RucioModel:
    model = RucioModel(rses={X: {}, Y: {}})
    run(model, add("DATASET", BLOCK), attach(BLOCK, [file(1)], X), rule([BLOCK], X))
    return model


def test_the_log_has_what_was_done_and_not_what_was_asked_or_refused(model: RucioModel) -> None:
    del model.log[:]
    with pytest.raises(ReplicaNotFound):
        run(model, step("delete_replicas", X, [file(9)]))
    (number,) = model.rules
    run(
        model,
        step("list_account_rules", ACCOUNT),
        add("DATASET", "/J/R-v1/U#1", scope=THEIRS),
        step("add_rse_attribute", X, "phedex_sweeping", "1"),
        attach(BLOCK, [file(2)], Y),
        step("delete_replicas", X, [file(1)], ignore_availability=False),
        step("update_replication_rule", number, {"lifetime": 0, "comment": "y"}),
    )
    assert model.log == [
        ("add_dids", "user.jdoe:/J/R-v1/U#1", "type=DATASET"),
        ("add_rse_attribute", X, "phedex_sweeping", "1"),
        ("attach_dids_to_dids", BLOCK, f"rse={Y}", file(2)["name"], "True"),
        ("delete_replicas", X, FILE, "False"),
        ("update_replication_rule", BLOCK, X, number, '{"comment": "y", "lifetime": 0}'),
    ]
    assert model.refused == [("delete_replicas", "ReplicaNotFound", X, file(9)["name"])]
    assert model.writes == 3 + 6


def test_what_must_hold(model: RucioModel) -> None:
    (number,) = model.rules
    assert (model.locks_without_replica(), model.replicas_without_lock_under_rule()) == (set(), set())
    assert model.available_copies(FILE) == {X}
    run(model, attach(BLOCK, [file(2)], X))
    assert model.replicas_without_lock_under_rule() == {(number, X, file(2)["name"])}
    model.judge()
    run(model, step("add_replicas", Y, [file(1)]), step("delete_replicas", X, [file(1)]))
    assert (model.locks_without_replica(), model.available_copies(FILE)) == ({(number, X, FILE)}, {Y})
    run(model, step("add_replicas", X, [file(1)]))
    assert (model.locks_without_replica(), model.miscounted_replicas()) == (set(), {(X, FILE)})


def test_what_may_be_said_and_is_not_known_is_refused(model: RucioModel) -> None:
    for one in (
        rule([BLOCK], Y, COLLEAGUE, grouping="ALL"),
        step("update_rse", X, {"deterministic": False}),
        step("update_replicas_states", X, [{**file(1), "state": "C"}]),
        step("list_replication_rules", {"activity": "x"}),
    ):
        with pytest.raises(AssertionError):
            run(model, one)


@pytest.mark.parametrize(("scope", "name"), [("cms", "/store/a:b.root"), ("cms", "/A/B/C#1"), (THEIRS, "/A/B/C#1:x")])
def test_a_key_is_read_as_it_was_written(scope: str, name: str) -> None:
    assert parts(key(did(name, scope))) == (scope, name)
