"""What may a handler touch? The two sides, the settings, and the question whether it should stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Settings


@dataclass(frozen=True)
class World:
    """The doors of one handler's execution: a PhEDEx and a Rucio client of its thread.

    `checkpoint()` raises Stop when the handler is to end at this border between two chunks of work.
    """

    phedex: Phedex
    rucio: Rucio
    settings: Settings
    checkpoint: Callable[[], None]
