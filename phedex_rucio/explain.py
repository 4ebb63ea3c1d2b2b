"""Why is this block not as it should be? Everything that is known of it, the answer first."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from common import names
from common.errors import UsageError
from common.outcome import Exit
from common.settings.load import Loaded
from common.sync.answer import Answer
from common.sync.explain import explain, trouble
from common.sync.one_block import Facts, files_of
from phedex_rucio import explain_shown, output
from phedex_rucio.explained import Look, facts_about
from phedex_rucio.explained_everywhere import Overview, code_of, overview
from phedex_rucio.options import as_json, with_settings

NOT_SHOWN = ("plan", "listed", "rucio")  # large; told by `guard` and `files`


@click.command("explain")
@click.argument("block")
@click.argument("node", required=False)
@click.option("--files", "every_file", is_flag=True, help="List every file, not only those that differ.")
@click.option("--quick", is_flag=True, help="Without the guard, the last-copy rule, and events older than an hour.")
@as_json
@with_settings
def command(block: str, node: str | None, *, every_file: bool, quick: bool, as_json: bool, loaded: Loaded) -> int:
    """Tell why BLOCK is as it is at NODE, and what the next cycle would do about it; write nothing.

    Without NODE: one line for every node where PhEDEx or Rucio has it. Quote the block: it has a # in its name.

    Exit code 0: as it should be, 3: something differs, 4: held, 5: a system is away, 6: not authenticated.
    """
    check_names(block, node)
    look = Look(block, loaded.settings, quick)
    if node is None:
        return _everywhere(overview(look), look, as_json)
    facts = facts_about(look, node)
    answer = explain(facts)
    if as_json:
        output.show_json(_as_data(facts, answer))
    else:
        explain_shown.show(facts, answer, every_file=every_file)
    return answer.code


def check_names(block: str, node: str | None) -> None:
    """Both names are well formed; else UsageError, with what was probably meant."""
    if node is not None and names.is_block(node) and names.is_node(block):
        raise UsageError(f"first the block, then the node: phedex-rucio explain '{node}' {block}")
    if names.is_dataset(block):
        raise UsageError(
            f"{block}: this is a dataset. A block goes on with # and a suffix, which some shells cut off: quote it, "
            f"as in phedex-rucio explain '{block}#…'. For all blocks of it: phedex-rucio plan NODE --dataset {block}"
        )
    if not names.is_block(block):
        raise UsageError(f"{block}: not a block such as '/Primary/Processed/TIER#suffix' (quote it)")
    if node is not None and not names.is_node(node):
        raise UsageError(f"{node}: not a node such as T2_IT_Pisa")


def _as_data(facts: Facts, answer: Answer) -> dict[str, Any]:
    """Facts and answer as plain data; of the plan what concerns the block."""
    plain = msgspec.to_builtins(facts)
    rest = {name: value for name, value in plain.items() if name not in NOT_SHOWN}
    rucio = plain["rucio"] and {k: v for k, v in plain["rucio"].items() if k not in ("inside", "known", "states")}
    return {
        "block": facts.block,
        "node": facts.node,
        "answer": msgspec.to_builtins(answer),
        **rest,
        "rucio": rucio,
        "guard": _guard(facts),
        "files": msgspec.to_builtins(files_of(facts)),
    }


def _guard(facts: Facts) -> dict[str, Any] | None:
    plan = facts.plan
    if plan is None:
        return None
    ruling = plan.ruling
    return {
        "to_remove": len(plan.remove),
        "pending": len(plan.pending),
        "kept": plan.kept.get(facts.block),
        "existing": plan.existing,
        "present": plan.present,
        "doubts": plan.doubts,
        "held_by": ruling.held.get(facts.block) if ruling else None,
        "stops": msgspec.to_builtins(ruling.stops) if ruling else [],
        "checksum": ruling.checksum if ruling else "",
        "command": ruling.command if ruling else "",
        "everywhere": ruling.everywhere if ruling else "",
    }


def _everywhere(found: Overview, look: Look, as_json: bool) -> int:
    answers = [explain(facts) for facts in found.nodes]
    code = code_of(found, (answer.code for answer in answers))
    if as_json:
        nodes = {facts.node: _as_data(facts, answer) for facts, answer in zip(found.nodes, answers, strict=True)}
        troubles = msgspec.to_builtins(found.troubles)
        output.show_json({"block": look.block, "nodes": nodes, "others": found.others, "troubles": troubles})
        return code
    for one in found.troubles:
        explain_shown.paragraphs(trouble(one).says)
    if found.nodes:
        rows = [explain_shown.row(facts, answer) for facts, answer in zip(found.nodes, answers, strict=True)]
        output.show_table(("NODE", "PHEDEX", "RUCIO", "NEXT CYCLE"), rows)
    for rse, what in found.others.items():
        output.say(f"{rse}: {what}; no node of the sync")
    if not (found.nodes or found.others or found.troubles):
        output.say("Neither PhEDEx nor Rucio has it anywhere: look at its name.")
        return Exit.DONE
    worst = max(zip(answers, found.nodes, strict=True), key=lambda pair: pair[0].code, default=None)
    example = worst[1].node if worst else "NODE"
    output.note(f"Why, in full: phedex-rucio explain '{look.block}' {example}")
    return code
