"""compose.yaml: is what it mounts there, is nothing published to the world, has everything its limits?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


def plain(text: str) -> str:
    """Without the variables: their defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@every_service
def test_each_is_limited_confined_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["cpus"] > 0
    assert service["mem_limit"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name == "cli" else "unless-stopped")
    assert service["healthcheck"].get("disable", False) == (name == "cli")


@every_service
def test_ports_are_for_this_machine_alone(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@every_service
def test_what_is_mounted_is_there(name: str) -> None:
    service = SERVICES[name]
    for volume in service.get("volumes", []):
        source, target = plain(volume).split(":")[:2]
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]
    assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
    assert set(service["networks"]) <= COMPOSE["networks"].keys()
    assert service.get("depends_on", {}).keys() <= SERVICES.keys()


def test_prometheus_asks_those_that_have_metrics() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (asked,) = config["scrape_configs"][0]["dns_sd_configs"]
    having = {
        name
        for name, service in SERVICES.items()
        if not service.get("profiles") and name != "topology"  # a loop of short commands
    }
    assert set(asked["names"]) == having | {"datasvc"}
    assert f"--metrics-port {asked['port']}" in SERVICES["datasvc"]["command"][0]
    assert {SERVICES[name]["environment"]["PHEDEX_RUCIO_MAIN_METRICS_PORT"] for name in having} == {str(asked["port"])}
