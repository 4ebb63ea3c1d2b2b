"""The alert rules and the dashboard: do their metrics exist, and does each alert come when it should?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.broker.topology import topology
from common.settings.model import Main
from common.telemetry.metrics import REGISTRY

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus/rules.yaml"
DASHBOARD = DEPLOY / "grafana/dashboards/phedex-rucio.json"
METRIC = re.compile(r"\b(phedex_rucio_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
SCRAPED = {"job", "instance"}  # Prometheus' own
PROMTOOL = shutil.which("promtool") or shutil.which(DEPLOY.parent / ".cache/prometheus/usr/bin/promtool")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in panels() for target in panel.get("targets", [])
    ]


def known() -> dict[str, set[str]]:
    """The name of each series and its labels."""
    found: dict[str, set[str]] = {}
    for collector in REGISTRY._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for name in REGISTRY._collector_to_names[collector]:
            found[name] = labels | ({"le"} if name.endswith("_bucket") else set())
    return found


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    names, asked = known(), [match for text in expressions() for match in METRIC.findall(text)]
    assert len(asked) > 30
    for name, labels in asked:
        assert name in names, name
        assert set(LABEL.findall(labels)) <= names[name] | SCRAPED, (name, labels)


def test_the_queues_that_are_told_apart_by_name_are_the_dead_ones_and_those_of_pauses() -> None:
    queues = {queue.name for queue in topology(Main()).queues}
    dead = {name for name in queues if re.fullmatch(r".*\.dead|sync\.killed", name)}
    pauses = {name for name in queues if re.fullmatch(r"sync\.wait\..*", name)}
    assert dead
    assert pauses
    work = queues - dead - pauses
    assert {"sync.site", "sync.dataset", "sync.blocks", "upload", "rse", "account", "link"} <= work


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["alert"].startswith("PhedexRucio")
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool here; scripts/test unpacks Debian's where it can be had")
def test_each_alert_comes_when_it_should() -> None:
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]):
        done = subprocess.run(
            [str(PROMTOOL), *command], cwd=RULES.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    tried = (RULES.parent / "rules.test.yaml").read_text()
    assert [rule["alert"] for rule in rules() if rule["alert"] not in tried] == []


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"][0]
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert variables["source"]["current"]["value"] == source["uid"]
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"], panel["title"]
