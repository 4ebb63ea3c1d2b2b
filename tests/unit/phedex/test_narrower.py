"""Splitting a pattern by the next character: nothing is lost, nothing asked twice."""

from __future__ import annotations

import pytest

from common.phedex.inventory import ALL, CHARACTERS, narrower
from common.sync.selection import like

PRIMARIES = ["A", "Alpha", "a-b", "_x", "-x", "9", "A_", "AA", "ZJetsToNuNu_Pt-100_7TeV-herwigpp"]


@pytest.mark.parametrize("primary", PRIMARIES)
@pytest.mark.parametrize("pattern", [ALL, "/A*/*/*", "/ZJ*/*/*", "/A*/*/RAW", "/A%/Run*/RAW"])
def test_a_name_that_matches_is_in_exactly_one_part(pattern: str, primary: str) -> None:
    dataset = f"/{primary}/Run2018A-v1/RAW"
    parts = [part for part in narrower(pattern) if like(part)(dataset)]
    assert len(parts) == like(pattern)(dataset)


@pytest.mark.parametrize(
    "pattern", ["/Alpha/*/*", "/*lpha*/*/*", "/A?*/*/*", "/Alpha/Run2018A-v1/RAW", "/" + "A" * 30 + "*/*/*"]
)
def test_what_cannot_be_split_by_a_character_is_not(pattern: str) -> None:
    assert narrower(pattern) == []


def test_everything_is_split_by_each_first_character_and_a_prefix_has_its_exact_name_too() -> None:
    assert narrower(ALL) == [f"/{character}*/*/*" for character in CHARACTERS]
    assert narrower("/A*/*/*") == ["/A/*/*"] + [f"/A{character}*/*/*" for character in CHARACTERS]
