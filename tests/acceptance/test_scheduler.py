"""A site keeps coming back in sync by itself: two schedulers, a worker, and a PhEDEx that changes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import requests

from datasvc.build import Snapshot
from datasvc.serve import running
from tests import checker
from tests.acceptance.command import run, started, until, worker
from tests.integration.messaging import eventually
from tests.stack.processes import free_ports
from tests.stack.rucio_server import RucioServer
from tests.stack.world import make_site

NODE = "T2_IT_Pisa"
ACCOUNT = "sync_t2_it_pisa"


def test_a_site_keeps_coming_back_in_sync(tmp_path: Path, clean_rucio: RucioServer, amqp_url: str) -> None:
    make_site(clean_rucio, NODE)
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"main: {{jitter: 0, sleep: 1}}\n{NODE}: {{every: 3}}\n")
    with Snapshot(tmp_path / "phedex.sqlite") as made, running(tmp_path / "phedex.sqlite") as url:
        made.add_node(NODE)
        env = {"AMQP_URL": amqp_url, "PHEDEX_URL": url, "PHEDEX_RUCIO_CONFIG": str(settings)}
        env |= clean_rucio.client_environment()

        def add(number: int) -> None:
            block = f"/Primary/Run2018A-v1/AOD#{number}"
            made.add_block(block, [(f"/store/data/{number}/{i}.root", 1000 + i, f"{i:08x}") for i in range(3)])
            made.add_replica(block, NODE)

        def is_in_sync() -> bool:
            expected = checker.expected(url, NODE, NODE, ACCOUNT)
            return checker.differences(checker.read_tables(clean_rucio.sql), {NODE: expected}) == []

        add(1)
        first = free_ports(2)
        ports = (first, first + 1)

        def page(port: int, name: str) -> requests.Response:
            return requests.get(f"http://127.0.0.1:{port}/{name}", timeout=30)

        def is_ready(port: int) -> bool:
            return page(port, "readyz").ok

        def tells_as_of(port: int) -> bool:
            return f'phedex_rucio_site_in_sync_timestamp_seconds{{node="{NODE}"}} 1' in page(port, "metrics").text

        with worker(env), started("scheduler", "--metrics-port", str(ports[0]), env=env) as active:
            until(active, "this scheduler holds the lease")
            with started("scheduler", "--metrics-port", str(ports[1]), env=env) as standby:
                until(standby, "standby: another scheduler is active")
                for port in ports:
                    assert page(port, "healthz").json() == {"status": "ok", "parts": {"loop": "ok"}}
                    eventually(partial(is_ready, port), "ready")
                for number in (2, 3):
                    add(number)
                    eventually(is_in_sync, f"block {number} is in Rucio", timeout=90)
                for port in ports:
                    eventually(partial(tells_as_of, port), "as of when it was in sync")
                active.kill()
                add(4)
                eventually(is_in_sync, "the standby goes on", timeout=90)
        shown = run("scheduler", "--dry-run", "--json", env=env)
        assert shown.returncode == 0, shown.stderr
        (line,) = json.loads(shown.stdout)
        assert (line["key"], line["every"]) == (NODE, 3)
        assert clean_rucio.sql("SELECT count(*) FROM rules") == [(4,)]
