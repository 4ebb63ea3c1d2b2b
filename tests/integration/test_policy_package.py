"""Does a real Rucio server with the policy package accept CMS names and let the service account do its work?"""

import json
import subprocess
from pathlib import Path

import pytest
from rucio.common.exception import InvalidObject

from tests.stack import world
from tests.stack.rucio_server import RucioServer

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
    rse = world.make_site(client, "T1_FR_CCIN2P3_Buffer", "T1_FR_CCIN2P3_Tape", "TAPE")
    client.add_container("cms", DATASET)
    client.add_dataset("cms", BLOCK)
    client.attach_dids("cms", DATASET, [{"scope": "cms", "name": BLOCK}])
    file = {"scope": "cms", "name": FILE, "bytes": 1, "adler32": "00000001"}
    client.attach_dids_to_dids([{"scope": "cms", "name": BLOCK, "rse": rse, "dids": [file]}])
    assert [found["name"] for found in client.list_files("cms", BLOCK)] == [FILE]
    client.delete_replicas(rse, [{"scope": "cms", "name": FILE}])
    assert clean_rucio.sql("SELECT count(*) FROM replicas") == [(0,)]


@pytest.mark.parametrize("name", ["no-slash", "/A/B-v1/RAW#1#2", "/store/" + "x" * 500])
def test_a_name_that_is_not_of_cms_is_refused(rucio: RucioServer, name: str) -> None:
    with pytest.raises(InvalidObject):
        rucio.client().add_dataset("cms", name)
