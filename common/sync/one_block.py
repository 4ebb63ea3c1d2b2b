"""What is known of one block on both sides? Plain facts for a person who asks why it is as it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from common.sync.catalogue import BlockAtNode, File, RuleAtRse
from common.sync.plan import Plan


class Trouble(Struct, frozen=True, kw_only=True):
    """A side that does not answer as it should: which, how (away, untrusted, refused), in which words, since when.

    `code`: the exit code that this means. `since` is what the workers' events say, None where they say nothing.
    """

    system: str
    how: str
    reason: str
    code: int
    since: datetime | None = None


# --- PhEDEx


class Part(Struct, frozen=True, kw_only=True):
    """What a node has of a block: files and bytes there now, since when, changed when, and whether it is meant to."""

    files: int
    bytes: int
    complete: bool
    group: str = ""
    custodial: bool = False
    subscribed: bool | None = None
    created: datetime | None = None
    changed: datetime | None = None


class Listed(Struct, frozen=True, kw_only=True):
    """The files of a block and the nodes of each. `doubt`: why the list is not believed, "" where it is."""

    files: Mapping[str, File] = {}
    nodes: Mapping[str, frozenset[str]] = {}
    doubt: str = ""


class InPhedex(Struct, frozen=True, kw_only=True):
    """A block in PhEDEx. `known`: PhEDEx knows it at all, at a node or not; sizes are those of the whole block."""

    as_of: datetime
    known: bool = True
    files: int = 0
    bytes: int = 0
    is_open: bool = False
    places: Mapping[str, Part] = {}

    def at(self, node: str) -> BlockAtNode | None:
        """The block at a node as the sync reads it; None where the node has no record of it."""
        part = self.places.get(node)
        if part is None:
            return None
        return BlockAtNode(self.files, self.bytes, part.files, part.complete, self.is_open, part.group, part.custodial)


# --- Rucio


class RuleSeen(Struct, frozen=True, kw_only=True):
    """A rule that concerns a block: whose, where, in which state. `about`: the block itself, or its container.

    `locks`: good, replicating, stuck. `ours`: what the sync makes of it, for a rule of the site's own accounts.
    """

    id: str
    account: str
    expression: str
    state: str
    locks: tuple[int, int, int] = (0, 0, 0)
    about: str = ""
    ends: datetime | None = None
    created: datetime | None = None
    comment: str = ""
    meta: Mapping[str, object] = {}
    ours: RuleAtRse | None = None


class Holder(Struct, frozen=True, order=True):
    """A rule that has locks on the block at an RSE."""

    rse: str
    account: str
    rule: str


class InRucio(Struct, frozen=True, kw_only=True):
    """A block in Rucio. `inside`: its files; `known`: those of PhEDEx' files that Rucio has outside of it.

    `states`: each file's replicas, RSE → state. `available`: how many of its files are AVAILABLE, by RSE.
    """

    container: bool = False
    dataset: bool = False
    is_open: bool = False
    attached: bool = False
    rules: tuple[RuleSeen, ...] = ()
    holders: tuple[Holder, ...] = ()
    available: Mapping[str, int] = {}
    inside: Mapping[str, File] = {}
    known: Mapping[str, File] = {}
    states: Mapping[str, Mapping[str, str]] = {}

    def at(self, rse: str) -> dict[str, str]:
        """The state of each file that has a replica at an RSE."""
        return {name: states[rse] for name, states in self.states.items() if rse in states}


# --- the site, and what may be in the way


class Policy(Struct, frozen=True, kw_only=True):
    """What the settings say of the site, as far as it concerns one block; `unselected`: which setting leaves it out."""

    run: bool = True
    dry: bool = False
    adds_only: bool = False
    keep_incomplete: bool = False
    grace: float = 0
    unselected: str = ""
    listed_at: str = ""


class Sweeping(Struct, frozen=True, kw_only=True):
    """A sweep that somebody has announced at an RSE: by which attribute, who, of which cycle, and how long it counts.

    `blocks`: how many it is about. One that nobody can read (no `since`) is about every block, and counts for ever.
    """

    key: str
    by: str = ""
    cycle: str = ""
    since: datetime | None = None
    until: datetime | None = None
    blocks: int = 0

    def is_live(self, at: datetime) -> bool:
        """True while it may still be carried out."""
        return self.until is None or at < self.until


class Place(Struct, frozen=True, kw_only=True):
    """The site in Rucio: its RSE ("" for none, and why), the owner of our rules, the switch and the notes beside it.

    `unclear`: Rucio has something for the node that cannot be used as it is; `why_none` says what. `sweeping`: the
    sweeps of the block that are announced there.
    """

    rse: str = ""
    why_none: str = ""
    unclear: bool = False
    account: str = ""
    account_exists: bool | None = None
    switch: str = "on"
    turned: tuple[str, str, str] = ("", "", "")  # by whom, when, why
    handed_over: str = ""
    unreadable: str = ""
    sweeping: tuple[Sweeping, ...] = ()


class LastCopy(Struct, frozen=True, kw_only=True):
    """What a sweep would do now: keep the block for one file and why, or delete so many replicas."""

    file: str = ""
    why: str = ""
    delete: int = 0
    foreign: int = 0
    lost: int = 0
    takers: tuple[str, ...] = ()


class Letter(Struct, frozen=True, kw_only=True):
    """A dead letter that is about the block, or about the whole site; or one that only killed its workers so far."""

    id: str
    kind: str
    key: str
    error: str
    at: datetime | None = None
    about_block: bool = False
    is_dead: bool = True


class Happened(Struct, frozen=True, kw_only=True):
    """One closed command about the block or its site: when, which, how it ended, what it said of the block."""

    at: datetime
    command: str
    key: str
    cycle: str
    outcome: str
    says: tuple[str, ...] = ()


class Waiting(Struct, frozen=True, kw_only=True):
    """A cycle about the block or its site that is not finished; `retry`: what it waits for, if so."""

    cycle: str
    asked: datetime | None = None
    by: str = ""
    what: str = ""
    open: int = 0
    retry: str = ""


class History(Struct, frozen=True, kw_only=True):
    """What the events tell. `why_none`: why there are none to look at. `until`: how far they could be read."""

    why_none: str = ""
    hours: float = 0
    until: datetime | None = None
    last: tuple[Happened, ...] = ()
    waiting: tuple[Waiting, ...] = ()


class Facts(Struct, frozen=True, kw_only=True):
    """All that was found about a block at a node. A side that is None did not answer: its trouble says why.

    `unknown_node`: PhEDEx has no node of that name. `not_at`: the RSEs whose rules hold the block, and where
    the files that are to join it cannot be made now. `plan`: the site's plan, where a removal is at stake and it was
    asked for; `plan_trouble`: why it was not, `plan_failed`: why it could not be made.
    """

    block: str
    node: str
    at: datetime
    policy: Policy = Policy()
    place: Place | None = None
    unknown_node: str = ""
    phedex: InPhedex | None = None
    listed: Listed = Listed()
    rucio: InRucio | None = None
    not_at: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    plan: Plan | None = None
    plan_trouble: str = ""
    plan_failed: str = ""
    last_copy: LastCopy | None = None
    letters: tuple[Letter, ...] = ()
    letters_trouble: str = ""
    history: History = History()

    @property
    def rse(self) -> str:
        """The site's RSE, "" for none."""
        return self.place.rse if self.place else ""

    @property
    def source(self) -> str:
        """The node whose list counts: the node itself, or for tape its sibling."""
        return self.policy.listed_at or self.node

    @property
    def sweeping(self) -> list[Sweeping]:
        """The sweeps of the block that are announced at the RSE and may still be carried out."""
        return [one for one in self.place.sweeping if one.is_live(self.at)] if self.place else []

    @property
    def ours(self) -> list[RuleSeen]:
        """The rules of the sync on the block at the RSE."""
        return [rule for rule in self.rucio.rules if rule.ours] if self.rucio else []

    @property
    def there(self) -> BlockAtNode | None:
        """What PhEDEx has of the block at the node, None for nothing (or no answer)."""
        return self.phedex.at(self.source) if self.phedex else None


class FileSeen(Struct, frozen=True, kw_only=True):
    """A file on both sides. `here`: PhEDEx has it at the node; `inside`: Rucio has it in the block.

    `state`: of its replica at the RSE, "" for none. `differs`: in a few words, "" for nothing.
    """

    name: str
    phedex: File | None = None
    rucio: File | None = None
    here: bool = False
    inside: bool = False
    state: str = ""
    differs: str = ""


def files_of(facts: Facts) -> list[FileSeen]:
    """Every file of the block on both sides, in order of name, each with what differs (empty for nothing)."""
    if facts.rucio is None:
        return []
    here = facts.rucio.at(facts.rse)
    names = {*facts.listed.files, *facts.rucio.inside, *here}
    return [_file(facts, facts.rucio, name, here.get(name, "")) for name in sorted(names)]


def _file(facts: Facts, rucio: InRucio, name: str, state: str) -> FileSeen:
    ours, theirs = facts.listed.files.get(name), rucio.inside.get(name) or rucio.known.get(name)
    seen = FileSeen(
        name=name,
        phedex=ours,
        rucio=theirs,
        here=facts.source in facts.listed.nodes.get(name, ()),
        inside=name in rucio.inside,
        state=state,
    )
    return replace(seen, differs=_differs(facts, seen))


def _differs(facts: Facts, seen: FileSeen) -> str:
    """In a few words; where PhEDEx' list is not there or not believed, nothing can differ from it."""
    if facts.phedex is None or facts.listed.doubt:
        return ""
    ours, theirs = seen.phedex, seen.rucio
    if ours and theirs and ours.bytes != theirs.bytes:
        return "other size"
    if ours and theirs and ours.adler32 and theirs.adler32 and ours.adler32 != theirs.adler32:
        return "other checksum"
    if facts.there is not None and facts.there.complete:
        return _lacks(seen)
    return "not at the node in PhEDEx" if seen.state and not seen.here else ""


def _lacks(seen: FileSeen) -> str:
    if seen.phedex is None:
        return "not in PhEDEx' list"
    if not seen.state:
        return "no replica" if seen.inside else "not in Rucio's dataset"
    if seen.state != "AVAILABLE":
        return f"replica is {seen.state}"
    return "" if seen.inside else "not in Rucio's dataset"
