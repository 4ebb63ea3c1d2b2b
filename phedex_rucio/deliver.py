"""How do commands get their work done: sent, sent and followed, or carried out here?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.cycles import Cycles
from common.messages.commands import Command
from common.outcome import Exit
from common.settings.model import Settings
from phedex_rucio import broker, local, output, report, wait, wiring
from phedex_rucio.progress import Bar


@dataclass(frozen=True)
class How:
    """What a person chose: wait for the end (at most `timeout` seconds), or do it in this process; JSON or text."""

    wait: bool = False
    timeout: float | None = None
    local: bool = False
    as_json: bool = False


def deliver(roots: Sequence[Command], how: How, settings: Settings) -> int:
    """The roots are sent, or done where that was asked for; the exit code."""
    if how.local:
        return _here(roots, how, settings)
    broker.declare(settings.main)  # whoever starts first declares: a person may be there before the first worker
    if how.wait:
        return wait.sent_and_followed(settings.main, roots, how.timeout, how.as_json)
    broker.publish(settings.main, roots)
    _tell([root.meta.cycle for root in roots], how.as_json)
    return Exit.DONE


def _here(roots: Sequence[Command], how: How, settings: Settings) -> int:
    names = [root.meta.cycle for root in roots]
    with Bar(names) as bar:
        state: Cycles = local.run(local.Local(wiring.engine(settings), tell=bar.show), roots)
    return report.show(state, names, how.as_json)


def _tell(cycles: Sequence[str], as_json: bool) -> None:
    if as_json:
        output.show_json({"cycles": list(cycles)})
        return
    for cycle in cycles:
        output.say(cycle)
    output.note(f"Sent. Follow it: {output.NAME} wait {' '.join(cycles)}")
