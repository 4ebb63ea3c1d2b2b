"""Is every file of a site as PhEDEx has it? Reads both sides, block by block; writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from common.messages.commands import SyncSite
from common.names import dataset_of
from common.rucio import dids, replicas
from common.rucio.inventory import is_ours, rule_of
from common.rucio.rses import Site
from common.rucio.session import Rucio, sliced
from common.sync.catalogue import BlockAtNode, File, RuleAtRse
from common.sync.deep import deep_names
from common.sync.findings import Finding, InRucio, Kind, compare
from common.sync.selection import Predicate, selection
from consumers.engine.world import World
from consumers.planning.observe import observe, site_of

CHUNK = 50  # blocks looked at together


@dataclass
class Report:
    """What was looked at at a node and what is wrong; `pending` blocks are marked, which is no difference."""

    node: str
    rse: str
    blocks: int = 0
    files: int = 0
    pending: int = 0
    doubts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """True where all was read and nothing is wrong."""
        return not (self.findings or self.doubts)

    def counts(self) -> dict[str, int]:
        """The findings by kind."""
        return dict(Counter(str(finding.kind) for finding in self.findings))


def verify(command: SyncSite, world: World) -> Report:
    """Every complete block of the command's node and pattern compared file by file; raises what `observe` raises."""
    observed = observe(command, world)
    site = site_of(command.node, world, world.settings.site(command.node))
    plan, reading = observed.plan, observed.reading
    report = Report(command.node, site.rse, pending=len(plan.pending), doubts=list(plan.doubts))
    surplus = plan.remove | {name: f"{why}, kept" for name, why in plan.kept.items() if name not in plan.pending}
    report.findings += [Finding(Kind.RULE_SURPLUS, name, detail=why) for name, why in sorted(surplus.items())]
    rules = all_rules(world.rucio, site)
    for names in sliced(deep_names(reading, _chosen(command, world)), CHUNK):
        world.checkpoint()
        look_at(report, world, site, {name: reading.blocks[name] for name in names}, rules)
    return report


def _chosen(command: SyncSite, world: World) -> Predicate:
    policy = world.settings.site(command.node)
    return selection(command.dataset, [policy.select, command.select], [policy.ignore, command.ignore])


def all_rules(rucio: Rucio, site: Site) -> dict[str, list[RuleAtRse]]:
    """All our rules at the RSE, doubled ones too: one stream an account."""
    found: dict[str, list[RuleAtRse]] = {}
    for account in site.accounts:
        for row in rucio.rows("list_account_rules", account, about=account):
            if is_ours(row, site):
                found.setdefault(row["name"], []).append(rule_of(row, site))
    return found


def look_at(
    report: Report, world: World, site: Site, blocks: Mapping[str, BlockAtNode], rules: Mapping[str, list[RuleAtRse]]
) -> None:
    """The report has all that is wrong with these blocks, which are complete at its node. Few at a time: it is held."""
    figures = {name: (block.files, block.bytes) for name, block in blocks.items()}
    files, doubts = world.phedex.files_at(site.listed_at, blocks, figures)
    report.findings += [Finding(Kind.UNREAD, name, detail=str(doubt)) for name, doubt in sorted(doubts.items())]
    listed = {name: {file.name: file for file in found} for name, found in files.items()}
    for name, there in _in_rucio(world.rucio, site, listed, rules):
        report.blocks += 1
        report.files += len(listed[name])
        report.findings += compare(name, blocks[name], listed[name], there, site.rse)


def _in_rucio(
    rucio: Rucio, site: Site, listed: Mapping[str, dict[str, File]], rules: Mapping[str, list[RuleAtRse]]
) -> Iterator[tuple[str, InRucio]]:
    known = dids.existing(rucio, {one for name in listed for one in (name, dataset_of(name))})
    inside = dids.contents(rucio, listed.keys() & known.keys())
    containers = sorted({dataset_of(name) for name in listed} & known.keys())
    attached = frozenset[str]().union(*(dids.children(rucio, container) for container in containers))
    former = {name: dids.former(rucio, name) if name in known else {} for name in listed}
    names = {file for found in (*listed.values(), *former.values()) for file in found}
    standing = replicas.standing(rucio, names)
    elsewhere = dids.known_files(rucio, names - {file for found in inside.values() for file in found})
    for name in sorted(listed):
        gone = former[name].keys() - listed[name].keys() - inside.get(name, {}).keys()
        yield (
            name,
            InRucio(
                rules=rules.get(name, []),
                inside=inside.get(name, {}),
                known=elsewhere,
                in_container=name in attached,
                states={file: standing[file].states for file in listed[name]},
                orphans=sorted(f for f in gone if site.rse in standing[f].states and not standing[f].parents),
            ),
        )
