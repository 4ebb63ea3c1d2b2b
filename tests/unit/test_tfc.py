"""The Trivial File Catalogue maps names as PhEDEx did: worked examples of real sites, and the edges."""

from __future__ import annotations

import pytest

from common.phedex import tfc
from common.phedex.tfc import Catalogue, CatalogueError, Kind
from datasvc.recording import RECORDED

DATA = "/store/data/Run2018A/x.root"
DESY = "srm://dcache-se-cms.desy.de:8443/srm/managerv2?SFN="
CCIN = "srm://ccsrm.in2p3.fr:8443/srm/managerv2?SFN=/pnfs/in2p3.fr/data/cms"
CASTOR = "srm://srm-cms.cern.ch:8443/srm/managerv2?SFN=/castor/cern.ch/cms"
EOS = "srm://srm-eoscms.cern.ch:8443/srm/v2/server?SFN="
LIFECYCLE = "example_PHEDEX-Testbed-LifeCycle-4Node.tfc.xml"
TEMPLATE = "example_PHEDEX-Custom-Template"
NEBRASKA = "srm://dcache07.unl.edu:8443/srm/v2/server?SFN=/mnt/hadoop/user/uscms01/pnfs/unl.edu/data4/cms"
DCCP = "dcap://ccdcapcms/pnfs/in2p3.fr/data/cms/data"
FLORIDA = "srm://srm.ihepa.ufl.edu:8443/srm/v2/server?SFN=/cms/data/store/user/fred/data"
FNAL = "srm://cmssrm.fnal.gov:8443/srm/managerv2?SFN=/11/store/data/my/data"
UNMERGED = f"{DESY}/pnfs/desy.de/cms/analysis/dcms/unmerged/b.root"
BRISTOL = "root://xrootd.phy.bris.ac.uk:1094"

# Site, protocol, LFN, destination, custodial, PFN (None: nothing applies), space token. Computed with PhEDEx' own
# algorithm in Perl; those of CERNBOX, Lisbon, Florida, IFCA, Nebraska and FNAL are asserted by WMCore's tests too.
LFN_TO_PFN = [
    ("T2_DE_DESY", "srmv2", DATA, None, "n", f"{DESY}/pnfs/desy.de/cms/tier2{DATA}", None),
    ("T2_DE_DESY", "srmv2", "/store/unmerged/a/b.root", None, "n",
     f"{DESY}/pnfs/desy.de/cms/tier2/unmerged/a/b.root", None),
    ("T2_DE_DESY", "srmv2", "/store/unmerged/DCMS/b.root", None, "n", UNMERGED, None),
    ("T2_DE_DESY", "dcap", DATA, None, "n", f"dcap://dcache-cms-dcap.desy.de//pnfs/desy.de/cms/tier2{DATA}", None),
    ("T1_FR_CCIN2P3", "srmv2", DATA, "T1_FR_CCIN2P3_MSS", "y", f"{CCIN}/data{DATA}", "CMSCUSTODIAL"),
    ("T1_FR_CCIN2P3", "srmv2", DATA, "T1_FR_CCIN2P3_MSS", "n", f"{CCIN}/data{DATA}", "CMS_DEFAULT"),
    ("T1_FR_CCIN2P3", "srmv2", "/store/unmerged/x.root", None, "n",
     f"{CCIN}/prod/store/unmerged/x.root", "CMS_DEFAULT"),
    ("T1_FR_CCIN2P3", "jobs", DATA, None, "n", f"{DCCP}{DATA}", None),
    ("CH_CERN", "srmv2", DATA, "T2_CH_CERN", "n", f"{EOS}/castor/cern.ch/cms{DATA}", None),
    ("CH_CERN", "srmv2", DATA, "T2_CH_CERNBOX", "n", f"{EOS}/castor/cern.ch/cms{DATA}", None),
    ("CH_CERN", "srmv2", DATA, "T2_CH_CAF", "n", f"{CASTOR}{DATA}", "CMS_CAF"),
    ("CH_CERN", "srmv2", DATA, "T1_US_FNAL_Disk", "n", f"{CASTOR}{DATA}", None),
    ("CH_CERN", "srmv2", DATA, None, "n", f"{CASTOR}{DATA}", "CMS_DEFAULT"),
    ("CH_CERN", "srmv2", "/store/user/u/f.root", None, "n", f"{EOS}/eos/cms/store/user/u/f.root", None),
    ("CH_CERN", "rfio", DATA, None, "n", f"root://eoscms//eos/cms{DATA}?svcClass=default", None),
    ("CH_CERN", "rfio", "/foo/x", None, "n", "rfio:/castor/cern.ch/cms/foo/x", None),
    ("T2_CH_CERNBOX", "srmv2", "/store/user/fred/data", None, "n", "root://eosuser.cern.ch/eos/user/f/fred/data", None),
    ("T2_PT_NCG_Lisbon", "srmv2", "/store/user/fred/data", None, "n",
     "srm://srm01.ncg.ingrid.pt:8444/srm/managerv2?SFN=/cmst3/store/user/fred/data", None),
    ("T2_PT_NCG_Lisbon", "srmv2", "/store/mc/a/b.root", None, "n",
     "srm://srm01.ncg.ingrid.pt:8444/srm/managerv2?SFN=/cms/store/mc/a/b.root", None),
    ("T2_US_Florida", "srmv2", "/store/user/fred/data", None, "n", FLORIDA, None),
    ("T2_ES_IFCA", "srmv2", DATA, None, "n", f"srm://storm.ifca.es:8444/srm/managerv2?SFN=/cms{DATA}", None),
    ("T2_ES_IFCA", "srmv2", "/store/user/fred/data", None, "n",
     "srm://srm01.ifca.es:8444/srm/managerv2?SFN=/cms/store/user/fred/data", None),
    ("T2_US_Nebraska", "srmv2", "/store/user/fred/data", None, "n", f"{NEBRASKA}/store/user/fred/data", None),
    ("T1_US_FNAL", "srmv2", "/store/data/my/data", None, "n", FNAL, None),
    ("T1_US_FNAL", "dcap", "/store/mc/x/A1.root", None, "n",
     "dcap://cmsdca.fnal.gov:24125/pnfs/fnal.gov/usr/cms/WAX/11/store/mc/x/A1.root", None),
    ("T2_UK_SGrid_Bristol", "xroot", DATA, None, "n", f"{BRISTOL}/xrootd/cms{DATA}", None),
    ("T2_UK_SGrid_Bristol", "xroot", "/foo//store/a.root", None, "n", f"{BRISTOL}/foo/xrootd/cms/store/a.root", None),
    ("small_cmssw-singularity_local", "file", "/foo/store/a.root", None, "n", "/foofile:///data/store/a.root", None),
    ("T2_US_Vanderbilt_xrootd", "direct", "/store/mc/Winter10/x.root", None, "n",
     "/store/store/mc/Winter10/x.root", None),
    (LIFECYCLE, "srm", "/store/foo", None, "y", "file:////data/custodial//store/foo", "CMSCUSTODIAL"),
    (LIFECYCLE, "srm", "/store/foo", None, "n", "file:////data/default//store/foo", "CMSDEFAULT"),
    (TEMPLATE, "srmv2", "/store/foo", None, "y", f"{CASTOR}/store/foo", "CMS_CUSTODIAL"),
    (TEMPLATE, "srmv2", "/store/foo", None, "n", f"{CASTOR}/store/foo", "CMS_NONCUSTODIAL"),
    ("T2_CH_CERNBOX", "srmv2", "/store/mc/x.root", None, "n", None, None),
    ("T2_ES_IFCA", "srmv2", "/foo/bar.root", None, "n", None, None),
    ("T1_US_FNAL", "xrootd", DATA, None, "n", None, None),
]  # fmt: skip

PFN_TO_LFN = [
    ("T2_DE_DESY", "srmv2", UNMERGED, "/store/unmerged/DCMS/b.root"),
    ("T1_FR_CCIN2P3", "jobs", f"{DCCP}/store/a.root", "/store/a.root"),
    ("T2_US_Florida", "srmv2", FLORIDA, "/store/user/fred/data"),
    ("T1_US_FNAL", "srmv2", FNAL, "/store/data/my/data"),
    ("CH_CERN", "srmv2", f"{EOS}/eos/cms/store/data/a.root", None),
    ("T2_UK_SGrid_Bristol", "xroot", f"{BRISTOL}/xrootd/cms/store/mc/x.root", "/xrootd/cms/store/mc/x.root"),
]


def recorded(site: str) -> Catalogue:
    name = site if site.endswith(".xml") else f"{site}.storage.xml"
    return tfc.parse((RECORDED / "tfc" / name).read_bytes(), name)


def book(*rules: str) -> Catalogue:
    return tfc.parse("<storage-mapping>" + "".join(f"<lfn-to-pfn {rule}/>" for rule in rules) + "</storage-mapping>")


def mapped(catalogue: Catalogue, protocol: str, lfn: str) -> str | None:
    found = tfc.apply(catalogue, Kind.LFN_TO_PFN, protocol, lfn)
    return None if found is None else found.name


@pytest.mark.parametrize(("site", "protocol", "lfn", "destination", "custodial", "pfn", "token"), LFN_TO_PFN)
def test_an_lfn_becomes_the_pfn_that_phedex_gave(
    site: str, protocol: str, lfn: str, destination: str | None, custodial: str, pfn: str | None, token: str | None
) -> None:
    found = tfc.apply(recorded(site), Kind.LFN_TO_PFN, protocol, lfn, destination=destination, custodial=custodial)
    assert (None if found is None else (found.name, found.space_token)) == (None if pfn is None else (pfn, token))


@pytest.mark.parametrize(("site", "protocol", "pfn", "lfn"), PFN_TO_LFN)
def test_a_pfn_is_turned_back_where_the_rules_allow_it(site: str, protocol: str, pfn: str, lfn: str | None) -> None:
    found = tfc.apply(recorded(site), Kind.PFN_TO_LFN, protocol, pfn)
    assert (None if found is None else found.name) == lfn


@pytest.mark.parametrize(
    ("rules", "protocol", "lfn", "pfn"),
    [
        (['protocol="d" chain="nosuch" path-match="(.*)" result="D$1"'], "d", "/store/x", None),
        (
            [
                'protocol="e" chain="nosuch" path-match="(.*)" result="D$1"',
                'protocol="e" path-match="/store/(.*)" result="E:$1"',
            ],
            "e",
            "/store/x",
            "E:x",
        ),
        (['protocol="g" path-match="/Store/(.*)" result="G:$1"'], "g", "/store/x", None),
        (['protocol="h" path-match="store" result="X"'], "h", "/store/store/x", "/X/store/x"),
        (['protocol="i" path-match="/+(.*)/([^/]+)" result="$2:$1"'], "i", "/store/a/x.root", "x.root:store/a"),
        (['protocol="k" path-match="(a)|(b)" result="[$2$1$3]"'], "k", "xb", "x[b]"),
        (['protocol="l" path-match="(.*)" result="h\\.x/$1"'], "l", "/a", "h.x//a"),
        (['protocol="m" path-match="(.*)" result="X$1"'], "m", "/a/b", "X/a/b"),
        (
            [
                'protocol="j" chain="k" path-match="^/t/(.*)" result="ok:$1"',
                'protocol="j" chain="k2" path-match="^/t/(.*)" result="ok2:$1"',
                'protocol="k" path-match="/store/data/(.*)" result="/u/$1"',
                'protocol="k2" path-match="/store/(.*)" result="/t/$1"',
            ],
            "j",
            "/store/data/x",
            "ok2:data/x",
        ),
    ],
)
def test_the_edges_are_those_of_perl(rules: list[str], protocol: str, lfn: str, pfn: str | None) -> None:
    assert mapped(book(*rules), protocol, lfn) == pfn


@pytest.mark.parametrize(("outer", "token"), [("", "INNER"), (' space-token="OUTER"', "OUTER")])
def test_the_token_of_the_chained_rule_stays_unless_the_rule_has_one(outer: str, token: str) -> None:
    rules = book(
        f'protocol="s1" chain="s2" path-match="(.*)" result="$1"{outer}',
        'protocol="s2" path-match="(.*)" result="/t$1" space-token="INNER"',
    )
    assert tfc.lfn_to_pfn(rules, "s1", "/store/x") == tfc.Resolved("/t/store/x", token)


def test_a_loop_is_an_error_that_names_the_lfn_and_the_protocol() -> None:
    loop = book(
        'protocol="a" chain="b" path-match="(.*)" result="A$1"', 'protocol="b" chain="a" path-match="(.*)" result="B$1"'
    )
    with pytest.raises(CatalogueError, match=r"/store/x: .* chained protocols, last [ab]"):
        tfc.lfn_to_pfn(loop, "a", "/store/x")


@pytest.mark.parametrize(("links", "fits"), [(5, True), (6, False)])
def test_a_chain_may_have_five_links(links: int, fits: bool) -> None:
    chained = [f'protocol="p{n}" chain="p{n + 1}" path-match="(.*)" result="$1"' for n in range(links)]
    rules = book(*chained, f'protocol="p{links}" path-match="(.*)" result="$1"')
    if fits:
        assert mapped(rules, "p0", "/a") == "/a"
    else:
        with pytest.raises(CatalogueError, match="/a: more than 5"):
            mapped(rules, "p0", "/a")


def test_many_chained_rules_that_do_not_match_are_each_tried_once() -> None:
    levels = [f'protocol="p{n}" chain="p{n + 1}" path-match="never" result="x"' for n in range(5) for _ in range(60)]
    assert mapped(book(*levels, 'protocol="p5" path-match="(.*)" result="$1"'), "p0", "/store/x") is None


def test_a_result_that_multiplies_the_name_is_refused() -> None:
    many = "$1" * 100
    rules = book(
        f'protocol="a" chain="b" path-match="(.*)" result="{many}"', f'protocol="b" path-match="(.*)" result="{many}"'
    )
    with pytest.raises(CatalogueError, match="protocol a makes it longer"):
        mapped(rules, "a", "/store/x")


def test_nothing_that_applies_is_an_error_with_name_and_protocol() -> None:
    with pytest.raises(CatalogueError, match="LFN /store/x: no rule of protocol srmv2"):
        tfc.lfn_to_pfn(book(), "srmv2", "/store/x")
    with pytest.raises(CatalogueError, match="PFN srm://h/x: no rule of protocol srmv2"):
        tfc.pfn_to_lfn(book(), "srmv2", "srm://h/x")


@pytest.mark.parametrize(
    "document",
    [
        "<storage-mapping>",
        '<!DOCTYPE x [<!ENTITY a "b">]><storage-mapping/>',
        '<!DOCTYPE x SYSTEM "file:///etc/hostname"><storage-mapping/>',
        '<storage-mapping><lfn-to-pfn protocol="a" result="b"/></storage-mapping>',
        '<storage-mapping><lfn-to-pfn protocol="a" path-match="(" result="b"/></storage-mapping>',
        '<storage-mapping><lfn-to-pfn protocol="a" path-match="(?=x)" result="b"/></storage-mapping>',
        '<storage-mapping><lfn-to-pfn protocol="a" path-match="x" destination-match="[" result="b"/></storage-mapping>',
    ],
)
def test_a_document_that_cannot_be_trusted_is_refused_whole(document: str) -> None:
    with pytest.raises(CatalogueError, match=r"site\.xml"):
        tfc.parse(document, "site.xml")


def test_a_catastrophic_expression_takes_linear_time() -> None:
    assert mapped(book('protocol="a" path-match="(a+)+$" result="x"'), "a", "a" * 5000 + "!") is None


@pytest.mark.parametrize("path", sorted((RECORDED / "tfc").iterdir()), ids=lambda path: str(path.name))
def test_every_recorded_catalogue_can_be_read(path: object) -> None:
    assert recorded(getattr(path, "name")).rules  # noqa: B009
