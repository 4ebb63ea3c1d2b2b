"""Does a real Rucio server with the policy package accept CMS names and let the service account do its work?"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from rucio.client import Client
from rucio.common.exception import InvalidObject, RSEFileNameNotSupported

from cms_rucio_policy.lfn2pfn import URL
from cms_rucio_policy.stored import stored_for
from common.phedex import tfc
from common.phedex.seinfo import Seinfo, split
from datasvc import recording
from datasvc.serve import running
from tests.stack import world
from tests.stack.rucio_server import RucioServer
from tests.unit.policy.test_lfn2pfn import LFNS

NAMES = Path(__file__).parents[1] / "data/names.json.gz"
DATASET = "/SingleMuon/Run2015D-16Dec2015-v1/RAW"
BLOCK = f"{DATASET}#1"
FILE = "/store/data/" + "x" * 483 + ".root"

# In the server's own Python: what its REST calls do with a body.
REFUSED = """
import gzip, json, sys
from rucio.common.exception import InvalidObject
from rucio.common.schema import validate_schema
names = json.loads(gzip.open(sys.argv[1]).read())
dids = [{"scope": "cms", "name": name} for kind in ("datasets", "blocks", "files") for name in names[kind]]
for first in range(0, len(dids), 1000):
    validate_schema("dids", dids[first:first + 1000])
refused = []
for node in names["nodes"]:
    try:
        validate_schema("rse", node)
        validate_schema("attachments", [{"rse": node, "dids": dids[:1]}])
    except InvalidObject:
        refused.append(node)
print(json.dumps(refused))
"""


def test_the_server_refuses_none_of_the_recorded_names_but_retired_nodes(rucio: RucioServer) -> None:
    command = [str(rucio.server / "bin/python"), "-c", REFUSED, str(NAMES)]
    output = subprocess.run(command, env=rucio.environment, check=True, capture_output=True, text=True).stdout
    refused = json.loads(output)
    assert len(refused) == 31
    assert all(name.startswith("X") for name in refused)


def test_the_service_account_makes_and_deletes_what_the_sync_needs(clean_rucio: RucioServer) -> None:
    client = clean_rucio.client()
    rse = world.make_site(clean_rucio, "T1_FR_CCIN2P3_Buffer", "T1_FR_CCIN2P3_Tape", "TAPE")
    client.add_container("cms", DATASET)
    client.add_dataset("cms", BLOCK)
    client.attach_dids("cms", DATASET, [{"scope": "cms", "name": BLOCK}])
    file = {"scope": "cms", "name": FILE, "bytes": 1, "adler32": "00000001"}
    client.attach_dids_to_dids([{"scope": "cms", "name": BLOCK, "rse": rse, "dids": [file]}])
    assert [found["name"] for found in client.list_files("cms", BLOCK)] == [FILE]
    client.delete_replicas(rse, [{"scope": "cms", "name": FILE}])
    assert clean_rucio.sql("SELECT count(*) FROM replicas") == [(0,)]
    assert client.export_data(distance=True)["distances"] == {}


@pytest.mark.parametrize("name", ["no-slash", "/A/B-v1/RAW#1#2", "/store/" + "x" * 500])
def test_a_name_that_is_not_of_cms_is_refused(rucio: RucioServer, name: str) -> None:
    with pytest.raises(InvalidObject):
        rucio.client().add_dataset("cms", name)


@pytest.fixture(scope="module")
def phedex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The data service on the recorded nodes and their real catalogues."""
    snapshot = tmp_path_factory.mktemp("recorded") / "snapshot.sqlite"
    recording.load(snapshot)
    with running(snapshot) as url:
        yield f"{url}/json/prod"


def test_the_server_places_every_file_where_phedex_did(clean_rucio: RucioServer, phedex: str) -> None:
    client = clean_rucio.client()
    compared = 0
    for path in sorted(recording.RECORDED.glob("tfc/T*.xml")):
        node = path.name.split(".")[0]
        rows = requests.get(f"{phedex}/tfc", {"node": node}, timeout=30).json()["phedex"]["storage-mapping"]["array"]
        if not rows:
            continue  # a catalogue of a node that is not among the recorded ones
        rules = tfc.from_reply(rows, node).rules
        for protocol in sorted({rule.protocol for rule in rules if rule.kind is tfc.Kind.LFN_TO_PFN}):
            stored = {"tfc": stored_for(rules, protocol, node), "tfc_proto": protocol}
            wanted = {lfn: pfn for lfn, pfn in _phedex_pfns(phedex, node, protocol).items() if URL.search(pfn or "")}
            for storage in {split(pfn)[0] for pfn in wanted.values()}:
                rse = _rse_with(client, f"{node}_{compared}", node, storage, stored)
                asked = [lfn for lfn, pfn in wanted.items() if storage.port or split(pfn)[0] == storage]
                found = client.lfns2pfns(rse, [f"cms:{lfn}" for lfn in asked], operation="read")
                assert found == {f"cms:{lfn}": wanted[lfn] for lfn in asked}
                compared += len(asked)
    print(f"{compared} PFNs, 0 other than the data service's")
    assert compared > 100


def test_a_name_that_no_rule_places_is_named(clean_rucio: RucioServer) -> None:
    client = clean_rucio.client()
    rules = [{"proto": "srmv2", "path": "/store/user/(.*)", "out": "srm://h:1/$1"}]
    storage = Seinfo(scheme="srm", hostname="h", port=1)
    rse = _rse_with(client, "T2_CH_CERNBOX", "T2_CH_CERNBOX", storage, {"tfc": rules, "tfc_proto": "srmv2"})
    with pytest.raises(RSEFileNameNotSupported, match="cannot place /store/mc/x: no rule of protocol srmv2 applies"):
        client.lfns2pfns(rse, ["cms:/store/mc/x"], operation="read")


def _phedex_pfns(phedex: str, node: str, protocol: str) -> dict[str, str | None]:
    query = {
        "node": node,
        "protocol": protocol,
        "lfn": [lfn for lfn in LFNS if lfn.startswith("/store/")],
        "destination": node,
    }
    reply = requests.get(f"{phedex}/lfn2pfn", query, timeout=30).json()["phedex"]["mapping"]
    return {row["lfn"]: row["pfn"] for row in reply}


def _rse_with(client: Client, rse: str, node: str, storage: Seinfo, extended: dict[str, object]) -> str:
    client.add_rse(rse, deterministic=True)
    for key, value in {"pnn": node, "lfn2pfn_algorithm": "cmstfc"}.items():
        client.add_rse_attribute(rse, key, value)
    protocol = {
        "scheme": storage.scheme,
        "hostname": storage.hostname,
        "port": storage.port,
        "prefix": "/",
        "impl": "rucio.rse.protocols.gfal.Default",
        "extended_attributes": {**extended, "web_service_path": storage.web_service_path},
        "domains": {"wan": {"read": 1, "write": 1, "delete": 1}},
    }
    client.add_protocol(rse, protocol)
    return rse
