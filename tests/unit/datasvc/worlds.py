"""The small world: three nodes in use, one retired, four blocks of two datasets."""

from __future__ import annotations

from datasvc.build import Snapshot

PISA, TAPE, BUFFER, RETIRED = "T2_IT_Pisa", "T1_IT_CNAF_MSS", "T1_IT_CNAF_Buffer", "XT2_IT_Old"
ALPHA, BETA = "/Alpha/Run2018A-v1/RAW", "/beta_x/Run2018B-v1/AOD"
FULL, PART, OPEN, NOWHERE = f"{ALPHA}#1111", f"{ALPHA}#2222", f"{BETA}#3333", f"{BETA}#4444"

CATALOGUE = """<storage-mapping>
<pfn-to-lfn protocol="srmv2" path-match=".*SFN=(.*)" result="$1"/>
<lfn-to-pfn protocol="direct" path-match="/+store/(.*)" result="/cms/store/$1"/>
<lfn-to-pfn protocol="srmv2" chain="direct" path-match="(.*)" result="srm://storm.pi.infn.it:8444/srm?SFN=$1"
  is-custodial="n" space-token="DISK" destination-match=".*"/>
<lfn-to-pfn protocol="direct" path-match="/+raw/(.*)" result="/raw/$1"/>
</storage-mapping>"""


def lfn(block: int, number: int) -> str:
    """The name of a file of the small world."""
    return f"/store/data/Run2018/{block}/{number}.root"


def fill(snapshot: Snapshot) -> None:
    """The snapshot has the small world."""
    snapshot.add_node(PISA, se="storm.pi.infn.it", technology="StoRM", number=52)
    for node in (TAPE, BUFFER, RETIRED):
        snapshot.add_node(node)
    snapshot.add_group("DataOps", 18)
    snapshot.add_block(FULL, [(lfn(1, n), 10 + n, "0a952185") for n in range(3)])
    snapshot.add_block(PART, [(lfn(2, n), 20 + n, "adler32:1,cksum:2") for n in range(2)])
    snapshot.add_block(OPEN, [(lfn(3, 0), 5, None)], is_open=True)
    snapshot.add_made_block(NOWHERE, 4, 1001)
    snapshot.add_replica(FULL, PISA, group="DataOps", time_create=1_400_000_000)
    snapshot.add_replica(FULL, TAPE, group="DataOps", custodial=True, active=True)
    snapshot.add_replica(FULL, BUFFER, subscribed=False)
    snapshot.add_replica(PART, PISA, [lfn(2, 1)], group="b-tagging")
    snapshot.add_replica(PART, RETIRED, [])
    snapshot.add_replica(OPEN, PISA, active=True)
    snapshot.add_tfc(PISA, CATALOGUE)
    snapshot.add_link(PISA, TAPE, 2, "from_down")
    snapshot.add_link(BUFFER, TAPE, 0)
    snapshot.add_link(TAPE, BUFFER, 0)
    snapshot.add_link(PISA, BUFFER, 1, "deactivated")
    snapshot.add_link(RETIRED, PISA)
    snapshot.add_agent_log(PISA, "-backend FTS3 -service https://fts3.cern.ch:8446", host="phedex.pi.infn.it")
    snapshot.add_agent_log(PISA, "long ago", host="phedex.pi.infn.it", time=1_400_000_000.25)
    snapshot.subscribe_dataset(ALPHA, PISA)
