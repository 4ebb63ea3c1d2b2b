"""Rucio remembers for ten minutes which RSEs matched an expression: what their attributes say now is what counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
    rucio = Rucio(Main())
    rucio._client = Remembering(rses=attributes)
    site = find_site(rucio, NODE, Site())
    assert (site.rse if site else None) == found
    if OLD in attributes:
        named = find_site(rucio, NODE, Site(rse=OLD))
        assert named is not None
        assert named.rse == OLD
