"""Is every file at a site as PhEDEx has it? The deep look, and nothing written anywhere."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from common.errors import NotOurs
from common.messages.codec import checked
from common.messages.commands import SyncSite
from common.outcome import Exit
from common.settings.load import Loaded
from common.sync.findings import Finding, Kind
from common.sync.words import count
from consumers.planning.verify import Report, verify
from phedex_rucio import output, wiring
from phedex_rucio.options import as_json, with_settings

SHOWN = 50
COLUMNS = (
    *("lfn", "node", "block", "phedex_bytes", "rucio_bytes"),
    *("phedex_adler32", "rucio_adler32", "rucio_rses"),
)


@click.command("verify")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--dataset", default="*", metavar="PATTERN", help="Only this dataset or pattern.")
@click.option("--csv", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write the conflicts here.")
@as_json
@with_settings
def command(nodes: Sequence[str], *, dataset: str, table: Path | None, as_json: bool, loaded: Loaded) -> int:
    """Compare every file of NODE with PhEDEx: rules, contents, replicas, sizes and checksums.

    Exit code 0: all as PhEDEx has it (blocks that are marked are no difference), 3: something is wrong.
    """
    engine = wiring.engine(loaded.settings)
    reports: list[Report] = []
    skipped: dict[str, str] = {}
    for node in dict.fromkeys(nodes):
        asked = checked(SyncSite(node=node, dataset=dataset, deep=True))
        assert isinstance(asked, SyncSite)
        try:
            reports.append(verify(asked, engine.world(lambda: None)))
        except NotOurs as reason:
            skipped[node] = str(reason)
    if table is not None:
        _write(table, reports)
    if as_json:
        output.show_json({"nodes": {report.node: _as_data(report) for report in reports}, "skipped": skipped})
    else:
        _show(reports, skipped)
    return Exit.DONE if all(report.is_good for report in reports) else Exit.DIFFERENCES


def _as_data(report: Report) -> dict[str, Any]:
    looked = {"rse": report.rse, "blocks": report.blocks, "files": report.files, "pending": report.pending}
    return {**looked, "doubts": report.doubts, "counts": report.counts(), "findings": report.findings}


def _show(reports: Iterable[Report], skipped: dict[str, str]) -> None:
    for reason in skipped.values():
        output.say(f"Skipped: {reason}")
    for report in reports:
        looked = f"{count(report.blocks, 'block')}, {count(report.files, 'file')}"
        output.say(f"{report.node}: {looked}: {_verdict(report)}")
        for doubt in report.doubts:
            output.say(f"{report.node}: not read: {doubt}")
        for finding in report.findings[:SHOWN]:
            output.say("  ".join(filter(None, (finding.kind, finding.block, finding.file, finding.detail))))
        if len(report.findings) > SHOWN:
            output.say(f"… and {len(report.findings) - SHOWN:,} more (--json lists all)")


def _verdict(report: Report) -> str:
    wrong = ", ".join(f"{number} {kind}" for kind, number in sorted(report.counts().items()))
    marked = f" ({count(report.pending, 'block')} marked for removal)" if report.pending else ""
    return (wrong or "as PhEDEx has it") + marked


def _write(path: Path, reports: Iterable[Report]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for report in reports:
            table.writerows(_row(report.node, one) for one in report.findings if one.kind is Kind.CONFLICT)


def _row(node: str, finding: Finding) -> tuple[object, ...]:
    ours, theirs = finding.phedex, finding.rucio
    sizes = (ours.bytes if ours else "", theirs.bytes if theirs else "")
    sums = ((ours.adler32 if ours else "") or "", (theirs.adler32 if theirs else "") or "")
    return finding.file, node, finding.block, *sizes, *sums, " ".join(finding.rses)
