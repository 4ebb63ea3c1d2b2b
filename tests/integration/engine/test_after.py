"""What a handler wants done afterwards is done when its command is settled: not before, once, and harming nobody."""

from __future__ import annotations

from collections.abc import Callable

from common.broker.roots import send
from common.broker.topology import declare
from common.messages.commands import Command
from common.messages.events import Event
from common.outcome import Outcome
from consumers.engine.result import Result
from tests.integration.messaging import all_events, blocks, closed, eventually, publishing, settings, working


def test_afterwards_is_when_the_event_is_out_and_the_message_gone(amqp_url: str) -> None:
    main = settings(amqp_url)
    seen: list[str] = []

    def told(ident: str) -> Callable[[list[Event]], bool]:
        return lambda events: ident in {event.id for event in closed(events)}

    def handle(command: Command, _world: object) -> Result:
        def after() -> None:
            all_events(main, told(command.meta.id))
            seen.append(command.meta.id)
            raise RuntimeError("and fails")

        return Result(Outcome.CHANGED, after=after)

    declare(main)
    with publishing(main) as publisher:
        sent = send(publisher, [blocks(number) for number in range(3)])
        with working(main, {"sync.blocks": handle}) as running:
            eventually(lambda: len(seen) == len(sent), "all are done with")
            assert running.stop(), "a failure afterwards leaves nothing unsettled"
    assert len(set(seen)) == len(sent)
