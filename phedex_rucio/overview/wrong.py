"""What is wrong, in words, with the command to type next? Facts in, problems out, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta

from common.broker.topology import KILLED, work_queues
from common.errors import System
from common.messages.commands import KINDS
from common.sync.words import count
from phedex_rucio.overview import wrong_sites
from phedex_rucio.overview.facts import Answer, Facts, Level, Problem
from phedex_rucio.overview.processes import Process, alive, gone, present, processes
from phedex_rucio.overview.words import age, clock, listed, since

NAMES = {System.BROKER: "The broker", System.RUCIO: "Rucio", System.PHEDEX: "PhEDEx"}
UNNOTICED = timedelta(minutes=1)  # so late may a scheduler start something: it stops, starts, waits for confirmations
SETTINGS_WRONG = "the settings file is wrong"  # how `Watched.notes` begins


def problems(facts: Facts) -> list[Problem]:
    """All that is wrong, in the order in which to look at it; then what should be known."""
    looks: list[Callable[[Facts], Iterator[Problem]]] = [_broker, _systems, _workers, _unserved, _scheduler]
    looks += [_settings, _killed, wrong_sites.found]
    found = [problem for look in looks for problem in look(facts)]
    return sorted(found, key=lambda problem: problem.level != "wrong")


def _broker(facts: Facts) -> Iterator[Problem]:
    for answer in facts.answers:
        if answer.system is System.BROKER and answer.error:
            says = f"{answer.error}. Without it nothing is sent, done or known; nothing is lost"
            yield Problem(code="broker_away", says=says, next=["phedex-rucio check"])
    if facts.broker is None:
        return
    if facts.broker.blocked:
        says = (
            f"The broker takes no messages: {facts.broker.blocked}. Workers cannot settle what they have done, and say "
            "nothing of themselves. All goes on by itself when there is room again"
        )
        yield Problem(
            code="broker_blocked", says=says, next=["rabbitmq-diagnostics alarms   # on the broker's machine"]
        )
    if facts.broker.missing:
        says = f"Not declared yet: {listed(facts.broker.missing)}"
        yield Problem(code="queues_missing", says=says, next=["phedex-rucio setup"])
    if facts.broker.down:
        says = f"The broker has {listed(facts.broker.down)}, and does not let us use them: their node is down"
        yield Problem(code="queues_down", says=says, next=["phedex-rucio check"])


def _systems(facts: Facts) -> Iterator[Problem]:
    workers = alive(facts, "worker")
    for system in (System.RUCIO, System.PHEDEX):
        away = [one for one in workers if system in one.away]
        answer = next((one for one in facts.answers if one.system is system), None)
        if away:
            yield _away(facts, system, away, len(workers), answer)
        elif answer is not None and answer.error:
            verb = "refuses us" if answer.refused else "does not answer here"
            says = f"{NAMES[system]} {verb}: {answer.error}"
            if answer.is_other:
                says = f"{NAMES[system]} answers, but not as {NAMES[system]} does: {answer.error}"
            if workers and not answer.refused:
                says += f". The workers ({len(workers)}) have not met that (yet)"
            yield Problem(code=f"{system}_away", says=says, next=["phedex-rucio check"])


def _away(facts: Facts, system: System, away: list[Process], workers: int, answer: Answer | None) -> Problem:
    told = [facts.state.away[key] for key in ((system.value, one.name) for one in away) if key in facts.state.away]
    first = min(told, key=lambda event: event.since, default=None)
    whose = "all workers" if len(away) == workers else f"{len(away)} of {workers} workers"
    says = f"{NAMES[system]} is away for {whose}"
    if first is not None:
        says += f" {since(first.since, facts.at)}: {first.reason}"
    if answer is not None and not answer.error:
        says += ". It answers here: the workers ask again within a minute"
    else:
        says += ". What needs it waits, without a try counted, and goes on by itself when it answers"
    return Problem(code=f"{system}_away", says=says, next=["phedex-rucio check"])


def _workers(facts: Facts) -> Iterator[Problem]:
    is_mute = bool(facts.broker and facts.broker.blocked)
    for one in present(facts):
        if one.state == "silent" and not is_mute:
            yield _silent(one, facts)
        elif one.hanging:
            yield _hanging(one, facts)
    if (history := gone(facts)) and not is_mute:
        yield _gone(history, facts)


def _gone(those: list[Process], facts: Facts) -> Problem:
    """One line for all: containers that were killed leave many names behind, which are of no use any more."""
    roles = Counter(one.role for one in those)
    who = " and ".join(count(number, role) for role, number in sorted(roles.items(), reverse=True))
    names = listed(sorted(one.name for one in those), 3)
    last = max(one.heard for one in those)
    heard = f"last heard {clock(last, facts.at)}, {age(facts.at - last)} ago"
    says = f"{who} ended without a word, killed or lost ({heard}): {names}"
    says += ". What was in hand there, others got" if any(one.in_hand for one in those) else ""
    return Problem(code="process_gone", level="note", says=says)


def _silent(one: Process, facts: Facts) -> Problem:
    hand = f", with {_in_hand(one, facts)} in hand" if one.in_hand else ""
    says = f"{one.role.capitalize()} {one.name} has said nothing {since(one.heard, facts.at)}{hand}"
    more = "stopped, hanging or gone without a word; if it is gone, the broker gives what it had to others"
    return Problem(code="process_silent", says=f"{says}: {more}", next=_end_it(one))


def _hanging(one: Process, facts: Facts) -> Problem:
    oldest = one.hanging[0]
    says = (
        f"Worker {one.name} hangs: {oldest.kind} {oldest.key} is in hand {since(oldest.since, facts.at)}, and took "
        f"its last step {age(facts.at - oldest.step_at)} ago; a command may take {age(facts.settings.main.deadline)}"
    )
    return Problem(code="worker_hangs", says=says, next=_end_it(one))


def _in_hand(one: Process, facts: Facts) -> str:
    oldest = one.in_hand[0]
    more = f" and {len(one.in_hand) - 1} more" if len(one.in_hand) > 1 else ""
    return f"{oldest.kind} {oldest.key} ({age(facts.at - oldest.since)}){more}"


def _end_it(one: Process) -> list[str]:
    host, _, number = one.name.rpartition("-")
    return [f"kill -9 {number}   # on {host}, then start it again: nothing is lost"] if number.isdigit() else []


def _unserved(facts: Facts) -> Iterator[Problem]:
    """A queue with messages that nobody serves; a worker that lists it may have let go of it for a moment."""
    if facts.broker is None:
        return
    workers = alive(facts, "worker")
    served = {queue for one in workers for queue in one.queues}
    depths = [facts.broker.queues[name] for name in work_queues() if name in facts.broker.queues]
    lost = [depth for depth in depths if depth.ready and not depth.consumers and depth.name not in served]
    if lost:
        lying = listed([f"{depth.ready:,} in {depth.name}" for depth in lost], 5)
        kinds = sorted({depth.name.removesuffix(".now") for depth in lost})
        who = "No worker serves" if workers else "No worker runs, and there are messages:"
        options = "" if not workers or len(kinds) == len(KINDS) else "".join(f" --queue {kind}" for kind in kinds)
        yield Problem(code="not_served", says=f"{who} {lying}", next=[f"phedex-rucio worker{options}"])
    elif not workers and not facts.broker.blocked:
        says = "No worker runs: what is sent waits"
        yield Problem(code="no_worker", says=says, next=["phedex-rucio worker"])


def _scheduler(facts: Facts) -> Iterator[Problem]:
    if facts.broker is None:
        return
    limit = facts.at - UNNOTICED
    overdue = sorted((due.at, node) for node, due in facts.due.items() if not due.waits and due.at < limit)
    late = f"{count(len(overdue), 'site')} overdue, {overdue[0][1]} {since(overdue[0][0], facts.at)}" if overdue else ""
    active = [one for one in processes(facts) if one.role == "scheduler" and one.state == "active"]
    if facts.broker.lease == "free":
        yield _no_scheduler(facts, late)
    elif late and not active:
        says = f"A scheduler holds the lease and starts nothing: {late}"
        yield Problem(code="scheduler_stopped", says=says, next=["phedex-rucio scheduler"])
    elif late:
        says = f"Scheduler {active[0].name} is active, and {late}"
        yield Problem(code="overdue", says=says, next=["phedex-rucio history NODE", f"the log of {active[0].name}"])


def _no_scheduler(facts: Facts, late: str) -> Problem:
    """Where the settings have nothing to be done by the clock, people do it, and that is well."""
    heard = [one for one in processes(facts) if one.role == "scheduler"]
    last = f" (last heard: {heard[0].name} at {clock(heard[0].heard, facts.at)})" if heard else ""
    settings = facts.settings
    has_timetable = bool(settings.sites or settings.datasets or settings.schedule)
    says = f"No scheduler is active{last}: nothing is looked at by the clock" + (f". {late}" if late else "")
    level: Level = "wrong" if has_timetable or heard else "note"
    return Problem(code="no_scheduler", level=level, says=says, next=["phedex-rucio scheduler"])


def _settings(facts: Facts) -> Iterator[Problem]:
    """The same note of many processes is one problem."""
    said: dict[str, list[str]] = {}
    for one in processes(facts):
        for note in one.notes if one.is_alive else []:
            said.setdefault(note, []).append(one.name)
    for note, names in said.items():
        is_wrong = note.startswith(SETTINGS_WRONG) or "everything dies" in note
        following = ["phedex-rucio config check FILE"] if note.startswith(SETTINGS_WRONG) else []
        if "everything dies" in note:
            following = ["phedex-rucio dead list"]
        level: Level = "wrong" if is_wrong else "note"
        yield Problem(code="process_note", level=level, says=f"{listed(names)}: {note}", next=following)


def _killed(facts: Facts) -> Iterator[Problem]:
    if ready := facts.ready(KILLED):
        says = (
            f"{count(ready, 'command')} in {KILLED}: each killed the worker that took it, or one beside it did. A "
            "worker runs them once more, one by one, with nothing else in hand; what kills it again is a dead letter"
        )
        following = ["phedex-rucio status --watch", "phedex-rucio dead list"]
        yield Problem(code="killed", says=says, next=following)
