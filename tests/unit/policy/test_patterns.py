"""Do the policy package's patterns take every name that CMS has, and no other?"""

import gzip
import json
import re
from pathlib import Path

import pytest

from policy.cms_rucio_policy import SUPPORTED_VERSION, get_algorithms, patterns

# All names in a sample of PhEDEx' monitoring of July 2016 and of transfers in 2015.
RECORDED = Path(__file__).parents[2] / "data/names.json.gz"
SAMPLE: dict[str, list[str]] = json.loads(gzip.decompress(RECORDED.read_bytes()))


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [(patterns.CONTAINER, "datasets"), (patterns.DATASET, "blocks"), (patterns.FILE, "files")],
)
def test_every_recorded_name_passes_as_what_it_is(pattern: str, kind: str) -> None:
    assert len(SAMPLE[kind]) > 300
    assert [name for name in SAMPLE[kind] if not (re.search(pattern, name) and re.search(patterns.NAME, name))] == []


def test_every_node_in_use_passes_and_retired_ones_do_not() -> None:
    refused = {node for node in SAMPLE["nodes"] if not re.search(patterns.RSE, node)}
    assert refused == {node for node in SAMPLE["nodes"] if node.startswith("X")}
    assert len(refused) == 31


@pytest.mark.parametrize("rse", ["T1_US_FNAL_Tape", "T2_CH_CERN_Temp", "T3_US_Princeton_ICSE", "T2_DE_DESY_Test"])
def test_the_kinds_of_rse_pass(rse: str) -> None:
    assert re.search(patterns.RSE, rse)


@pytest.mark.parametrize("rse", ["T4_US_FNAL", "T1_US", "t1_us_fnal", "T1_US_FN-AL", "T1_US_FNAL\n", "MOCK"])
def test_other_rses_are_refused(rse: str) -> None:
    assert not re.search(patterns.RSE, rse)


@pytest.mark.parametrize("name", ["/A/B/GEN-SIM2", "/TAC-TIF-120-DAQ-EDM/RAW", "/A/B/RAW#123", "/store/lhe/1/a.lhe.xz"])
def test_the_odd_ones_pass(name: str) -> None:
    assert re.search(patterns.NAME, name)


@pytest.mark.parametrize("name", ["A/B/C", "/A/B/RAW#", "/A/B/RAW#1#2", "/A/B v1/RAW", "/A/B/RAW\n", "/a", "/store/"])
def test_other_names_are_refused(name: str) -> None:
    assert not re.search(patterns.NAME, name)


@pytest.mark.parametrize("scope", ["cms", "user.someone", "group.b-tagging"])
def test_the_scopes_pass(scope: str) -> None:
    assert re.search(patterns.SCOPE, scope)


@pytest.mark.parametrize("scope", ["CMS", "cms2", "user.", "user", "mock"])
def test_other_scopes_are_refused(scope: str) -> None:
    assert not re.search(patterns.SCOPE, scope)


def test_rucio_is_told_its_version_and_gets_algorithms_by_kind() -> None:
    assert SUPPORTED_VERSION == [">=41"]
    assert all(callable(function) for kind in get_algorithms().values() for function in kind.values())
