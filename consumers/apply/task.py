"""What a batch's removals are done under: policy, the plan's permission, the switch; looked at before each write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.messages.commands import SyncBlocks
from common.messages.meta import now
from common.phedex.replies import TAPE
from common.rucio.rses import Closed, Switch, closed, read_switch
from common.settings.model import Site
from common.sync.catalogue import RuleAtRse
from common.sync.limits import Budget
from common.sync.plan import PERMISSION
from consumers.apply.batch import Batch
from consumers.apply.beyond import Own
from consumers.apply.sides import Sides

CLOCKS = timedelta(minutes=10)  # so far apart may the clocks of two workers be


class Halted(Exception):
    """Raised before a write that nothing permits any more; the text says what is missing."""


@dataclass(frozen=True)
class Task:
    """The removals of a batch: by which policy, and the command that says until when and by whose approval.

    `checkpoint` raises where this execution is to end. `who` it is, for the announcements of its sweeps. `files_at`:
    how many files our rules hold at other sites, and `left_at`: how many of those left their blocks in this batch.
    """

    sides: Sides
    policy: Site
    batch: Batch
    command: SyncBlocks
    who: str = ""
    checkpoint: Callable[[], None] = lambda: None
    known: dict[str, Closed] = field(default_factory=dict)
    files_at: dict[str, int] = field(default_factory=dict)
    left_at: dict[str, int] = field(default_factory=dict)

    @property
    def rse(self) -> str:
        return self.batch.site.rse

    @property
    def is_tape(self) -> bool:
        """True for a tape RSE, where Rucio locks every rule by itself; read once."""
        if self.rse not in self.known:
            self.known[self.rse] = closed(self.sides.rucio, self.rse)
        return self.known[self.rse].tape

    @property
    def is_on_tape(self) -> bool:
        """True where only a person removes: a tape RSE, or a node before or on tape, whatever its RSE is called."""
        return self.is_tape or any(map(self.is_tape_node, (self.command.node, self.batch.node)))

    def is_tape_node(self, node: str) -> bool:
        """True for a node that PhEDEx has as one before or on tape."""
        known = self.sides.phedex.nodes().get(node)
        return known is not None and known.kind in TAPE

    def own(self, found: Mapping[str, RuleAtRse]) -> Own:
        """This node, with its rules on some blocks."""
        return Own(self.command.node, self.batch.site, found)

    def is_locked(self, found: Iterable[RuleAtRse]) -> bool:
        """True where a person locked one of the rules."""
        return any(rule.locked for rule in found) and not self.is_tape


def is_permitted(until: datetime | None) -> bool:
    """True while the permission of a plan lasts. One that lasts longer than any plan gives is nobody's."""
    if until is None:
        return False
    left = (until if until.tzinfo else until.replace(tzinfo=UTC)) - now()
    return timedelta(0) < left <= PERMISSION + CLOCKS


def check_permission(task: Task) -> None:
    """Raises Halted where the plan's permission has run out."""
    if not is_permitted(task.command.removable_until):
        raise Halted("the permission to remove it has run out")


def check_switch(task: Task) -> None:
    """Raises Halted where the site's switch, read now, does not say on."""
    check_on(read_switch(task.sides.rucio, task.rse), task.rse)


def check_on(switch: Switch, rse: str) -> None:
    """Raises Halted where the RSE's switch does not say on."""
    if switch is not Switch.ON:
        raise Halted(f"the switch at {rse} says {switch}")


def check_open(task: Task, rse: str) -> Closed:
    """What the RSE, read now, says of removals; raises Halted where it is closed for deletion."""
    task.known[rse] = closed(task.sides.rucio, rse)
    if task.known[rse].for_deletion:
        raise Halted(f"RSE {rse} is closed for deletion (availability_delete)")
    return task.known[rse]


def budget_of(policy: Site) -> Budget:
    """The site's limits as its settings say."""
    return Budget(
        share=policy.max_removal_share,
        blocks=policy.max_removal_blocks,
        bytes=policy.max_removal_bytes,
        hold_custodial=policy.hold_custodial,
        hold_nowhere=policy.hold_nowhere,
        hold_unknown=policy.hold_unknown,
        allow_clean=policy.allow_clean,
    )
