"""What did older tools leave at a site? Reads both sides; writes nothing, and works at a frozen site too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from common.names import SCOPE
from common.phedex.inventory import read_node
from common.rucio import handover, replicas, rules
from common.rucio.inventory import is_ours, preferred, rule_of
from common.rucio.rses import Site, is_rule_for
from common.rucio.session import Row, Rucio, sliced
from common.sync.catalogue import BlockAtNode, Reading, RuleAtRse
from common.sync.deep import deep_names
from common.sync.diff import diff
from common.sync.findings import Finding
from common.sync.legacy import Left, Legacy, count_block, count_rule, count_rules
from common.sync.marks import GROUP, parse_meta
from common.sync.selection import Predicate, selection
from consumers.engine.world import World
from consumers.planning.verify import CHUNK, Report, look_at

Rules = dict[str, list[RuleAtRse]]


def look(
    node: str,
    site: Site,
    world: World,
    *,
    files: bool = True,
    orphans: bool = False,
    only: Collection[str] | None = None,
    tell: Callable[[int, int], None] = lambda _, __: None,
) -> Legacy:
    """All that is at the node's RSE and not as the sync would have it.

    The rules as one stream an account. `files`: also every file of the blocks that PhEDEx has whole there (of `only`
    these), at the cost of `verify`. `orphans`: also every dataset of Rucio that nobody's rule holds there, one request
    each.
    `tell`: called with the blocks done and all.
    """
    found = Legacy(node, site.rse)
    strange: set[str] = set()
    ours = _read_rules(found, strange, world.rucio, site)
    found.files_held = sum(max(rule.files for rule in some) for some in ours.values())
    found.files_counted = _counted(world.rucio, site.rse)
    if not files:
        return found
    policy = world.settings.site(node)
    reading = read_node(world.phedex, site.listed_at, "*", split=policy.multi_das_calls, checkpoint=world.checkpoint)
    found.doubts = [f"{doubt.pattern}: {doubt.reason}" for doubt in reading.doubts]
    chosen = selection("*", [policy.select], [policy.ignore])
    _count_surplus(found, reading, ours, chosen)
    names = [name for name in deep_names(reading, chosen) if only is None or name in only]
    for part in sliced(names, CHUNK):
        report = Report(node, site.rse)
        blocks = {name: reading.blocks[name] for name in part}
        look_at(report, world, site, blocks, ours)
        _count_blocks(found, report, blocks, ours, strange)
        tell(found.blocks, len(names))
    if orphans:
        _find_orphans(found, world.rucio, site, reading.blocks.keys() | ours.keys())
    return found


def _read_rules(found: Legacy, strange: set[str], rucio: Rucio, site: Site) -> Rules:
    ours: Rules = {}
    for account in site.accounts:
        for row in rucio.rows("list_account_rules", account, about=account):
            if is_ours(row, site):
                _count_rule(found, strange, row, site)
                ours.setdefault(row["name"], []).append(rule_of(row, site))
            elif row.get("scope") == SCOPE and is_rule_for(site.rse, row.get("rse_expression", "")):
                found.add(Left.NO_BLOCK, row["name"], f"{row['name']} ({row['account']})")
    for name, some in ours.items():
        count_rules(found, name, some)
    return ours


def _count_rule(found: Legacy, strange: set[str], row: Row, site: Site) -> None:
    has_meta = GROUP in parse_meta(row.get("meta"))
    strange |= set() if has_meta else {row["name"]}
    count_rule(found, rule_of(row, site), handover.held(row, site), owner=site.account, has_meta=has_meta)


def _counted(rucio: Rucio, rse: str) -> int:
    """How many files Rucio's daemon abacus-rse counted at the RSE; -1 where it never has."""
    rows = rucio.rows("get_rse_usage", rse, filters={"source": "rucio"}, about=rse)
    return max((int(row.get("files") or 0) for row in rows if row.get("source") == "rucio"), default=-1)


def _count_surplus(found: Legacy, reading: Reading, ours: Rules, chosen: Predicate) -> None:
    best: dict[str, RuleAtRse] = {}
    for name, some in ours.items():
        for rule in some:
            best[name] = preferred(best.get(name), rule)
    for name, why in diff(reading, best, chosen).remove.items():
        found.add(Left.SURPLUS, name, f"{name}: {why}")


def _count_blocks(
    found: Legacy, report: Report, blocks: Mapping[str, BlockAtNode], ours: Rules, strange: Collection[str]
) -> None:
    by_block: dict[str, list[Finding]] = {name: [] for name in blocks}
    for one in report.findings:
        by_block[one.block].append(one)
    found.blocks += len(blocks)
    found.files += report.files
    for name, findings in by_block.items():
        count_block(found, name, blocks[name].files, findings, has_rule=name in ours, strange=name in strange)


def _find_orphans(found: Legacy, rucio: Rucio, site: Site, known: Collection[str]) -> None:
    for part in sliced((name for name in _datasets(rucio) if name not in known), 500):
        held = {lock.name for lock in rules.locks(rucio, part) if lock.rse == site.rse}
        for name in part:
            there = 0 if name in held else replicas.available(rucio, site.rse, name)
            if there:
                found.add(Left.ORPHAN_BLOCK, name, f"{name}: {there} files")


def _datasets(rucio: Rucio) -> Iterator[str]:
    """All datasets of our scope, listed to the end first: a slow reader holds a transaction in Rucio's database."""
    names = rucio.call("list_dids", SCOPE, {"name": "/*"}, did_type="dataset", about="datasets")
    yield from list(names)
