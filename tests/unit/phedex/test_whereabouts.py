"""Where is a block, by the rows that came, and when is a missing row believed?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from common.phedex import rows, trust
from common.phedex.replies import BlockReplicas
from common.sync.whereabouts import Whereabouts
from tests.unit.phedex import good
from tests.unit.phedex.good import FRESH, FULL, NODE, NOW, OPEN, PART, body

AS_OF = datetime.fromtimestamp(NOW + 0.57439, UTC)
GONE = "/Alpha/Run2018A-v1/RAW#99999999-gone"
CONTROL, OTHER = "/Beta/Run2018A-v1/RAW#1", "/Beta/Run2018A-v1/RAW#2"
RETIRED = "XT1_TW_ASGC_MSS"


def read(listed: list[dict[str, Any]], asked: Sequence[str], controls: Sequence[str] = ()) -> dict[str, Whereabouts]:
    question = good.question(BlockReplicas)
    answer = good.answer(body(good.envelope("blockreplicas", block=listed)))
    return rows.whereabouts(question, trust.read(BlockReplicas, question, answer, FRESH), asked, controls)


def at(block: str, *nodes: tuple[str, int], files: int = 3, is_open: str = "n") -> dict[str, Any]:
    """The row of a block, with the number of its files at each node."""
    row = good.block(block, files, 0, is_open)
    row["replica"] = [good.block(block, files, here, is_open, node)["replica"][0] for node, here in nodes]
    return row


def test_each_node_is_one_of_three_kinds() -> None:
    row = at(FULL, (NODE, 3), ("T2_IT_Bari", 2), ("T1_IT_CNAF_Disk", 0), ("T2_IT_Rome", 3))
    assert read([row], [FULL]) == {
        FULL: Whereabouts(
            files=3,
            bytes=3000,
            complete=frozenset({NODE, "T2_IT_Rome"}),
            partial=frozenset({"T2_IT_Bari"}),
            meant=frozenset({"T1_IT_CNAF_Disk"}),
            listed=True,
            controlled=True,
            as_of=AS_OF,
        )
    }


def test_a_block_without_files_is_complete_and_not_meant_to_come() -> None:
    found = read([at(FULL, (NODE, 0), files=0)], [FULL])[FULL]
    assert (found.complete, found.partial, found.meant) == ({NODE}, frozenset(), frozenset())


def test_all_of_an_open_block_is_a_part_of_it() -> None:
    found = read([at(OPEN, (NODE, 3), is_open="y")], [OPEN])[OPEN]
    assert (found.complete, found.partial) == (frozenset(), {NODE})


@pytest.mark.parametrize("node", [RETIRED, "T2_it_pisa", "somewhere", ""])
@pytest.mark.parametrize("here", [0, 1, 3])
def test_a_node_with_an_unusual_name_is_a_place(node: str, here: int) -> None:
    found = read([at(FULL, (node, here))], [FULL])[FULL]
    assert found.somewhere
    assert {0: found.meant, 1: found.partial, 3: found.complete}[here] == {node}


def test_a_block_without_a_row_is_nowhere_and_not_controlled_without_a_control() -> None:
    found = read([at(FULL, (NODE, 3))], [FULL, GONE])
    assert found[GONE] == Whereabouts(as_of=AS_OF)
    assert (found[GONE].somewhere, found[GONE].listed, found[GONE].controlled) == (False, False, False)
    assert (found[FULL].listed, found[FULL].controlled) == (True, True)


def test_a_control_that_came_back_controls_all_and_is_not_told() -> None:
    found = read([at(CONTROL, (NODE, 3))], [GONE, PART], [CONTROL, OTHER])
    assert found.keys() == {GONE, PART}
    assert all(one.controlled and not one.listed and not one.somewhere for one in found.values())


def test_without_any_control_a_missing_block_is_no_answer() -> None:
    with pytest.raises(trust.ControlMissing, match=f"block {GONE} has no row, and {CONTROL}, {OTHER} has none either"):
        read([at(FULL, (NODE, 3))], [FULL, GONE], [CONTROL, OTHER])


def test_where_nothing_is_missing_no_control_is_needed() -> None:
    assert read([at(FULL, (NODE, 3))], [FULL], [CONTROL])[FULL].controlled


def test_all_numbers_may_be_strings() -> None:
    row = at(FULL, (NODE, 3), ("T2_IT_Bari", 2))
    plain = read([row], [FULL])
    for part in (row, *row["replica"]):
        part.update(files=str(part["files"]), bytes=str(part["bytes"]))
    assert read([row], [FULL]) == plain


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (at(PART, (NODE, 3)), trust.OtherBlock),
        (at(FULL, (NODE, 3)), trust.Repeated),
        (at(GONE, (NODE, 3), (NODE, 3)), trust.Repeated),
        (at(GONE), trust.OtherNode),
        ({**at(GONE, (NODE, 3)), "files": 4}, trust.Contradiction),
        ({**at(GONE, (NODE, 3)), "is_open": "y"}, trust.Contradiction),
        ({**at(CONTROL, (NODE, 3)), "files": 4}, trust.Contradiction),
        (at(CONTROL), trust.OtherNode),
    ],
)
def test_one_wrong_row_refuses_the_reply_by_name(row: dict[str, Any], expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        read([at(FULL, (NODE, 3)), row], [FULL, GONE], [CONTROL])
    assert type(caught.value) is expected
