"""Plans of one site that do not see each other's marks: whatever the order, no more is swept than the budget allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from common.names import dataset_of
from common.sync.catalogue import Reading
from common.sync.diff import diff
from common.sync.guard import Ruling, rule
from common.sync.limits import Budget, Limit
from common.sync.plan import PERMISSION, Limits, Plan, Removals, make_plan
from common.sync.selection import like, selection
from tests.property.test_guard import NAMES, NODE, WHOLE, Rules, a_case, a_rule, code, few

GRACE = timedelta(hours=1)  # the usual one
BEGIN = datetime(2018, 1, 1, tzinfo=UTC)


@dataclass
class Batch:
    """Some blocks that a plan lets go, or puts on record as held, until when, and by whose approval."""

    names: list[str]
    until: datetime
    approved: bool = False
    held_since: datetime | None = None


@dataclass
class Site:
    """A site in Rucio, what PhEDEx has lost there, plans under way, and what was swept when without an approval."""

    budget: Budget
    rules: Rules = field(default_factory=lambda: {name: a_rule() for name in NAMES})
    lost: set[str] = field(default_factory=set)
    clock: datetime = BEGIN
    begun: list[tuple[datetime, str]] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    swept: list[tuple[datetime, str]] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)

    def plan(self, at: datetime, pattern: str, approve: str = "") -> Plan:
        """The plan that began at that time and reads Rucio now."""
        blocks = {name: WHOLE for name in NAMES if name not in self.lost and like(pattern)(name)}
        reading = Reading(NODE, blocks, [], [], at)
        found = diff(reading, self.rules, selection(pattern, [], []))
        ruling = rule(a_case(blocks, self.rules, self.budget, pattern, at=at, approve=approve))
        removals = Removals(at=at, ruling=ruling, grace=GRACE.total_seconds())
        plan = make_plan(("n", "r", "a", pattern), reading, self.rules, found, limits=Limits(), removals=removals)
        self.rulings.append(ruling)
        acted = {*plan.mark, *plan.sweep, *plan.approve}
        self._send(acted.difference(ruling.approved), at)
        self._send(acted.intersection(ruling.approved), at, approved=True)
        self._send(set(ruling.record), at, held_since=at)
        return plan

    def _send(
        self, names: set[str], at: datetime, *, approved: bool = False, held_since: datetime | None = None
    ) -> None:
        for k in range(0, len(names), 2):
            self.batches.append(Batch(sorted(names)[k : k + 2], at + PERMISSION, approved, held_since))

    def carry_out(self, batch: Batch) -> None:
        """What `sync.blocks` does: its own reading counts, and the permission."""
        for name in batch.names if self.clock < batch.until else ():
            found = self.rules.get(name)
            if found is None or name not in self.lost:
                continue
            if batch.held_since is not None:
                if not (found.marked or found.held_since):
                    self.rules[name] = a_rule(held=batch.held_since)
            elif not found.marked:
                self.rules[name] = a_rule(since=self.clock, approved=batch.approved)
            elif self.clock.timestamp() - found.gone_since >= GRACE.total_seconds():
                del self.rules[name]
                if not (found.approved or batch.approved):
                    self.swept.append((self.clock, name))
            elif batch.approved:
                self.rules[name] = a_rule(since=datetime.fromtimestamp(found.gone_since, UTC), approved=True)

    def carry_out_all(self) -> None:
        for batch in self.batches:
            self.carry_out(batch)
        self.batches.clear()

    def come_back(self, name: str) -> None:
        self.lost.discard(name)
        if name in self.rules:
            self.rules[name] = a_rule()

    def most_at_a_time(self) -> int:
        """The most blocks that were swept unapproved within any time of grace."""
        times = [at for at, _ in self.swept]
        return max((sum(at <= other < at + GRACE for other in times) for at in times), default=0)


DATASETS = sorted({dataset_of(name) for name in NAMES})  # each so small that a share of it says nothing
some = st.sets(st.sampled_from(NAMES), max_size=6)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("lose"), some),
        st.tuples(st.just("lose"), some),
        st.tuples(st.just("return"), some),
        st.tuples(st.just("begin"), st.sampled_from(["*", *DATASETS])),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("batch"), st.integers(0, 20)),
        st.tuples(st.just("batch"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.sampled_from([1, 5, 30, 49, 60, 61])),
    ),
    max_size=25,
)
budgets = st.builds(
    Budget,
    share=st.sampled_from([0.1, 0.1, 0.2, 1.0]),
    blocks=st.sampled_from([2, 4, 1000]),
    bytes=st.sampled_from([30, 60, 10**6]),
)
lost_of_each = st.tuples(*(st.sets(st.sampled_from([n for n in NAMES if like(d)(n)]), max_size=2) for d in DATASETS))


def step_of(site: Site, what: str, value: object) -> None:
    if what == "lose":
        assert isinstance(value, set)
        site.lost |= value
    elif what == "return":
        for name in value:  # type: ignore[attr-defined]
            site.come_back(name)
    elif what == "begin":
        site.begun.append((site.clock, str(value)))
    elif what == "wait":
        site.clock += timedelta(minutes=value)  # type: ignore[arg-type]
    elif what == "read" and site.begun:
        site.plan(*site.begun.pop(value % len(site.begun)))  # type: ignore[operator]
    elif what == "batch" and site.batches:
        site.carry_out(site.batches.pop(value % len(site.batches)))  # type: ignore[operator]


@settings(max_examples=100)
@given(budgets, lost_of_each, steps)
def test_no_order_of_plans_and_batches_sweeps_more_than_the_budget(
    budget: Budget, lost: tuple[set[str], ...], steps: list[tuple[str, object]]
) -> None:
    """A plan a dataset, which see nothing of each other, and others later; then all goes on until nothing moves."""
    site = Site(budget, lost=set().union(*lost), begun=[(BEGIN, dataset) for dataset in DATASETS])
    for what, value in steps:
        step_of(site, what, value)
    for _ in range(3):
        for begun in site.begun:
            site.plan(*begun)
        site.carry_out_all()
        site.clock += timedelta(minutes=61)
        site.begun = [(site.clock, "*")]
    most = site.most_at_a_time()
    assert most <= budget.share * len(NAMES)
    assert most <= budget.blocks
    assert 10 * most <= budget.bytes
    event(f"swept {bool(site.swept)}, kept {any(ruling.kept for ruling in site.rulings)}")


@given(budgets, st.lists(st.tuples(some, st.sampled_from(["*", "/A*/*/*"])), max_size=8))
def test_one_plan_after_the_other_never_holds_what_it_marked(
    budget: Budget, rounds: list[tuple[set[str], str]]
) -> None:
    """Sweeping does not block itself, whatever else is lost meanwhile: shares only fall."""
    site = Site(budget)
    for lost, pattern in rounds:
        site.lost |= lost
        assert site.plan(site.clock, pattern).unswept == [] or not site.rulings[-1].sweep
        site.carry_out_all()
        site.clock += timedelta(minutes=31)
    assert not any(ruling.kept for ruling in site.rulings)


@given(some, some, st.sampled_from([0.05, 0.1]))
def test_a_person_who_has_looked_lets_all_of_it_go(one: set[str], other: set[str], share: float) -> None:
    """Two plans of which each kept the budget: together they are held, with their approval swept, also in pieces."""
    site = Site(Budget(share=share, blocks=4))
    site.lost = one
    site.plan(site.clock, "*")
    site.lost = one | other
    site.plan(site.clock, "*")
    site.batches = [batch for batch in site.batches if batch.held_since is None]
    site.carry_out_all()
    marked = {name for name, each in site.rules.items() if each.marked}
    ruling = rule(a_case({n: WHOLE for n in NAMES if n not in marked}, site.rules, site.budget, at=site.clock))
    assert set(ruling.kept) == (marked if len(marked) > min(share * len(NAMES), 4) and len(marked) > 1 else set())
    site.lost = marked
    if ruling.kept:
        assert ruling.limit is Limit.MARKED
        seen = code("*", site.clock)
        assert ruling.command.endswith(f"--approve {seen} --reason '…'")
        plan = site.plan(site.clock, "*", approve=seen)
        assert (plan.sweep, plan.approve) == ([], sorted(marked))
        site.carry_out(site.batches.pop())  # of several batches one: the rest is said again by the same code
        site.batches.clear()
        site.clock += timedelta(minutes=5)
        again = site.plan(site.clock, "*", approve=seen)
        assert sum(each.approved for each in site.rules.values()) + len(again.approve) == len(marked)
        site.carry_out_all()
    site.clock += timedelta(minutes=61)
    assert set(site.plan(site.clock, "*").sweep) == marked


@given(few, few, some, st.integers(0, 3))
def test_an_approval_of_what_is_held_takes_no_other_block_with_it(
    one: set[str], meanwhile: set[str], back: set[str], plans: int
) -> None:
    """Held, looked at, and approved later: what went meanwhile is held by itself, what came back is not covered."""
    site = Site(Budget(share=0), lost=set(one))
    site.plan(site.clock, "*")
    site.carry_out_all()
    seen = code("*", site.clock)
    assert {name for name, each in site.rules.items() if each.held_since} == one
    site.clock += timedelta(minutes=5)
    for name in back & one:
        site.come_back(name)
    site.lost |= meanwhile | back & one  # these left again
    for _ in range(plans):
        site.plan(site.clock, "*")
        site.carry_out_all()
    site.clock += timedelta(minutes=5)
    site.plan(site.clock, "*", approve=seen)
    site.carry_out_all()
    assert {name for name, each in site.rules.items() if each.marked} == one - back
    assert all(each.approved for each in site.rules.values() if each.marked)
    assert {name for name, each in site.rules.items() if each.held_since} == (meanwhile | back & one) - (one - back)
