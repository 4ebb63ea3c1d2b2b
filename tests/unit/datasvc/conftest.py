"""A small world that unit tests of the data service ask about."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasvc.build import Snapshot
from tests.unit.datasvc.worlds import fill


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the world in worlds.py, not to be changed."""
    path = tmp_path_factory.mktemp("datasvc") / "world.db"
    with Snapshot(path, now=1_500_000_000.5) as snapshot:
        fill(snapshot)
    return path
