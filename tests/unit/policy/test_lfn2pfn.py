"""Where is a file at an RSE? The algorithm that Rucio's server runs, on plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rucio.common.exception import RSEFileNameNotSupported

from cms_rucio_policy import get_algorithms
from cms_rucio_policy.lfn2pfn import URL, pfn_of
from cms_rucio_policy.stored import rule_of, stored_for, stored_of
from common.phedex import tfc
from common.phedex.seinfo import split
from common.phedex.tfc import Kind
from datasvc.recording import RECORDED

cmstfc = get_algorithms()["lfn2pfn"]["cmstfc"]

LLR = [
    {"proto": "direct", "path": "/+(.*)", "out": "/dpm/in2p3.fr/home/cms/trivcat/$1"},
    {
        "proto": "srmv2",
        "path": "/+(.*)",
        "chain": "direct",
        "out": "srm://polgrid4.in2p3.fr:8446/srm/managerv2?SFN=/$1",
    },
]
ECHO = [
    {"proto": "direct", "path": "/+store/(.*)", "out": "/store/$1"},
    {"proto": "srmv2", "path": "(.*)", "chain": "direct", "out": "gsiftp://gridftp.echo.stfc.ac.uk:2811/cms:$1"},
]
MIT = [
    {"proto": "direct", "path": "/+(.*)", "out": "/mnt/hadoop/cms/$1"},
    {"proto": "srmv2", "path": "/mnt/hadoop/(.*)", "chain": "direct", "out": "gsiftp://se01.cmsaf.mit.edu:2811/$1"},
]
LFNS = [
    "/store/data/Run2018A/x.root",
    "/store/mc/Summer12/y.root",
    "/store/user/fred/data",
    "/store/unmerged/a/b.root",
    "/store/unmerged/DCMS/b.root",
    "/store/temp/user/f.root",
    "/store/group/phys/z.root",
    "/store/PhEDEx_LoadTest07/LoadTest07_X/f.root",
    "/foo//store/a.root",
]


def protocol(rules: object, url: str, **more: Any) -> dict[str, Any]:
    """A protocol as Rucio's server gives it to an algorithm, for the storage of a PFN."""
    storage, _ = split(url)
    extended = {"tfc": rules, "tfc_proto": "srmv2", "web_service_path": storage.web_service_path, **more}
    return {
        "scheme": storage.scheme,
        "hostname": storage.hostname,
        "port": storage.port,
        "prefix": "/",
        "extended_attributes": extended,
    }


@pytest.mark.parametrize(
    ("rules", "lfn", "path"),
    [
        (LLR, "/store/some/path/file.root", "dpm/in2p3.fr/home/cms/trivcat/store/some/path/file.root"),
        (ECHO, "/store/data/some/path/file.root", "cms:/store/data/some/path/file.root"),
        (MIT, "/store/data/some/path/file.root", "cms/store/data/some/path/file.root"),
    ],
)
def test_the_known_good_results_of_the_original_plugin(rules: list[dict[str, str]], lfn: str, path: str) -> None:
    url = rules[-1]["out"].replace("$1", "x")
    assert cmstfc("cms", lfn, "RSE", {}, protocol(rules, url)) == path


@pytest.mark.parametrize("file", sorted(RECORDED.glob("tfc/*.xml")), ids=lambda path: path.name)
def test_every_recorded_catalogue_gives_the_pfn_that_phedex_gave(file: Path) -> None:
    book = tfc.parse(file.read_bytes(), file.name)
    rules = [stored_of(rule) for rule in book.rules if rule.kind is Kind.LFN_TO_PFN]
    node = file.name.split(".")[0]
    for name in sorted({kept.protocol for kept in book.rules if kept.kind is Kind.LFN_TO_PFN}):
        for lfn in LFNS:
            found = tfc.apply(book, Kind.LFN_TO_PFN, name, lfn, destination=node)
            if found is None or not URL.search(found.name):
                continue  # nothing there, or no place that another host can reach
            attributes = protocol(rules, found.name, tfc_proto=name)
            assert pfn_of(cmstfc("cms", lfn, node, {"pnn": node}, attributes), attributes) == found.name


def test_what_is_on_another_host_is_a_whole_url() -> None:
    book = tfc.parse((RECORDED / "tfc/T2_ES_IFCA.storage.xml").read_bytes())
    rules = [stored_of(rule) for rule in book.rules if rule.kind is Kind.LFN_TO_PFN]
    attributes = protocol(rules, "srm://storm.ifca.es:8444/srm/managerv2?SFN=/x")
    assert cmstfc("cms", "/store/data/x", "R", {}, attributes) == "cms/store/data/x"
    found = cmstfc("cms", "/store/user/fred/x", "R", {}, attributes)
    assert found == "srm://srm01.ifca.es:8444/srm/managerv2?SFN=/cms/store/user/fred/x"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ([{"proto": "srmv2", "path": "/Store/(.*)", "out": "X$1"}], "no rule of protocol srmv2 applies; it has /Store"),
        ([{"proto": "direct", "path": "(.*)", "out": "X$1"}], "has no protocol srmv2, only direct"),
        ([{"proto": "srmv2", "path": "(.*)", "out": "$1", "chain": "srmv2"}], "more than 5 chained protocols"),
        ([{"proto": "srmv2", "path": "(", "out": "$1"}], "bad regular expression"),
        ([{"proto": "srmv2", "path": "(.*)"}], "has no catalogue: 'out'"),
        ("nonsense", "cannot place"),
        ([{"proto": "srmv2", "path": "/x", "out": "srm://h:1/$1"}], "makes /storesrm://h:1/, which is no URL"),
        ([], "has no protocol srmv2, only nothing"),
    ],
)
def test_a_name_that_cannot_be_placed_is_named_with_the_rules(rules: object, says: str) -> None:
    with pytest.raises(RSEFileNameNotSupported, match="RSE: cannot place /store/x") as caught:
        cmstfc("cms", "/store/x", "RSE", {}, protocol(rules, "srm://h:1/x"))
    assert says in str(caught.value)


def test_another_host_without_a_port_cannot_be_told_to_rucio() -> None:
    rules = [{"proto": "srmv2", "path": "/store/(.*)", "out": "root://other/$1"}]
    with pytest.raises(RSEFileNameNotSupported, match="knows no other host"):
        cmstfc("cms", "/store/x", "RSE", {}, protocol(rules, "root://h/x"))


def test_without_a_catalogue_it_says_so() -> None:
    attributes = {"scheme": "srm", "hostname": "h", "port": 1, "prefix": "/", "extended_attributes": None}
    with pytest.raises(RSEFileNameNotSupported, match="its protocol has no catalogue"):
        cmstfc("cms", "/store/x", "RSE", {}, attributes)


def test_a_rule_goes_into_a_protocol_and_back() -> None:
    for file in RECORDED.glob("tfc/*.xml"):
        for rule in tfc.parse(file.read_bytes()).rules:
            if rule.kind is Kind.LFN_TO_PFN:
                back = rule_of(stored_of(rule))
                assert (back.protocol, back.path_match, back.result) == (rule.protocol, rule.path_match, rule.result)
                assert (back.chain, back.destination_match) == (rule.chain, rule.destination_match)


def test_only_what_can_apply_is_stored() -> None:
    sizes = {}
    for file in RECORDED.glob("tfc/T*.xml"):
        node = file.name.split(".")[0]
        rules = tfc.parse(file.read_bytes(), file.name).rules
        kept = stored_for(rules, "srmv2", node)
        sizes[node] = len(json.dumps(kept))
        whole = tfc.catalogue(rules)
        for lfn in LFNS:
            found = tfc.apply(whole, Kind.LFN_TO_PFN, "srmv2", lfn, destination=node)
            assert tfc.apply(tfc.catalogue(map(rule_of, kept)), Kind.LFN_TO_PFN, "srmv2", lfn, destination=node) == (
                found and tfc.Resolved(found.name)
            )
    assert max(sizes.values()) < 3_800
