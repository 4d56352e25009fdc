"""Kubernetes objects as the operator handles them: manifests, their names, and the kinds that a flow is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

Manifest = dict[str, Any]
"""A Kubernetes object as in JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind that the operator reads and writes."""

    api_version: str
    kind: str
    plural: str
    has_status: bool = False
    """Whether a condition of the flow is read off its status."""
    is_optional: bool = False
    """Whether a cluster may well lack it."""

    @property
    def group(self) -> str:
        """The API group; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """The version inside the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path of one object, or of all in a namespace, or in the cluster."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")

    def __str__(self) -> str:
        return self.kind


class Name(NamedTuple):
    """Which object of a namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class FlowName(NamedTuple):
    """Which ChatFlow."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


CHATFLOW = Kind("chatflow.dev/v1alpha1", "ChatFlow", "chatflows", has_status=True)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
VOLUME_CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", has_status=True)
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", has_status=True)
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets", has_status=True)
JOB = Kind("batch/v1", "Job", "jobs", has_status=True)
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", has_status=True)
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
HTTP_ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", has_status=True, is_optional=True)
SERVING_RUNTIME = Kind("serving.kserve.io/v1alpha1", "ServingRuntime", "servingruntimes", is_optional=True)
CLUSTER_SERVING_RUNTIME = Kind("serving.kserve.io/v1alpha1", "ClusterServingRuntime", "clusterservingruntimes")
INFERENCE_SERVICE = Kind(
    "serving.kserve.io/v1beta1", "InferenceService", "inferenceservices", has_status=True, is_optional=True
)
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", has_status=True, is_optional=True)
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", is_optional=True)
PROMETHEUS_RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", is_optional=True)

CHILDREN = (
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    SECRET,
    VOLUME_CLAIM,
    NETWORK_POLICY,
    SERVICE,
    STATEFUL_SET,
    JOB,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    SCALED_OBJECT,
    HTTP_ROUTE,
    SERVING_RUNTIME,
    INFERENCE_SERVICE,
    POD_MONITOR,
    PROMETHEUS_RULE,
)
"""What a flow may be made of, in the order in which it is applied: what pods mount or need comes before them."""
KINDS: Mapping[str, Kind] = {kind.kind: kind for kind in CHILDREN}


class Keeping(StrEnum):
    """What becomes of an object when the flow does not want it any more, or is deleted."""

    OWNED = "owned"
    """It goes, by its ownerReference."""
    KEPT = "kept"
    """It stays: a volume with somebody's data."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One object as it should be."""

    manifest: Manifest
    keeping: Keeping = Keeping.OWNED
    is_created_once: bool = False
    """Made when it is absent and never written again: it holds what was generated for it."""

    @property
    def name(self) -> Name:
        """Which object it is."""
        return Name(self.manifest["kind"], self.manifest["metadata"]["name"])
