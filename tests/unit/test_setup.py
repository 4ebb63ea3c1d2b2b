"""What should RSEs and distances be? The decisions of set-up, on plain data."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from common.errors import UsageError
from common.messages.setup import EXCLUDED, Exclusion, Scale, Side
from common.phedex.seinfo import Seinfo, seinfo, split
from common.phedex.tfc import CatalogueError
from common.rucio.definitions import Definition, Protocol
from consumers.setup import definition, distances
from consumers.setup.definition import Facts, Wishes
from consumers.setup.distances import Place
from consumers.setup.naming import Named, inventory_of, rse_of

DESY = "srm://dcache-se-cms.desy.de:8443/srm/managerv2?SFN=/pnfs/desy.de/cms/tier2"
STORAGE = Seinfo(scheme="srm", hostname="h", port=8443, web_service_path="/srm?SFN=", prefix="/pnfs")
FACTS = Facts(node="T2_DE_DESY", kind="real", named=Named("T2_DE_DESY", "DISK"), storage=STORAGE, rules=[])


@pytest.mark.parametrize(
    ("node", "kind", "rse", "rse_type"),
    [
        ("T2_IT_Pisa", "real", "T2_IT_Pisa", "DISK"),
        ("T2_IT_Pisa", "temp", "T2_IT_Pisa_Temp", "DISK"),
        ("T1_US_FNAL_Buffer", "real", "T1_US_FNAL_Tape", "TAPE"),
        ("T1_US_FNAL_Buffer", "test", "T1_US_FNAL_Tape_Test", "DISK"),
        ("T1_US_FNAL_Disk", "temp", "T1_US_FNAL_Disk_Temp", "DISK"),
    ],
)
def test_names(node: str, kind: definition.RseKind, rse: str, rse_type: str) -> None:
    assert rse_of(node, kind) == Named(rse, rse_type)  # type: ignore[arg-type]


def test_names_by_hand_and_of_tape() -> None:
    assert rse_of("T0_CH_CERN_MSS", "real", rse="T0_CH_CERN_Tape", rse_type="TAPE") == Named("T0_CH_CERN_Tape", "TAPE")
    assert rse_of("T2_IT_Pisa", "test", suffix="_Probe").rse == "T2_IT_Pisa_Probe"
    assert inventory_of("T1_US_FNAL_Buffer") == "T1_US_FNAL_MSS"
    assert inventory_of("T2_IT_Pisa") is None
    with pytest.raises(UsageError, match="name T1_US_FNAL_Buffer"):
        rse_of("T1_US_FNAL_MSS", "real")


def test_storages() -> None:
    assert split(f"{DESY}/store/x") == (
        Seinfo(scheme="srm", hostname="dcache-se-cms.desy.de", port=8443, web_service_path="/srm/managerv2?SFN="),
        "/pnfs/desy.de/cms/tier2/store/x",
    )
    assert split("root://h//store/x") == (Seinfo(scheme="root", hostname="h"), "//store/x")
    assert (
        seinfo([("/store/a", f"{DESY}/store/a"), ("/store/b", f"{DESY}/store/b")]).prefix == "/pnfs/desy.de/cms/tier2"
    )
    assert seinfo([("/store/a", "root://h/store/a")]).prefix == "/"
    assert seinfo([("/store/a", "root://h/x/a")]).prefix == ""
    with pytest.raises(CatalogueError, match="no one storage"):
        seinfo([("/store/a", "root://h/store/a"), ("/store/b", "root://g/store/b")])
    for bad in ("file:///x", "/pnfs/x", "rfio:/castor/x", "root:///x"):
        with pytest.raises(CatalogueError, match="no URL of a storage"):
            split(bad)


def test_a_second_look_finds_nothing_and_each_difference_is_found_alone() -> None:
    want = definition.wanted(FACTS, Wishes())
    assert definition.changes(want, want) == []
    assert {change.what for change in definition.changes(want, None)} == {"rse", "attribute", "protocol"}
    other_type = replace(want, rse_type="TAPE")
    assert [(c.what, c.was, c.wants) for c in definition.changes(want, other_type)] == [("type", "TAPE", "DISK")]
    more = replace(want, attributes={**want.attributes, "phedex_sync": "frozen", "other": "x"})
    assert definition.changes(want, more) == [], "attributes of others are left alone"
    moved = replace(want, protocols=[replace(want.protocols[0], hostname="old")])
    (change,) = definition.changes(want, moved)
    assert change.was.startswith("srm://old:8443")
    filled_in = {**want.protocols[0].domains["wan"], "more": 0}
    wider = replace(want.protocols[0], domains={**want.protocols[0].domains, "wan": filled_in})
    assert definition.changes(want, replace(want, protocols=[wider])) == []


def test_the_protocol_that_is_changed_is_never_anothers() -> None:
    new = Protocol(scheme="srm", hostname="h", port=1, prefix="/")
    same, sibling = replace(new, prefix="/x"), replace(new, hostname="g")
    xrootd = replace(new, scheme="root")

    def have(*protocols: Protocol) -> Definition:
        return Definition(rse="R", rse_type="DISK", deterministic=True, attributes={}, protocols=list(protocols))

    assert definition.counterpart(new, have(sibling, same)) == same
    assert definition.counterpart(new, have(sibling, xrootd)) == sibling
    assert definition.counterpart(new, have(sibling, replace(sibling, port=2))) is None
    assert definition.counterpart(new, have(xrootd)) is None


def test_what_makes_no_rse_is_said() -> None:
    with pytest.raises(UsageError, match="give --seinfo prefix"):
        definition.wanted(replace(FACTS, kind="test", storage=replace(STORAGE, prefix="")), Wishes())
    rules = [{"proto": "direct", "path": "x" * 100, "out": "$1"}] * 40
    with pytest.raises(UsageError, match="Rucio keeps 4,000"):
        definition.wanted(replace(FACTS, rules=rules), Wishes())


def place(rse: str, kind: str = "test", country: str = "IT") -> Place:
    return Place(rse=rse, pnn=rse.removesuffix("_Test"), cms_type=kind, country=country)


def test_the_order_of_distances_is_the_originals() -> None:
    source = place("T2_IT_Pisa", "real")
    sinks = [place("T2_IT_Pisa_Test"), place("T2_IT_Bari_Test"), place("T2_US_MIT_Test", country="US"), source]
    by_country = distances.wanted(source, sinks, None, Scale())
    assert by_country["T2_IT_Pisa_Test"] < by_country["T2_IT_Bari_Test"] < by_country["T2_US_MIT_Test"]
    linked = distances.wanted(source, sinks, {"T2_US_MIT": 0, "T2_IT_Bari": 3}, Scale())
    assert linked["T2_IT_Pisa_Test"] < linked["T2_US_MIT_Test"] < linked["T2_IT_Bari_Test"]
    assert distances.wanted(source, sinks, {}, Scale()) == {"T2_IT_Pisa_Test": 1}
    assert source.rse not in by_country


def test_nothing_goes_to_real_or_temporary_rses_unless_somebody_says_so() -> None:
    source = place("T2_IT_Pisa_Test")
    sinks = [place("T2_IT_Bari", "real"), place("T2_IT_Bari_Temp", "temp"), place("T2_IT_Bari_Test")]
    assert list(distances.wanted(source, sinks, None, Scale(), EXCLUDED)) == ["T2_IT_Bari_Test"]
    assert len(distances.wanted(source, sinks, None, Scale(), ())) == 3
    rule = Exclusion(src=Side(type="test"), dst=Side(rse=r".*_Temp"))
    assert list(distances.wanted(source, sinks, None, Scale(), [rule])) == ["T2_IT_Bari", "T2_IT_Bari_Test"]
    part = Exclusion(dst=Side(rse="T2_IT"))
    assert len(distances.wanted(source, sinks, None, Scale(), [part])) == 3, "the whole name must match"


def test_what_is_written_is_what_was_asked_for() -> None:
    want, have = {"a": 1, "b": 2, "c": 3}, {"b": 2, "c": 9, "d": 4}
    plain = distances.changes(want, have, overwrite=False, disable=False)
    assert (plain.create, plain.update, plain.disable, plain.kept) == ({"a": 1}, {}, [], 2)
    full = distances.changes(want, have, overwrite=True, disable=True)
    assert (full.create, full.update, full.disable, full.kept) == ({"a": 1}, {"c": 3}, ["d"], 1)
