"""The manifests: valid for the API, locked down, and of one mind with the program that they start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import click
import kubernetes_validate
import msgspec
import pytest
import yaml

from common.broker.topology import topology
from common.messages.commands import KINDS
from common.settings.load import load
from common.settings.model import Main
from phedex_rucio.main import cli
from scripts import render
from tests.unit.deploy import keda

VERSIONS = ("1.27", "1.32", "1.37")  # from the first with unhealthyPodEvictionPolicy on by default
ROLES = {"scheduler", "worker-site", "worker-blocks", "worker-setup", "worker-upload"}
Manifest = dict[str, Any]


def manifests(overlay: str) -> list[Manifest]:
    text = (render.RENDERED / f"{overlay}.yaml").read_text()
    return [one for one in yaml.safe_load_all(text) if one]


ALL = {overlay: manifests(overlay) for overlay in render.OVERLAYS}
every_overlay = pytest.mark.parametrize("overlay", render.OVERLAYS)


def of_kind(overlay: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in ALL[overlay] if one["kind"] == kind}


def pods(overlay: str) -> dict[str, Manifest]:
    return {name: one["spec"]["template"]["spec"] for name, one in of_kind(overlay, "Deployment").items()}


def jobs(overlay: str) -> dict[str, Manifest]:
    found = of_kind(overlay, "CronJob").items()
    return {name: one["spec"]["jobTemplate"]["spec"]["template"]["spec"] for name, one in found}


def labels(overlay: str) -> dict[str, dict[str, str]]:
    return {n: one["spec"]["template"]["metadata"]["labels"] for n, one in of_kind(overlay, "Deployment").items()}


def containers(pod: Manifest) -> list[Manifest]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def chosen(selector: Manifest, has: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= has.items()
    assert {e["operator"] for e in selector.get("matchExpressions", [])} <= {"In"}
    return wanted and all(has.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


@every_overlay
def test_what_is_rendered_is_of_these_sources(overlay: str) -> None:
    said = (render.RENDERED / f"{overlay}.yaml").read_text()
    assert render.digest() in said.splitlines()[0], "run python -m scripts.render"
    if shutil.which("kubectl"):
        assert list(yaml.safe_load_all(said)) == list(yaml.safe_load_all(render.rendered(overlay)))


@every_overlay
@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_takes_every_manifest(overlay: str, version: str) -> None:
    for one in ALL[overlay]:
        if one["kind"] in keda.OURS:
            keda.valid(one)
        else:
            kubernetes_validate.validate(one, version, strict=True)


def test_the_validators_refuse_what_is_wrong() -> None:
    deployment = msgspec.json.decode(msgspec.json.encode(of_kind("small", "Deployment")["scheduler"]))
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)
    scaled = msgspec.json.decode(msgspec.json.encode(of_kind("production", "ScaledObject")["worker-blocks"]))
    scaled["spec"]["advanced"]["scalingModifiers"]["target"] = 40
    with pytest.raises(msgspec.ValidationError, match="target"):
        keda.valid(scaled)


@every_overlay
def test_every_pod_keeps_the_restricted_level(overlay: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and a root nobody can write."""
    assert of_kind(overlay, "Namespace")["phedex-rucio"]["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"
    ] == "restricted"  # fmt: skip
    for pod in (pods(overlay) | jobs(overlay)).values():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["automountServiceAccountToken"] is False
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
        for container in containers(pod):
            own = container["securityContext"]
            assert own == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@every_overlay
def test_each_role_is_there_and_its_command_line_is_one(overlay: str) -> None:
    assert pods(overlay).keys() >= ROLES
    for pod in (pods(overlay) | jobs(overlay)).values():
        for container in pod["containers"]:
            assert container["command"] == ["phedex-rucio"]
            words, found = container["args"], cli
            context = click.Context(cli)
            while isinstance(found, click.Group):
                inner = found.get_command(context, words[0])
                assert inner is not None, words
                found, words = inner, words[1:]  # type: ignore[assignment]
            if found.name != "serve":  # its snapshot is in the container
                found.make_context(str(found.name), list(words))


@every_overlay
def test_each_kind_of_command_has_a_worker(overlay: str) -> None:
    served = [
        word
        for pod in pods(overlay).values()
        for before, word in zip(pod["containers"][0]["args"], pod["containers"][0]["args"][1:], strict=False)
        if before == "--queue"
    ]
    assert sorted(served) == sorted(KINDS)


def settings_of(overlay: str, role: str, folder: Any) -> Main:
    """The settings that a container of this role has."""
    container = pods(overlay)[role]["containers"][0]
    environ = dict(
        next(one["data"] for name, one in of_kind(overlay, "ConfigMap").items() if name.startswith("addresses-"))
    )
    environ |= {one["name"]: one["value"] for one in container["env"]}
    environ["AMQP_URL"] = environ["AMQP_URL"].replace("$(BROKER)", environ["BROKER"])
    (folder / "password").write_text("not-a-secret\n")
    environ["AMQP_PASSWORD_FILE"] = str(folder / "password")
    path = folder / "settings.yaml"
    path.write_text(of_kind(overlay, "ConfigMap")["settings"]["data"]["settings.yaml"])
    return load(path, environ=environ).settings.main


@every_overlay
@pytest.mark.parametrize("role", sorted(ROLES))
def test_the_settings_fit_what_surrounds_them(overlay: str, role: str, tmp_path: Any) -> None:
    main, pod = settings_of(overlay, role, tmp_path), pods(overlay)[role]
    container = pod["containers"][0]
    assert main.grace + 15 <= pod["terminationGracePeriodSeconds"]  # it takes 5 s to close the connections
    assert main.amqp_url.startswith(f"amqps://{role.partition('-')[0]}:not-a-secret@")
    assert main.metrics_host == "0.0.0.0"
    assert [port["containerPort"] for port in container["ports"]] == [main.metrics_port]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted >= {"/tmp", "/run/secrets/broker", "/etc/phedex-rucio"}
    assert ("/run/secrets/rucio" in mounted) == role.startswith("worker")
    assert (main.spool in mounted) == (role == "worker-upload")
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@every_overlay
@pytest.mark.parametrize("role", sorted(ROLES))
def test_an_outage_restarts_nobody(overlay: str, role: str) -> None:
    container = pods(overlay)[role]["containers"][0]
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {"/healthz"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@every_overlay
def test_budgets_and_policies_choose_the_pods_that_they_mean(overlay: str) -> None:
    has = labels(overlay)
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        assert [role for role in has if chosen(budget["spec"]["selector"], has[role])] == [name]
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert of_kind(overlay, "PodDisruptionBudget").keys() == has.keys()
    for name, one in of_kind(overlay, "Deployment").items():
        assert [role for role in has if chosen(one["spec"]["selector"], has[role])] == [name]


def reached(overlay: str, role: str, direction: str) -> set[object]:
    """The ports that the policies leave open to (egress) or at (ingress) a role."""
    policies = [one["spec"] for one in of_kind(overlay, "NetworkPolicy").values()]
    mine = [one for one in policies if chosen(one["podSelector"], labels(overlay)[role])]
    assert any(one["podSelector"] == {} and direction.capitalize() in one["policyTypes"] for one in mine)
    return {port["port"] for one in mine for rule in one.get(direction, []) for port in rule["ports"]}


@every_overlay
def test_the_network_is_shut_but_for_what_each_needs(overlay: str) -> None:
    here = {"http"} if "datasvc" in pods(overlay) else set()
    assert reached(overlay, "scheduler", "egress") == {53, 5671}
    assert reached(overlay, "worker-blocks", "egress") == {53, 5671, 443} | here
    assert reached(overlay, "worker-upload", "egress") == {53, 5671, 443, 1094, 2880, 8443} | here
    for role in ROLES:
        assert reached(overlay, role, "ingress") == {"metrics"}


@every_overlay
def test_two_schedulers_so_that_one_waits(overlay: str) -> None:
    assert of_kind(overlay, "Deployment")["scheduler"]["spec"]["replicas"] == 2


def scaled() -> Iterator[tuple[keda.ScaledObject, Manifest]]:
    deployments = of_kind("production", "Deployment")
    for one in of_kind("production", "ScaledObject").values():
        found = keda.valid(one)
        yield found, deployments[found.spec.scale_target_ref.name]


def test_what_scales_is_counted_in_its_own_queues_and_not_while_a_system_is_away() -> None:
    found = list(scaled())
    assert {one.spec.scale_target_ref.name for one, _ in found} == {"worker-site", "worker-blocks"}
    queues = {queue.name for queue in topology(Main()).queues}
    for one, deployment in found:
        assert "replicas" not in deployment["spec"]
        by_name = {trigger.name: trigger for trigger in one.spec.triggers}
        assert one.spec.advanced.scaling_modifiers.formula == "away > 0 ? 0 : bulk + now"
        assert by_name.keys() == {"away", "bulk", "now"}
        counted = {by_name[name].metadata["queueName"] for name in ("bulk", "now")}
        assert counted <= queues
        assert {name.removesuffix(".now") for name in counted} <= set(
            deployment["spec"]["template"]["spec"]["containers"][0]["args"]
        )
        assert "phedex_rucio_system_away" in by_name["away"].metadata["query"]
        assert by_name["away"].metadata["ignoreNullValues"] == "false"
        names = {trigger.authentication_ref.name for trigger in one.spec.triggers if trigger.authentication_ref}
        assert names == of_kind("production", "TriggerAuthentication").keys()
        assert 1 <= one.spec.min_replica_count < one.spec.max_replica_count
