"""The data service as its clients see it: the real server on a loopback port, asked over HTTP."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from datasvc import change
from datasvc.build import Snapshot
from datasvc.generate import Size, generate
from datasvc.recording import load
from datasvc.serve import running
from tests.stack.processes import setpriv
from tests.unit.datasvc.worlds import FULL, OPEN, PART, PISA, TAPE, fill

WAIT = 30
PROGRAM = [*setpriv(None), sys.executable, "-m", "phedex_rucio.datasvc"]


class Service:
    """A running service, its snapshot and its faults file."""

    def __init__(self, url: str, snapshot: Path, faults: Path) -> None:
        self.url, self.snapshot, self.faults = url, snapshot, faults

    def get(self, call: str, options: str = "", **more: Any) -> requests.Response:
        return requests.get(f"{self.url}/json/prod/{call}?{options}", timeout=WAIT, **more)

    def blocks(self, options: str) -> list[str]:
        return [block["name"] for block in self.get("blockreplicas", options).json()["phedex"]["block"]]

    def misbehave(self, *entries: dict[str, Any]) -> None:
        self.faults.write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The recorded sample, served."""
    folder = tmp_path_factory.mktemp("recorded")
    load(folder / "snapshot.db")
    with running(folder / "snapshot.db") as url:
        yield Service(url, folder / "snapshot.db", folder / "faults.json")


@pytest.fixture(scope="module")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("small")
    with Snapshot(folder / "snapshot.db") as snapshot:
        fill(snapshot)
    with running(folder / "snapshot.db", folder / "faults.json") as url:
        yield Service(url, folder / "snapshot.db", folder / "faults.json")


@pytest.fixture
def small(_small: Service) -> Service:
    """The small world, served, with no fault in force."""
    _small.misbehave()
    return _small


def test_a_reply_has_the_envelope_and_headers_of_the_real_service(recorded: Service) -> None:
    asked = time.time()
    reply = recorded.get("blockReplicas", "node=T1_IT_CNAF_MSS&dataset=/*/*/*")
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/javascript")
    assert reply.headers["Cache-Control"] == "public, must-revalidate, max-age=300"
    assert "Expires" in reply.headers
    assert "Last-Modified" in reply.headers
    phedex = reply.json()["phedex"]
    assert (phedex["instance"], phedex["request_call"]) == ("prod", "blockreplicas")
    assert phedex["request_url"] == f"{recorded.url}/json/prod/blockreplicas"
    assert asked - 1 < phedex["request_timestamp"] < time.time() + 1
    assert phedex["request_date"].endswith(" UTC")
    assert isinstance(phedex["call_time"], str)
    assert list(phedex)[-1] == "call_time"
    assert len(phedex["block"]) > 100


def test_the_recorded_replies_have_the_keys_and_types_of_ours(recorded: Service) -> None:
    """Recorded 2011 and 2017; numbers are no strings any more since 2012, ids still are."""
    block = recorded.get("blockreplicas", "node=T1_IT_CNAF_MSS").json()["phedex"]["block"][0]
    kinds = {key: type(value).__name__ for key, value in block.items()}
    assert kinds == {"id": "str", "name": "str", "files": "int", "bytes": "int", "is_open": "str", "replica": "list"}
    assert set(block["replica"][0]) == {
        *("bytes", "files", "node", "time_create", "time_update", "group", "node_id"),
        *("custodial", "se", "subscribed", "complete"),
    }
    assert (block["replica"][0]["se"], block["replica"][0]["node_id"]) == ("storm-fe-cms.cr.cnaf.infn.it", "8")
    groups = recorded.get("groups").json()["phedex"]
    assert {"name": "AnalysisOps", "id": "42"} in groups["group"]
    assert isinstance(groups["call_time"], float)


@pytest.mark.parametrize("path", ["/json/prod/NODES", "/JSON/Prod/nodes", "/json/prod/nodes?nocache=1"])
def test_paths_are_case_insensitive(recorded: Service, path: str) -> None:
    reply = requests.get(recorded.url + path, timeout=WAIT)
    assert len(reply.json()["phedex"]["node"]) == 150
    assert ("Cache-Control" in reply.headers) == ("nocache" not in path)


def test_a_form_is_answered_like_a_query(small: Service) -> None:
    form = {"block": [FULL, PART, OPEN], "node": PISA}
    reply = requests.post(f"{small.url}/json/prod/blockreplicas", data=form, timeout=WAIT)
    assert [block["name"] for block in reply.json()["phedex"]["block"]] == [FULL, PART, OPEN]


@pytest.mark.parametrize(
    ("path", "status", "media", "body"),
    [
        ("/json/prod/foobar", 404, "text/plain", "failed to initialize data service API 'foobar': error loading"),
        ("/json/nosuch/nodes", 404, "text/plain", "Invalid instance: The instance you requested is not known to this "),
        ("/yaml/prod/nodes", 200, "text/xml", "<error>Unsupported format 'yaml'</error>"),
        ("/json/prod", 200, "text/javascript", '{"error":"API call was not defined.  Correct URL format is '),
        ("/json/prod/inject", 200, "text/javascript", '{"error":"method GET is not allowed"}'),
        ("/json/prod/bounce?die=now", 400, "text/plain", "error requested, dying"),
        ("/json/prod/filereplicas", 400, "text/plain", "invalid parameters: one of (block, lfn, dataset) are required"),
        ("/json/prod/blockreplicas?block=/a/b/c#d", 400, "text/plain", "The 'block' parameter (\"/a/b/c\") to PHEDEX"),
        ("/json/prod/lfn2pfn?node=T9_XX_N&protocol=srmv2&lfn=/a", 400, "text/plain", "no nodes found for 'T9_XX_N'"),
    ],
)
def test_errors_are_said_as_the_real_service_said_them(
    small: Service, path: str, status: int, media: str, body: str
) -> None:
    reply = requests.get(small.url + path, timeout=WAIT)
    assert (reply.status_code, reply.headers["Content-Type"].partition(";")[0]) == (status, media)
    assert reply.text.startswith(body)


def test_writing_needs_a_certificate_and_a_browser_gets_a_page(small: Service) -> None:
    reply = requests.post(f"{small.url}/json/prod/inject", data={"node": PISA}, timeout=WAIT)
    assert (reply.status_code, reply.text) == (401, "Certificate authentication required")
    page = small.get("nodes", "foo=1", headers={"User-Agent": "Mozilla/5.0"})
    assert (page.status_code, page.text[:45]) == (400, "<html><head><title>400 Bad Request</title></h")


def test_xml_is_the_same_tree(small: Service) -> None:
    reply = requests.get(f"{small.url}/xml/prod/blockreplicas", {"block": FULL, "node": PISA}, timeout=WAIT)
    assert reply.headers["Content-Type"] == "text/xml"
    root = ElementTree.fromstring(reply.content)
    assert "call_time" not in root.attrib
    [block] = root
    assert (block.tag, block.get("name"), block[0].tag, block[0].get("node")) == ("block", FULL, "replica", PISA)


def test_the_service_sees_what_another_process_changed(small: Service) -> None:
    assert FULL in small.blocks(f"node={TAPE}")
    with Snapshot(small.snapshot) as snapshot:
        change.go(snapshot, FULL, TAPE)
        assert FULL not in small.blocks(f"node={TAPE}")
        change.come(snapshot, FULL, TAPE)
    assert FULL in small.blocks(f"node={TAPE}")


def test_each_reply_is_one_state_of_a_snapshot_that_changes(tmp_path: Path) -> None:
    """Blocks move between two nodes all the time: no reply has one twice, or misses it."""
    path = tmp_path / "moving.db"
    block = [f"/A/Run2018A-v1/RAW#{number}" for number in range(400)]
    with Snapshot(path) as snapshot, snapshot.transaction():
        for node in (PISA, TAPE):
            snapshot.add_node(node)
        for name in block:
            snapshot.add_made_block(name, 3, 1000)
            snapshot.add_replica(name, PISA)

    def move_all(source: str, sink: str) -> None:
        with Snapshot(path) as snapshot, snapshot.transaction():
            for name in block:
                change.move(snapshot, name, source, sink)

    with running(path) as url, concurrent.futures.ThreadPoolExecutor(1) as pool:
        moving = pool.submit(lambda: [move_all(*pair) for pair in ((PISA, TAPE), (TAPE, PISA)) * 3])
        replies = 0
        while not moving.done() or not replies:
            found = requests.get(f"{url}/json/prod/blockreplicas?block=*", timeout=WAIT).json()["phedex"]["block"]
            assert [item["name"] for item in found] == block
            assert len({replica["node"] for item in found for replica in item["replica"]}) == 1
            replies += 1
        moving.result()


def test_large_replies_are_streamed(tmp_path: Path) -> None:
    generate(tmp_path / "large.db", Size(20, 3000, 5), 1)
    with running(tmp_path / "large.db") as url:
        reply = requests.get(f"{url}/json/prod/blockreplicas?block=*", timeout=WAIT, stream=True)
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert len(reply.json()["phedex"]["block"]) == 3000
        letters = {
            letter: requests.get(f"{url}/json/prod/blockreplicas?dataset=/{letter}*/*/*", timeout=WAIT).json()
            for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        }
        assert sum(len(found["phedex"]["block"]) for found in letters.values()) == 3000


def phedex(reply: requests.Response) -> dict[str, Any]:
    """The reply's `phedex` object; fails where it is not whole JSON."""
    found: dict[str, Any] = reply.json()["phedex"]
    return found


def test_faults_spoil_chosen_calls_only_as_often_as_told(small: Service) -> None:
    small.misbehave({"call": "blockreplicas", "kind": "status", "count": 1, "match": "node=T2"})
    assert small.get("nodes").status_code == 200
    assert small.get("blockreplicas", "node=T1_*").status_code == 200
    assert [small.get("blockreplicas", "node=T2_*").status_code for _ in range(2)] == [503, 200]


def test_faults_of_the_envelope(small: Service) -> None:
    small.misbehave({"call": "blockreplicas", "kind": "other_instance", "count": 1})
    assert phedex(small.get("blockreplicas", "block=*"))["instance"] == "debug"
    small.misbehave({"call": "blockreplicas", "kind": "other_call", "value": "data"})
    assert phedex(small.get("blockreplicas", "block=*"))["request_call"] == "data"
    small.misbehave({"call": "blockreplicas", "kind": "stale", "value": 7200})
    assert time.time() - phedex(small.get("blockreplicas", "block=*"))["request_timestamp"] > 7000
    small.misbehave({"call": "blockreplicas", "kind": "no_call_time"})
    assert "call_time" not in phedex(small.get("blockreplicas", "block=*"))
    small.misbehave()
    assert "call_time" in phedex(small.get("blockreplicas", "block=*"))


def test_faults_of_the_rows(small: Service) -> None:
    small.misbehave({"call": "blockreplicas", "kind": "empty"})
    assert phedex(small.get("blockreplicas", f"node={PISA}"))["block"] == []
    small.misbehave({"call": "blockreplicas", "kind": "other_rows", "value": TAPE})
    rows = phedex(small.get("blockreplicas", f"node={PISA}"))["block"]
    assert {replica["node"] for block in rows for replica in block["replica"]} == {TAPE}


def test_lies_about_one_question_leave_the_rest_right(small: Service) -> None:
    small.misbehave({"call": "*", "kind": "missing_block", "value": FULL[-3:], "match": "node="})
    assert small.blocks(f"node={PISA}") == [PART, OPEN]
    assert FULL in small.blocks("block=*")
    small.misbehave({"call": "data", "kind": "missing_block", "value": "#"})
    datasets = phedex(small.get("data", "dataset=/*/*/*&level=block&create_since=0"))["dbs"][0]["dataset"]
    assert [dataset["block"] for dataset in datasets] == [[], []]
    small.misbehave({"call": "*", "kind": "other_figures"})
    block = phedex(small.get("blockreplicas", f"block={PART.replace('#', '%23')}&node={PISA}"))["block"][0]
    assert (block["files"], block["bytes"], block["replica"][0]["files"]) == (1, 21, 0)
    small.misbehave({"call": "*", "kind": "half_files"})
    [block] = phedex(small.get("filereplicas", f"block={FULL.replace('#', '%23')}"))["block"]
    assert (block["files"], block["bytes"], len(block["file"])) == (1, 10, 1)


def test_deletions_may_be_cached_for_an_hour_and_are_written_as_xml_too(small: Service) -> None:
    with Snapshot(small.snapshot) as snapshot:
        change.go(snapshot, FULL, TAPE)
        change.come(snapshot, FULL, TAPE)
    reply = small.get("deletions", f"node={TAPE}")
    assert reply.headers["Cache-Control"] == "public, must-revalidate, max-age=3600"
    assert isinstance(phedex(reply)["call_time"], str)
    rows = phedex(reply)["dataset"][0]["block"][0]["deletion"]
    row = rows[-1]
    assert (row["node"], row["complete"], float(row["time_request"])) == (TAPE, "y", row["time_complete"])
    root = ElementTree.fromstring(requests.get(f"{small.url}/xml/prod/deletions", timeout=WAIT).content)
    assert [(one.get("node"), one.get("complete")) for one in root.iter("deletion")] == [(TAPE, "y")] * len(rows)
    refused = small.get("deletions", "create_since=0")
    assert (refused.status_code, refused.text[:14]) == (400, "The following ")


def test_faults_of_the_body(small: Service) -> None:
    small.misbehave({"call": "nodes", "kind": "truncated"})
    with pytest.raises(requests.JSONDecodeError):
        small.get("nodes").json()
    small.misbehave({"call": "nodes", "kind": "torn"})
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        small.get("nodes")
    small.misbehave({"call": "nodes", "kind": "login"})
    page = small.get("nodes")
    assert (page.status_code, page.headers["Content-Type"].partition(";")[0]) == (200, "text/html")
    small.misbehave({"call": "nodes", "kind": "error_document"})
    assert set(small.get("nodes").json()) == {"error"}


def test_a_frozen_call_holds_nobody_else(small: Service) -> None:
    small.misbehave({"call": "nodes", "kind": "freeze"})
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{small.url}/json/prod/nodes", timeout=(WAIT, 0.3))
    assert small.get("groups").status_code == 200


def test_a_wrong_faults_file_is_an_error_of_the_server(small: Service) -> None:
    small.faults.write_text("[{]")
    reply = small.get("nodes")
    assert (reply.status_code, reply.text[:11]) == (500, "faults file")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_command_line_makes_changes_and_serves(tmp_path: Path) -> None:
    path = str(tmp_path / "s.db")
    made = run("generate", path, "--nodes", "6", "--blocks", "30", "--files", "3", "--seed", "5")
    assert made.stdout.startswith(f"{path}: 6 nodes, 30 blocks, ")
    changed = run("change", path, "--seed", "2", "--steps", "4")
    assert len(changed.stdout.splitlines()) == 4
    serving = [*PROGRAM, "serve", path, "--port", "0"]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert len(requests.get(f"{url}/json/prod/nodes", timeout=WAIT).json()["phedex"]["node"]) == 6
        child.terminate()
        assert child.wait(WAIT) in {0, -15}
