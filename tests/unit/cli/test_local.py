"""Without a broker: the order of the work, tries, and ends are those of the queues. Handlers here are functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from common.cycles import Cycles
from common.errors import NotAuthenticated, PhedexUnreachable, RucioConflict, RucioRefused, System
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.outcome import Outcome
from common.settings.model import Settings
from consumers.engine.result import Failed, Result
from phedex_rucio import local, roots
from phedex_rucio.wiring import Engine

NODES = ("T1_US_FNAL", "T2_US_MIT")
Handle = Callable[[Any, Any], Result]


def answers() -> None:
    """A probe of a system that is there."""


def carried_out(
    site: Handle, blocks: Handle, probe: Callable[[], None] = answers, nodes: tuple[str, ...] = NODES[:1]
) -> Cycles:
    handlers = {"sync.site": site, "sync.blocks": blocks}
    probes = dict.fromkeys((System.PHEDEX, System.RUCIO), probe)
    engine = Engine(Settings(), handlers, lambda _: cast(Any, None), probes)
    commands = [roots.rooted(SyncSite(node=node)) for node in nodes]
    return local.run(local.Local(engine, pause=0), commands)


def of(node: str, *names: int) -> SyncBlocks:
    return SyncBlocks(node=node, blocks=[f"/A/B/AOD#{name}" for name in names])


def plans(*batches: int) -> Handle:
    return lambda command, _: Result(Outcome.CHANGED, follow=(of(command.node, batch) for batch in batches))


def test_a_site_is_finished_before_the_next_begins_and_batches_come_in_order() -> None:
    seen: list[str] = []

    def blocks(command: SyncBlocks, _: object) -> Result:
        seen.append(command.key)
        return Result(Outcome.CHANGED, {"added": 1})

    state = carried_out(plans(1, 2, 3), blocks, nodes=NODES)
    assert seen == [f"{node} /A/B/AOD#{number}" for node in NODES for number in (1, 2, 3)]
    assert all(cycle.finished for cycle in state.by_name.values())
    assert [cycle.counts for cycle in state.by_name.values()] == [{"added": 3}] * 2


def test_what_fails_is_tried_again_after_the_rest() -> None:
    seen: list[tuple[str, int]] = []

    def blocks(command: SyncBlocks, _: object) -> Result:
        seen.append((command.blocks[0][-1], command.meta.attempt))
        if seen == [("1", 1)]:
            raise RucioConflict("somebody was faster")
        return Result(Outcome.CHANGED)

    (cycle,) = carried_out(plans(1, 2), blocks).by_name.values()
    assert seen == [("1", 1), ("2", 1), ("1", 2)]
    assert (cycle.finished, cycle.outcome) == (True, Outcome.CHANGED)


@pytest.mark.parametrize(("error", "tries"), [(RucioConflict("x"), local.TRIES), (RucioRefused("x"), 1)])
def test_what_fails_for_good_is_dead_with_its_error(error: Exception, tries: int) -> None:
    seen: list[int] = []

    def blocks(command: SyncBlocks, _: object) -> Result:
        seen.append(command.meta.attempt)
        raise error

    (cycle,) = carried_out(plans(1), blocks).by_name.values()
    assert seen == list(range(1, tries + 1))
    (dead,) = (part for part in cycle.closed.values() if part.outcome is Outcome.DEAD)
    assert dead.error is not None
    assert (dead.error.class_, dead.error.message) == (type(error).__name__, "x")
    assert cycle.finished


def test_a_part_that_fails_goes_on_alone_and_the_others_are_done() -> None:
    seen: list[tuple[list[str], int]] = []

    def blocks(command: SyncBlocks, _: object) -> Result:
        seen.append(([name[-1] for name in command.blocks], command.meta.attempt))
        bad: list[Command | Failed] = [Failed(of(command.node, 2), RucioConflict("bad"))]
        return Result(Outcome.CHANGED, follow=bad if "/A/B/AOD#2" in command.blocks else [])

    site = lambda command, _: Result(Outcome.CHANGED, follow=[of(command.node, 1, 2)])  # noqa: E731
    (cycle,) = carried_out(site, blocks).by_name.values()
    assert seen == [(["1", "2"], 1), (["2"], 2), (["2"], 3)]
    assert (cycle.finished, cycle.outcome) == (True, Outcome.DEAD)


def test_an_error_of_a_lazy_plan_is_settled_like_any_other() -> None:
    tries: list[int] = []

    def site(command: SyncSite, _: object) -> Result:
        tries.append(command.meta.attempt)

        def batches() -> Any:
            yield of(command.node, 1)
            if command.meta.attempt == 1:
                raise RucioConflict("while planning")

        return Result(Outcome.CHANGED, follow=batches())

    (cycle,) = carried_out(site, lambda *_: Result(Outcome.CHANGED)).by_name.values()
    assert tries == [1, 2]
    assert (len(cycle.closed), cycle.finished) == (2, True)


@pytest.mark.parametrize("answer", [PhedexUnreachable("refused"), NotAuthenticated("who?")])
def test_a_system_that_is_away_ends_the_run_with_its_own_words(answer: Exception) -> None:
    def probe() -> None:
        raise answer

    def site(*_: object) -> Result:
        raise PhedexUnreachable("first")

    with pytest.raises(type(answer), match=str(answer).replace("?", r"\?")):
        carried_out(site, lambda *_: Result(Outcome.CHANGED), probe)


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        carried_out(lambda *_: 1 // 0, lambda *_: Result(Outcome.CHANGED))  # type: ignore[arg-type,return-value]
