"""How is the state of everything shown? Lines for people, what is wrong first; the same as data for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from common.broker.topology import KILLED, SCHEDULER, dead_name, lanes_of, work_queues
from common.cycles import WELL
from common.errors import System
from common.messages.commands import KINDS
from phedex_rucio import output
from phedex_rucio.overview.facts import Facts, Problem
from phedex_rucio.overview.processes import Process, present, processes
from phedex_rucio.overview.sites import Open, Site, sites
from phedex_rucio.overview.words import age, clock, since
from phedex_rucio.overview.wrong import NAMES, problems
from phedex_rucio.overview.wrong_sites import dead_groups, waiting

Line = tuple[str, str]  # the text and its style, as rich knows them

SHOWN_COUNTS = (
    *("added", "updated", "marked", "swept", "held", "kept", "kept_last_copy", "locked", "withheld"),
    *("pending", "conflicts", "same"),
)
MOST = 30  # rows of a table; --json has all


def lines(facts: Facts, width: int) -> list[Line]:
    """The whole page."""
    found = problems(facts)
    wrong = [problem for problem in found if problem.level == "wrong"]
    notes = [problem for problem in found if problem.level != "wrong"]
    page: list[Line] = [(_title(facts), "bold"), *_headline(wrong)]
    for number, problem in enumerate(wrong, start=1):
        page += _problem(f"{number}.", problem, width, "bold red")
    if notes:
        page += [("", ""), ("To know", "bold")]
        for problem in notes:
            page += _problem("·", problem, width, "yellow")
    return page + [line for part in _parts(facts, width) for line in (("", ""), *part)]


def _title(facts: Facts) -> str:
    return f"phedex-rucio at {facts.where}, {facts.at:%Y-%m-%d %H:%M:%S} UTC"


def _headline(wrong: Sequence[Problem]) -> list[Line]:
    if not wrong:
        return [("Nothing is wrong.", "bold green")]
    number = len(wrong)
    return [("", ""), (f"{number} thing{'s are' if number > 1 else ' is'} wrong", "bold red")]


def _problem(mark: str, problem: Problem, width: int, style: str) -> Iterator[Line]:
    """The words, wrapped; then what to type, never wrapped, so that it can be copied."""
    indent = " " * (len(mark) + 2)
    text = " ".join(problem.says.split()).rstrip(".") + "."
    for number, line in enumerate(textwrap.wrap(text, max(40, width - len(indent)), break_on_hyphens=False)):
        yield (f" {mark} {line}" if number == 0 else f"{indent}{line}", style)
    for command in problem.next:
        yield (f"{indent}→ {command}", "cyan")


def _parts(facts: Facts, width: int) -> Iterator[list[Line]]:
    yield [("Systems", "bold"), *_systems(facts)]
    if facts.broker is None:
        return
    yield [("Queues", "bold"), *_queues(facts)]
    yield [("Workers and schedulers", "bold"), *_processes(facts, width)]
    yield [("Sites", "bold"), *_sites(facts, width)]
    if rows := _retries(facts, width):
        yield [("Waiting for another try", "bold"), *rows]


def _systems(facts: Facts) -> Iterator[Line]:
    for answer in facts.answers:
        name = (
            NAMES[answer.system].removeprefix("The ").capitalize()
            if answer.system is System.BROKER
            else NAMES[answer.system]
        )
        said = f"answers ({answer.seconds:.1f} s)" if not answer.error else "see above"
        yield (f"  {name:8} {said}", "" if not answer.error else "red")
    if facts.switches is None:
        yield ("  The sites' switches were not asked for, or Rucio did not tell", "dim")


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[Line]:
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    head, *body = output.aligned([list(header), *cells])
    return [(f"  {head}", "dim"), *((f"  {line}", "") for line in body[:MOST]), *_more(len(body))]


def _more(number: int) -> list[Line]:
    return [(f"  … {number - MOST:,} more (--json has all)", "dim")] if number > MOST else []


def _queues(facts: Facts) -> list[Line]:
    """Where something lies or is in hand, kind by kind; then what waits for another try."""
    rows = [_queue_row(queue, facts) for queue in work_queues()]
    busy = [row for row in rows if any(cell not in (0, "") for cell in row[1:4])]
    page = _table(("QUEUE", "READY", "IN HAND", "DEAD", "CONSUMERS"), busy) if busy else []
    if idle := len(rows) - len(busy):
        page.append((f"  {idle} {'other ' if busy else ''}queues are empty", ""))
    assert facts.broker is not None
    waits = {name: depth.ready for name, depth in facts.broker.queues.items() if name.startswith("sync.wait.")}
    said = ", ".join(f"{number:,} for {name.removeprefix('sync.wait.')}" for name, number in waits.items() if number)
    page.append((f"  Waiting for another try: {said or 'nothing'}", ""))
    if killed := facts.ready(KILLED):
        page.append((f"  Killed their worker: {killed:,}", "red"))
    return page


def _queue_row(queue: str, facts: Facts) -> tuple[object, ...]:
    """Dead letters are of a kind, not of a lane; workers say the kind of what they have in hand too."""
    assert facts.broker is not None
    kind = queue.removesuffix(".now")
    is_first = queue == lanes_of(kind)[0]
    hand = sum(one.kind == kind for worker in present(facts) for one in worker.in_hand)
    depth = facts.broker.queues.get(queue)
    dead = facts.ready(dead_name(kind)) if is_first else ""
    if depth is None:
        return (queue, "missing", "", dead, "")
    return (queue, depth.ready, hand if is_first else "", dead, depth.consumers)


def _processes(facts: Facts, width: int) -> list[Line]:
    rows = present(facts)
    lease = facts.broker.lease if facts.broker else "free"
    page: list[Line] = []
    if rows:
        header = ("NAME", "STATE", "HEARD", "IN HAND", "OLDEST")
        table = _table(header, [_process_row(one, facts) for one in rows])
        page += [(_cut(text, width), style) for text, style in table]
    else:
        page.append(("  nobody has said anything within the last 15 minutes", "yellow"))
    held = "held by an active scheduler" if lease == "held" else "free: no scheduler is active"
    return [*page, (f"  The lease ({SCHEDULER}) is {held}", "" if lease == "held" else "yellow")]


def _process_row(one: Process, facts: Facts) -> tuple[object, ...]:
    hand = f"{len(one.in_hand)} of {one.threads}" if one.role == "worker" else "-"
    oldest = "-"
    if one.in_hand:
        first = one.in_hand[0]
        oldest = f"{age(facts.at - first.since)}: {first.key[:40]}"
    state = one.state.replace("_", " ") + (f" ({', '.join(one.away)} away)" if one.away else "")
    return (f"{one.role} {one.name}", state, f"{age(facts.at - one.heard)} ago", hand, oldest)


def _sites(facts: Facts, width: int) -> list[Line]:
    """Those first that somebody should look at, then those whose picture is the oldest."""
    rows = sorted(sites(facts), key=lambda row: (_is_well(row), row.in_sync_as_of or facts.since, row.node))
    if not rows:
        return [(f"  no site was looked at {since(facts.since, facts.at)}, and the settings name none", "")]
    header = ("SITE", "IN SYNC AS OF", "LAST CYCLE", "OUTCOME", "NEXT", "COUNTS")
    page = [(_cut(text, width), style) for text, style in _table(header, [_site_row(row, facts) for row in rows])]
    running = [(row, one) for row in rows for one in row.open]
    for row, one in running[:MOST]:
        page.append((f"  {_cut(_open_words(row, one, facts), width - 2)}", ""))
    return page + _more(len(running))


def _is_well(row: Site) -> bool:
    """True for a site whose last cycle ended well, that holds nothing back, and whose switch is on."""
    return row.last is not None and row.last.outcome in WELL and not row.held and row.switch == "on"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 1)] + "…"


def _site_row(row: Site, facts: Facts) -> tuple[object, ...]:
    as_of = f"{clock(row.in_sync_as_of, facts.at)} ({age(facts.at - row.in_sync_as_of)})" if row.in_sync_as_of else "-"
    ended = clock(row.last.at, facts.at) if row.last else "-"
    outcome = str(row.last.outcome) if row.last else "-"
    if row.switch != "on":
        outcome = f"{outcome} ({row.switch})"
    counts = row.last.counts if row.last else {}
    shown = ", ".join(f"{counts[name]:,} {name}" for name in SHOWN_COUNTS if counts.get(name))
    return (row.node, as_of, ended, outcome, _next(row, facts), shown or "-")


def _next(row: Site, facts: Facts) -> str:
    if row.open:
        return "running"
    if row.due is None:
        return "-"
    if row.due.off:
        return "off"
    return "now" if row.due.at <= facts.at else f"in {age(row.due.at - facts.at)}"


def _open_words(row: Site, one: Open, facts: Facts) -> str:
    done = f"{one.closed:,} of {one.announced:,} commands closed"
    tries = f", {len(one.waiting):,} waiting for another try" if one.waiting else ""
    state = "stands still" if one.stalled else "runs"
    return f"{row.node} {state} {since(one.begun, facts.at)}, {done}{tries}: {one.cycle}"


def _retries(facts: Facts, width: int) -> list[Line]:
    retries = waiting(facts)
    rows = []
    for retry in retries[:5]:
        when = f"at {retry.next_at:%H:%M:%S}" if retry.next_at > facts.at else "now"
        why = " ".join(retry.error.message.split())
        text = f"{retry.cycle}: try {retry.attempt + 1} {when}: {retry.error.class_}: {why}"
        rows.append((f"  {_cut(text, width - 2)}", ""))
    return [*rows, *([(f"  … {len(retries) - 5:,} more", "dim")] if len(retries) > 5 else [])]


def as_data(facts: Facts) -> dict[str, Any]:
    """The same for programs."""
    found = problems(facts)
    return {
        "at": facts.at,
        "since": facts.since,
        "well": not any(problem.level == "wrong" for problem in found),
        "problems": found,
        "systems": facts.answers,
        "broker": msgspec.to_builtins(facts.broker) if facts.broker else None,
        "processes": processes(facts),
        "sites": sites(facts),
        "switches": facts.switches,
        "retrying": waiting(facts),
        "dead": dead_groups(facts),
        "kinds": list(KINDS),
    }
