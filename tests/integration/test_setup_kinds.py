"""RSEs, accounts and distances made of what PhEDEx says, on a real Rucio: from nothing, again, and corrected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rucio.client import Client

from common.errors import PhedexRucioError, RucioRefused, UnknownNode, UsageError
from common.messages.commands import Command, SyncBlocks, SyncSite
from common.messages.meta import now
from common.messages.setup import Account, Exclusion, Link, Rse, RseOptions, Scale, Side, Storage
from common.outcome import Outcome
from common.phedex.client import Phedex
from common.phedex.tfc import CatalogueError
from common.rucio import distances
from common.rucio.session import Rucio
from common.settings.model import Main, Settings
from consumers import account, link, rse, sync_blocks, sync_site
from consumers.engine.result import Result
from consumers.engine.world import World
from consumers.setup import readings
from datasvc.build import Snapshot
from datasvc.recording import RECORDED
from datasvc.serve import running
from phedex_rucio.roots import rooted
from tests.stack.rucio_server import RucioServer
from tests.stack.world import client_environment
from tests.two_sides import close

NODES = ("T2_DE_DESY", "T2_IT_Pisa", "T2_US_Florida")
DESY, PISA, FLORIDA, BUFFER = "T2_DE_DESY", "T2_IT_Pisa", "T2_US_Florida", "T1_FR_CCIN2P3_Buffer"
MSS, BARE = "T1_FR_CCIN2P3_MSS", "T2_XX_Bare"
LFN = "/store/data/Run2018A/x.root"
BLOCK = "/Alpha/Run2018A-v1/RAW#1"
FTS = "https://fts3.cern.ch:8446"
BY_XROOTD = (
    '<storage-mapping><lfn-to-pfn protocol="xroot" path-match="/+(.*)" result="root://x.org:1094//cms/$1"/>'
    "</storage-mapping>"
)
LOOP = '<storage-mapping><lfn-to-pfn protocol="srmv2" chain="srmv2" path-match="(.*)" result="$1"/></storage-mapping>'
SITES = {DESY: "T2_DE_DESY", PISA: "T2_PT_NCG_Lisbon", FLORIDA: "T2_US_Florida", BUFFER: "T1_FR_CCIN2P3"}


class Sides:
    """PhEDEx with some nodes and an empty Rucio, and the handlers between them."""

    def __init__(self, rucio: RucioServer, snapshot: Snapshot, world: World) -> None:
        self.server, self.snapshot, self.world = rucio, snapshot, world
        self.root: Client = rucio.client()

    def do(self, command: Command) -> Result:
        handler: Any = {"Rse": rse, "Account": account, "Link": link}[type(command).__name__]
        result: Result = handler.handle(command, self.world)
        return result

    def attributes(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.root.list_rse_attributes(name)
        return found

    def protocol(self, name: str) -> dict[str, Any]:
        (found,) = self.root.get_protocols(name)
        return dict(found)


@pytest.fixture
def sides(clean_rucio: RucioServer, tmp_path: Path) -> Iterator[Sides]:
    with client_environment(clean_rucio), Snapshot(tmp_path / "snapshot.db") as snapshot:
        for node in (*SITES, MSS, BARE):
            snapshot.add_node(node)
        for node, site in SITES.items():
            snapshot.add_tfc(node, (RECORDED / f"tfc/{site}.storage.xml").read_bytes())
        snapshot.add_link(DESY, PISA, 2)
        snapshot.add_link(DESY, FLORIDA, 1)
        snapshot.add_agent_log(DESY, f"FileDownload -backend FTS3 -service {FTS}")
        with running(snapshot.path) as url:
            main = Main(phedex_url=url)
            world = World(Phedex(main), Rucio(main), Settings(main=main), lambda: None)
            yield Sides(clean_rucio, snapshot, world)
            close(world)


def test_a_real_rse_places_files_where_phedex_does_and_a_second_run_changes_nothing(sides: Sides) -> None:
    made = sides.do(Rse(node=DESY))
    assert (made.outcome, made.counts["created"]) == (Outcome.CHANGED, 1)
    assert sides.attributes(DESY) == {
        "fts": FTS,
        "tier": "2",
        "country": "DE",
        "lfn2pfn_algorithm": "cmstfc",
        "pnn": DESY,
        "cms_type": "real",
        DESY: True,
    }
    protocol = sides.protocol(DESY)
    assert (protocol["scheme"], protocol["hostname"], protocol["port"]) == ("srm", "dcache-se-cms.desy.de", 8443)
    assert protocol["domains"]["wan"] == {
        "read": 1,
        "write": 0,
        "delete": 0,
        "third_party_copy_read": 1,
        "third_party_copy_write": 1,
    }
    pfn = f"srm://dcache-se-cms.desy.de:8443/srm/managerv2?SFN=/pnfs/desy.de/cms/tier2{LFN}"
    assert sides.root.lfns2pfns(DESY, [f"cms:{LFN}"], operation="read") == {f"cms:{LFN}": pfn}
    again = sides.do(Rse(node=DESY))
    assert (again.outcome, again.counts, again.changes) == (Outcome.IN_SYNC, {}, [])


def test_tape_stands_for_its_buffer_and_names_its_inventory(sides: Sides) -> None:
    result = sides.do(Rse(node=BUFFER))
    tape = "T1_FR_CCIN2P3_Tape"
    assert sides.root.get_rse(tape)["rse_type"] == "TAPE"
    assert sides.attributes(tape)["inventory_node"] == MSS
    assert result.notes == [f"{tape}: no FTS server is known of {BUFFER}: give --fts"]
    with pytest.raises(UsageError, match=f"name {BUFFER}"):
        sides.do(Rse(node=MSS))


def test_tape_is_synced_from_the_list_of_its_tape_node(sides: Sides) -> None:
    tape = "T1_FR_CCIN2P3_Tape"
    sides.do(Rse(node=BUFFER, options=RseOptions(fts=FTS)))
    sides.do(Account(rse=tape))
    sides.snapshot.add_block(BLOCK, [(LFN, 10, "0a952185")])
    sides.snapshot.add_replica(BLOCK, MSS, custodial=True, group="DataOps")
    planned = sync_site.handle(SyncSite(node=BUFFER), sides.world)
    for child in planned.follow:
        assert isinstance(child, SyncBlocks)
        assert sync_blocks.handle(child, sides.world).counts["added"] == 1
    assert sides.server.sql("SELECT rse_expression, locks_ok_cnt FROM rules") == [(tape, 1)]
    assert sync_site.handle(SyncSite(node=BUFFER), sides.world).outcome is Outcome.IN_SYNC


def test_temp_and_test_rses_are_below_the_sites_prefix(sides: Sides) -> None:
    sides.do(Rse(node=DESY, type="temp"))
    sides.do(Rse(node=DESY, type="test"))
    temp, test = f"{DESY}_Temp", f"{DESY}_Test"
    assert not sides.root.get_rse(temp)["deterministic"]
    assert sides.protocol(temp)["prefix"] == "/pnfs/desy.de/cms/tier2/store/temp"
    assert sides.protocol(test)["prefix"] == "/pnfs/desy.de/cms/tier2/store/test/rucio"
    (placed,) = sides.root.lfns2pfns(test, [f"cms:{LFN}"], operation="write").values()
    assert placed.startswith(
        "srm://dcache-se-cms.desy.de:8443/srm/managerv2?SFN=/pnfs/desy.de/cms/tier2/store/test/rucio/"
    )


def test_only_differences_are_written_in_place(sides: Sides) -> None:
    sides.do(Rse(node=DESY))
    sides.root.add_rse_attribute(DESY, "phedex_sync", "frozen")
    sides.root.add_rse_attribute(DESY, "tier", "3")
    sides.root.add_rse_attribute(DESY, "somebody", "else")
    before = sides.server.sql("SELECT count(*), max(created_at) FROM rse_protocols")
    dry = sides.do(Rse(node=DESY, options=RseOptions(space_token="CMS"), dry=True))
    assert sorted(change.what for change in dry.changes) == ["attribute", "protocol"]
    assert sides.attributes(DESY)["tier"] == "3"
    sides.do(Rse(node=DESY, options=RseOptions(space_token="CMS", attributes={"x": "y"})))
    attributes = sides.attributes(DESY)
    assert (attributes["tier"], attributes["x"], attributes["somebody"]) == ("2", "y", "else")
    assert attributes["phedex_sync"] == "frozen", "the switch is a person's"
    assert sides.protocol(DESY)["extended_attributes"]["space_token"] == "CMS"
    moved = RseOptions(seinfo=Storage(hostname="new.desy.de"), lfn2pfn="identity", space_token="CMS")
    sides.do(Rse(node=DESY, options=moved))
    assert sides.protocol(DESY)["hostname"] == "new.desy.de"
    assert sides.server.sql("SELECT count(*), max(created_at) FROM rse_protocols") == before, "changed, not made anew"


BAD: list[tuple[Command, type[PhedexRucioError], str]] = [
    (Rse(node="T2_XX_Unknown"), UnknownNode, "no node T2_XX_Unknown"),
    (Rse(node=BARE), CatalogueError, "no storage.xml"),
    (Rse(node=DESY, options=RseOptions(tfc=LOOP)), CatalogueError, "more than 5 chained protocols"),
    (Rse(node=DESY, options=RseOptions(tfc="<x")), CatalogueError, "not a storage.xml"),
    (
        Rse(node=DESY, options=RseOptions(protocol="nosuch")),
        CatalogueError,
        "places no file by nosuch, but by dcap, direct, ",
    ),
    (Rse(node=DESY, options=RseOptions(tfc_exclude=("(",))), UsageError, "tfc_exclude"),
    (Rse(node=DESY, options=RseOptions(seinfo=Storage(port=0))), UsageError, "without a port it knows no other host"),
    (Rse(node=DESY, options=RseOptions(attributes={"pnn": PISA})), UsageError, "attribute pnn: not to be given"),
    (Rse(node=DESY, options=RseOptions(domains={"wan": {"read": -1}})), UsageError, "'read': -1: not a number"),
    (Account(rse="T2_XX_None"), UsageError, "no RSE T2_XX_None"),
    (Link(source_rse="T2_XX_None"), UsageError, "no RSE with the attributes"),
]


def test_bad_input_is_one_line_and_writes_nothing(sides: Sides) -> None:
    for command, error, says in BAD:
        with pytest.raises(error, match=says) as caught:
            sides.do(command)
        assert "\n" not in str(caught.value)
    assert sides.server.sql("SELECT count(*) FROM rses") == [(0,)]


def test_a_node_has_one_real_rse(sides: Sides) -> None:
    sides.do(Rse(node=DESY, options=RseOptions(rse="T2_DE_Old")))
    with pytest.raises(UsageError, match="its RSE is T2_DE_Old, so T2_DE_DESY is not made: give --rse T2_DE_Old"):
        sides.do(Rse(node=DESY))
    assert sides.do(Rse(node=DESY, options=RseOptions(rse="T2_DE_Old"))).outcome is Outcome.IN_SYNC
    assert sides.do(Rse(node=DESY, type="test")).outcome is Outcome.CHANGED


def test_a_protocol_needs_no_extended_attributes(sides: Sides) -> None:
    for kind in ("real", "temp", "test"):
        command = Rse(node=PISA, type=kind, options=RseOptions(protocol="xroot", tfc=BY_XROOTD))
        sides.do(command)
        assert sides.do(command).outcome is Outcome.IN_SYNC


def test_an_rse_that_places_its_files_otherwise_is_left_alone(sides: Sides) -> None:
    sides.root.add_rse(DESY, deterministic=False)
    with pytest.raises(UsageError, match="is not deterministic and should be deterministic"):
        sides.do(Rse(node=DESY))
    assert sides.attributes(DESY) == {DESY: True}


def test_accounts_may_own_rules_and_are_logged_in_to(sides: Sides) -> None:
    sides.do(Rse(node=DESY))
    assert len(sides.do(Account(rse=DESY, dry=True)).changes) == 3
    made = sides.do(Account(rse=DESY))
    assert [change.what for change in made.changes] == ["account", "identity", "limit"]
    name = f"sync_{DESY.lower()}"
    assert sides.root.get_local_account_limit(name, DESY) == {DESY: float("inf")}
    assert [row["identity"] for row in sides.root.list_identities(name)] == ["phedex_sync"]
    assert list(sides.root.list_account_attributes(name)) == [[]]
    assert sides.do(Account(rse=DESY)).outcome is Outcome.IN_SYNC
    sides.root.set_local_account_limit(name, DESY, 10)
    more = sides.do(Account(rse=DESY, admin=True, identity="/DC=ch/CN=robot"))
    assert [(change.what, change.was) for change in more.changes] == [
        ("attribute", ""),
        ("identity", ""),
        ("limit", "10 bytes"),
    ]
    assert sides.do(Account(rse=DESY, admin=True, identity="/DC=ch/CN=robot")).outcome is Outcome.IN_SYNC


def test_distances_follow_links_or_countries(sides: Sides) -> None:
    for node in (DESY, PISA, FLORIDA):
        for kind in ("real", "temp", "test"):
            sides.do(Rse(node=node, type=kind))

    def from_desy() -> dict[str, int]:
        rows = sides.server.sql(
            "SELECT d.rse, distance FROM distances JOIN rses s ON s.id = src_rse_id JOIN rses d ON d.id = dest_rse_id"
            " WHERE s.rse = %s AND distance IS NOT NULL",
            (DESY,),
        )
        return dict(rows)

    linked = sides.do(Link(source_rse=DESY, phedex_links=True))
    assert linked.counts == {"created": 3}
    assert from_desy() == {f"{DESY}_Test": 1, f"{FLORIDA}_Test": 3, f"{PISA}_Test": 4}
    assert sides.do(Link(source_rse=DESY, phedex_links=True)).outcome is Outcome.IN_SYNC
    by_country = Link(source_rse=DESY, distance=Scale(other=9))
    assert sides.do(by_country).outcome is Outcome.IN_SYNC, "nothing is corrected without overwrite"
    assert sides.do(Link(source_rse=DESY, distance=Scale(other=9), overwrite=True)).counts["updated"] == 2
    none_abroad = (
        Exclusion(dst=Side(country="US|IT")),
        Exclusion(dst=Side(type="real")),
        Exclusion(dst=Side(type="temp")),
    )
    strict = Link(source_rse=DESY, exclude=none_abroad, disable=True, dry=True)
    assert [change.name for change in sides.do(strict).changes] == [f"{PISA}_Test", f"{FLORIDA}_Test"]
    assert sides.do(Link(source_rse=DESY, exclude=none_abroad, disable=True)).counts == {"disabled": 2, "same": 1}
    assert from_desy() == {f"{DESY}_Test": 1}
    assert distances.read_all(sides.world.rucio)[DESY] == from_desy()
    with pytest.raises(UsageError, match="RE2"):
        sides.do(Link(source_rse=DESY, exclude=(Exclusion(src=Side(rse="(")),)))


def test_many_sources_are_read_at_once_and_what_is_defined_later_is_seen(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requests(*sources: str) -> int:
        commands = [rooted(Link(source_rse=source, disable=True)) for source in sources]
        while now() < readings.sent(commands[-1].meta):  # what is read once that second is over serves them all
            time.sleep(0.01)
        before = sides.world.rucio.requests
        for command in commands:
            sides.do(command)
        return sides.world.rucio.requests - before

    def refuses(_: object) -> None:
        raise RucioRefused("can not export data")

    for node in NODES:
        sides.do(Rse(node=node, type="temp"))
        sides.do(Rse(node=node, type="test"))
    names = [f"{node}_{end}" for node in NODES for end in ("Temp", "Test")]
    assert requests(*names) < 25
    assert requests(*names) < 25
    table = distances.read_all(sides.world.rucio)
    assert {source: len(sinks) for source, sinks in table.items()} == {n: 3 - n.endswith("_Test") for n in names}
    sides.do(Rse(node=DESY))
    requests(DESY)
    assert distances.read_all(sides.world.rucio)[DESY].keys() == {f"{node}_Test" for node in NODES}
    monkeypatch.setattr(distances, "read_all", refuses)
    assert requests(*names) > 25
    assert sides.do(Link(source_rse=DESY, disable=True)).outcome is Outcome.IN_SYNC
