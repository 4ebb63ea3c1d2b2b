"""Rucio remembers for ten minutes which RSEs matched an expression: what their attributes say now is what counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from common.errors import UsageError
from common.rucio.rses import find_site
from common.rucio.session import Rucio
from common.settings.model import Main, Site
from tests.model.rucio_model import RucioModel

NODE, OLD = "T2_IT_Pisa", "T2_IT_Pisa_Old"


class Remembering(RucioModel):
    """With a cache that still has the RSE of before, whatever is asked."""

    def list_rses(self, expression: str) -> Iterator[dict[str, Any]]:
        return iter([{"rse": OLD}])


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({OLD: {"cms_type": "real", "pnn": NODE}}, OLD),
        ({OLD: {"cms_type": "real", "pnn": "T2_DE_DESY"}, NODE: {"cms_type": "real", "pnn": NODE}}, None),
        ({OLD: {"cms_type": "temp", "pnn": NODE}}, None),
        ({NODE: {"cms_type": "real", "pnn": NODE}}, None),
    ],
)
def test_an_rse_that_does_not_stand_for_the_node_now(attributes: dict[str, dict[str, str]], found: str | None) -> None:
    site = find_site(a_rucio(attributes), NODE, Site())
    assert (site.rse if site else None) == found


def a_rucio(attributes: dict[str, dict[str, str]]) -> Rucio:
    rucio = Rucio(Main())
    rucio._client = Remembering(rses=attributes)
    return rucio


@pytest.mark.parametrize(
    ("node", "attributes"),
    [
        (NODE, {"cms_type": "real", "pnn": NODE}),
        (NODE, {"cms_type": "real"}),
        (NODE, {"cms_type": "temp", "pnn": "T2_DE_DESY"}),  # it stands for no node
        (NODE, {"cms_type": "real", "pnn": "nobody's"}),
        ("T1_US_FNAL_Buffer", {"cms_type": "real", "pnn": "T1_US_FNAL_MSS"}),  # a tape and its buffer are one
        ("T1_US_FNAL_MSS", {"cms_type": "real", "pnn": "T1_US_FNAL_Buffer"}),
    ],
)
def test_an_rse_that_the_settings_name(node: str, attributes: dict[str, str]) -> None:
    site = find_site(a_rucio({OLD: attributes}), node, Site(rse=OLD))
    assert site is not None
    assert site.rse == OLD


@pytest.mark.parametrize(
    ("node", "pnn"),
    [(NODE, "T2_DE_DESY"), ("T1_US_FNAL_Disk", "T1_US_FNAL_MSS"), ("T1_US_FNAL_MSS", "T1_US_FNAL_Disk")],
)
def test_two_nodes_at_one_rse_are_refused_with_both_names(node: str, pnn: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_site(a_rucio({OLD: {"cms_type": "real", "pnn": pnn}}), node, Site(rse=OLD))
    assert str(refused.value) == (
        f"{node}: its section says rse: {OLD}, which is the RSE of {pnn} (its attribute pnn): two nodes at "
        f"one RSE would sweep each other's blocks; correct `rse:` or `pnn`"
    )


def test_sweeps_that_were_announced_are_seen() -> None:
    attributes = {"cms_type": "real", "pnn": NODE, "phedex_sweeping.ab": "by hand"}
    site = find_site(a_rucio({OLD: attributes}), NODE, Site())
    assert site is not None
    assert [one.key for one in site.announced] == ["phedex_sweeping.ab"]
