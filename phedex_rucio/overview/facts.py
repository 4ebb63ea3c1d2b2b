"""What is known of a deployment at one moment? Plain data, as it was gathered."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct, field

from common.broker.standing import Standing
from common.cycles import Cycles
from common.errors import System
from common.messages.beats import Beat
from common.rucio.switch import State as SwitchState
from common.settings.model import Settings


class Answer(Struct, frozen=True):
    """What a system answered to a small real question: `error` is empty if all is well.

    `refused`: it is there, and does not let us in. `is_other`: something answers in its place, such as a login page.
    """

    system: System
    error: str = ""
    seconds: float = 0.0
    refused: bool = False
    is_other: bool = False


class Due(Struct, frozen=True):
    """When a site is next looked at by the clock; `waits`: why not now, "" where it could begin; `off`: never."""

    at: datetime
    waits: str = ""
    off: str = ""


Level = Literal["wrong", "note"]


class Problem(Struct, frozen=True, kw_only=True):
    """One thing that a person should know: `wrong` needs somebody, a `note` does not. `next`: what to type."""

    code: str
    says: str
    level: Level = "wrong"
    next: list[str] = []


class Facts(Struct, kw_only=True):
    """All that `status` knows. `broker` is None where the broker is away, `switches` where Rucio was not asked.

    `beats`: the last of each process within the last hour. `since`: from when on the events were read. `due`: by node.
    """

    at: datetime
    since: datetime
    where: str = ""
    settings: Settings = Settings()
    broker: Standing | None = None
    beats: list[Beat] = []
    state: Cycles = field(default_factory=Cycles)
    answers: list[Answer] = []
    switches: dict[str, SwitchState] | None = None
    due: dict[str, Due] = {}

    def ready(self, queue: str) -> int:
        """How many messages lie in a queue; 0 for one that nobody has declared."""
        depth = self.broker.queues.get(queue) if self.broker else None
        return depth.ready if depth else 0
