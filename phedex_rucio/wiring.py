"""How do settings become clients, handlers and an engine?"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import System
from common.messages.commands import KINDS
from common.phedex.client import Phedex
from common.rucio.session import Rucio
from common.settings.model import Settings
from consumers.engine.result import Result
from consumers.engine.world import World

Handler = Callable[[Any, World], Result]


@dataclass(frozen=True)
class Engine:
    """What carries commands out: a handler a kind, a world for each execution, and how to ask a system for life."""

    settings: Settings
    handlers: Mapping[str, Handler]
    world: Callable[[Callable[[], None]], World]
    probes: Mapping[System, Callable[[], None]]


def engine(settings: Settings, current: Callable[[], Settings] | None = None) -> Engine:
    """The engine of some settings; connects to nothing yet. `current`: those in force when an execution begins."""
    doors = Doors(settings, current)
    return Engine(settings, handlers(), doors.world, doors.probes())


def handlers() -> dict[str, Handler]:
    """The handler of every kind: the folder `consumers` is the table, `sync.site` is `consumers.sync_site.handle`."""
    return {kind: importlib.import_module(module_of(kind)).handle for kind in KINDS}


def module_of(kind: str) -> str:
    """The module that carries out a kind."""
    return f"consumers.{kind.replace('.', '_')}"


class Doors(threading.local):
    """One PhEDEx and one Rucio client a thread, made when first needed.

    Neither client is safe to share, so connections = threads, which is also the limit on the load they make.
    """

    def __init__(self, settings: Settings, current: Callable[[], Settings] | None = None) -> None:
        self.settings = settings
        self._current = current or (lambda: settings)
        self._phedex: Phedex | None = None
        self._rucio: Rucio | None = None

    @property
    def phedex(self) -> Phedex:
        """This thread's PhEDEx client."""
        if self._phedex is None:
            self._phedex = Phedex(self.settings.main)
        return self._phedex

    @property
    def rucio(self) -> Rucio:
        """This thread's Rucio client."""
        if self._rucio is None:
            self._rucio = Rucio(self.settings.main)
        return self._rucio

    def probes(self) -> dict[System, Callable[[], None]]:
        """How to ask each system for life: a small real question, by the client of the thread that asks."""
        return {System.PHEDEX: self._ask_phedex, System.RUCIO: self._ask_rucio}

    def _ask_phedex(self) -> None:
        self.phedex.probe()

    def _ask_rucio(self) -> None:
        self.rucio.probe()

    def world(self, checkpoint: Callable[[], None]) -> World:
        """The world of one execution on this thread."""
        return World(self.phedex, self.rucio, self._current(), checkpoint)
