"""What may stand in KEDA's and the Prometheus operator's objects? The fields that we use, by their definitions' names.

Unknown fields are refused, as a cluster with the definitions does that is asked to be strict.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[int, Meta(ge=0, le=3600)]


class Strict(Struct, rename="camel", forbid_unknown_fields=True):
    """The names of Kubernetes, and no others."""


class Named(Strict):
    name: str


class Labelled(Strict):
    name: str
    namespace: str
    labels: dict[str, str] = {}


class Policy(Strict):
    type: Literal["Pods", "Percent"]
    value: Annotated[int, Meta(gt=0)]
    period_seconds: Annotated[int, Meta(gt=0, le=1800)]


class Scaling(Strict):
    policies: Annotated[list[Policy], Meta(min_length=1)]
    stabilization_window_seconds: Seconds = 0


class Behavior(Strict):
    scale_up: Scaling
    scale_down: Scaling


class AutoscalerConfig(Strict):
    behavior: Behavior


class Modifiers(Strict):
    """`target` is a quantity written as a string."""

    formula: str
    target: str
    metric_type: Literal["AverageValue", "Value"]


class Advanced(Strict):
    scaling_modifiers: Modifiers
    horizontal_pod_autoscaler_config: AutoscalerConfig


class Trigger(Strict):
    """All values of the metadata are strings."""

    type: Literal["rabbitmq", "prometheus"]
    name: str
    metadata: dict[str, str]
    authentication_ref: Named | None = None


class ScaledSpec(Strict):
    scale_target_ref: Named
    min_replica_count: Count
    max_replica_count: Count
    polling_interval: Count
    advanced: Advanced
    triggers: Annotated[list[Trigger], Meta(min_length=1)]


class ScaledObject(Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: Labelled
    spec: ScaledSpec


class SecretRef(Strict):
    parameter: str
    name: str
    key: str


class AuthenticationSpec(Strict):
    secret_target_ref: list[SecretRef]


class TriggerAuthentication(Strict):
    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["TriggerAuthentication"]
    metadata: Labelled
    spec: AuthenticationSpec


class Endpoint(Strict):
    port: str
    path: str
    interval: str


class MonitorSpec(Strict):
    selector: dict[str, Any]
    pod_metrics_endpoints: list[Endpoint]


class PodMonitor(Strict):
    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Labelled
    spec: MonitorSpec


OURS = {"ScaledObject": ScaledObject, "TriggerAuthentication": TriggerAuthentication, "PodMonitor": PodMonitor}


def valid(manifest: dict[str, Any]) -> Any:
    """The object; msgspec.ValidationError for a field that is missing, of another type, or unknown."""
    return msgspec.convert(manifest, OURS[manifest["kind"]])
