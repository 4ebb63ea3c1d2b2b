"""RSEs: their attributes, as messages between programs too, and one that is closed for deletion."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.model.steps import Both, X, Y, add, attach, both_sides, file, step
from tests.stack.rucio_server import RucioServer

NOWHERE, BLOCK = "T2_NO_Where", "/A/Run-v1/AOD#1"
KEY = "phedex_sweeping.abc"
TEXT = json.dumps({"by": "sync@host", "blocks": [BLOCK], "grace": True}, separators=(",", ":"))


@pytest.fixture
def both(clean_rucio: RucioServer) -> Iterator[Both]:
    with both_sides(clean_rucio) as both:
        yield both


def test_attributes_are_set_overwritten_and_deleted(both: Both) -> None:
    look = step("list_rse_attributes", X)
    for value in (TEXT, "2", "x" * 255, "x" * 256, "True", "false", TEXT):
        both.same(step("add_rse_attribute", X, KEY, value), look)
    assert both.client.list_rse_attributes(X)[KEY] == TEXT
    both.same(step("list_rses", f"pnn={X}&cms_type=real"), step("list_rses", f"{X}|rse={Y}"), step("list_rses", "a=b"))
    both.same(step("delete_rse_attribute", X, KEY), look, step("delete_rse_attribute", X, KEY))
    for verb in ("add_rse_attribute", "delete_rse_attribute", "list_rse_attributes"):
        both.same(step(verb, NOWHERE, *([KEY, "1"][: {"a": 2, "d": 1, "l": 0}[verb[0]]])))


def test_what_is_closed_for_deletion_refuses_those_who_heed_it(both: Both) -> None:
    both.same(
        add("DATASET", BLOCK),
        attach(BLOCK, [file(1), file(2), file(3)], X),
        step("get_rse", X),
        step("get_rse", NOWHERE),
        step("delete_replicas", X, [file(3)], ignore_availability=False),
        step("update_rse", X, {"availability_delete": False}),
        step("update_rse", NOWHERE, {"availability_delete": False}),
        step("get_rse", X),
        step("delete_replicas", X, [file(1)], ignore_availability=False),
        step("delete_replicas", X, [file(9)], ignore_availability=False),
        step("delete_replicas", NOWHERE, [file(1)], ignore_availability=False),
        step("delete_replicas", X, [file(1)]),
        step("update_rse", X, {"availability_delete": True, "rse_type": "TAPE"}),
        step("get_rse", X),
        step("delete_replicas", X, [file(2)], ignore_availability=False),
    )
