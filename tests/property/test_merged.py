"""`status` merges what ended well, and says the same as if it kept everything, whatever comes twice, late or mixed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.cycles import Cycles, apply
from common.messages.events import Event
from common.messages.meta import child_id
from common.outcome import Outcome
from phedex_rucio.overview.sites import sites
from phedex_rucio.overview.wrong import problems
from phedex_rucio.status_looks import merge_finished
from tests.unit.overview.facts_made import ago, asked, batch, closed, facts, guard, retrying

ENDS = [Outcome.IN_SYNC, Outcome.CHANGED, Outcome.CHANGED, Outcome.HELD, Outcome.DEAD]


def cycle(rng: random.Random, name: str, minutes: int) -> Iterator[Event]:
    """A site's cycle: its plan, its batches with retries, and replays of what died; some of it may be missing."""
    begun, number = ago(minutes=minutes), rng.randint(0, 5)
    plan: dict[str, Any] = {"as_of": begun, "children": number, "guard": guard() if rng.random() < 0.3 else None}
    node = rng.choice(["T2_IT_Pisa", "T2_US_MIT"])
    yield asked(name, begun, node, **({"select": "x"} if rng.random() < 0.2 else {}))
    yield closed(name, key=node, at=begun + timedelta(seconds=1), **plan)
    for k in range(number - (rng.random() < 0.2)):
        at = begun + timedelta(seconds=2 + rng.randint(0, 5))
        end = rng.choice(ENDS)
        if rng.random() < 0.3:
            yield retrying(name, child_id(name, name, "r", k), attempt=rng.randint(1, 5))
        yield batch(name, k, end, at=at, counts={"added": rng.randint(0, 3), "in_sync": 1})
        if end is Outcome.DEAD and rng.random() < 0.5:
            yield batch(name, k, Outcome.CHANGED, run="again", at=at + timedelta(seconds=9), counts={"added": 1})


@given(st.integers(0, 10**6), st.booleans())
def test_what_is_merged_is_told_as_before(seed: int, is_shuffled: bool) -> None:
    rng = random.Random(seed)
    events = [event for n in range(rng.randint(1, 4)) for event in cycle(rng, f"c{n}", 60 - 9 * n)]
    events += rng.sample(events, rng.randint(0, len(events)))
    if is_shuffled:
        rng.shuffle(events)
    whole, merged = Cycles(), Cycles()
    for event in events:
        apply(whole, event)
        apply(merged, event)
        merge_finished(merged, event)
    assert sites(facts(state=merged)) == sites(facts(state=whole))
    assert problems(facts(state=merged)) == problems(facts(state=whole))
    assert [c.sizes for c in merged.by_name.values()] == [c.sizes for c in whole.by_name.values()]
    assert [c.finished for c in merged.by_name.values()] == [c.finished for c in whole.by_name.values()]
    # Of a cycle that some event finished, however early, nothing is left that went well, but for its plan.
    kept = [part for c in merged.by_name.values() if c.finished for part in c.closed.values()]
    assert all(part.command == "sync.site" or part.outcome not in (Outcome.IN_SYNC, Outcome.CHANGED) for part in kept)
