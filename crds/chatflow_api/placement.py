"""The parts of the spec that say what runs on a cluster and how much of it: replicas, resources, volumes, routes.

Part of `v1alpha1`; only the operator acts on them, `chatflow up` starts one of each.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from chatflow_api.spec_types import Finding, ObjectName, RuleBroken, Spec

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=20)]
"""An amount as Kubernetes writes it: 500m, 2, 512Mi, 20Gi."""
ResourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?$", max_length=63)]
Amounts = Annotated[dict[ResourceName, Quantity], Field(max_length=10)]
Argument = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Resources(Spec):
    """What a container asks of its node, and what it may use at most."""

    requests: Amounts = {}
    """What is set aside for it, for example cpu: 500m, memory: 512Mi."""
    limits: Amounts = {}
    """What it may use at most. A limit on memory guards the node; one on cpu costs latency."""


class Replicas(Spec):
    """How many of something run."""

    min: Annotated[int, Field(ge=1, le=1000)] = 1
    """At least this many."""
    max: Annotated[int, Field(ge=1, le=1000)] = 1
    """At most this many."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise RuleBroken(Finding(("min",), f"{self.min} is above max {self.max}; lower it, or raise max"))
        return self

    cel: ClassVar = [("self.min <= self.max", "min must not be above max")]


class GatewayReplicas(Replicas):
    """How many gateways run."""

    min: Annotated[int, Field(ge=1, le=1000)] = 2
    """At least this many; with two, one may go and the chat answers."""
    max: Annotated[int, Field(ge=1, le=1000)] = 20
    """At most this many."""


class Autoscaler(StrEnum):
    """Who adds and removes gateways."""

    HPA = "hpa"
    KEDA = "keda"


class Autoscaling(Spec):
    """When gateways are added and removed."""

    by: Autoscaler = Autoscaler.HPA
    """hpa is Kubernetes' own and needs metrics-server. keda needs KEDA; where it is not installed hpa is used, and the
    condition Autoscaling says so."""
    cpu_percent: Annotated[int, Field(ge=10, le=100)] = 70
    """Gateways are added above this average use of their requested cpu."""


class ParentRef(Spec):
    """A Gateway (Gateway API) that takes the flow's traffic."""

    name: ObjectName
    """Name of the Gateway."""
    namespace: ObjectName | None = None
    """Its namespace; the flow's own without it."""
    section_name: ObjectName | None = None
    """One listener of it; all that allow the route without it."""


HostName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$", max_length=253
    ),
]


class Route(Spec):
    """An HTTPRoute (Gateway API) to the gateways, without a time limit, so that streams and WebSockets stay open."""

    parent_refs: Annotated[list[ParentRef], Field(min_length=1, max_length=16)]
    """The Gateways that take the traffic."""
    hostnames: Annotated[list[HostName], Field(max_length=16)] = []
    """Host names of the chat; the first one is in status.url. All that the Gateway takes when empty."""


class Reclaim(StrEnum):
    """What becomes of the volumes of something that is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class RedisReplicas(IntEnum):
    """Sizes of a managed Redis."""

    ONE = 1
    THREE = 3


class Volume(Spec):
    """A volume that the cluster provides."""

    size: Quantity = "1Gi"
    """How much it holds. It can grow later where the storage class allows it, never shrink."""
    storage_class_name: ObjectName | None = None
    """Its storage class; the cluster's default without it. It cannot change later."""


class ManagedRedis(Spec):
    """A Redis of the flow's own, on volumes, with an append-only file and a generated password."""

    replicas: RedisReplicas = RedisReplicas.THREE
    """3: one primary and two replicas under Sentinel, which replaces a lost primary within half a minute; a write needs
    one replica that follows. 1: without Sentinel and not highly available, for trials."""
    storage: Volume = Volume()
    """Each server's volume."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "512Mi"})
    """What each server asks of its node. Redis takes no more data at three quarters of its memory limit."""
    reclaim: Reclaim = Reclaim.RETAIN
    """What becomes of all of the flow's volumes when the flow is deleted: Retain keeps conversations and records,
    Delete removes them."""

    cel: ClassVar = [
        (
            "self.replicas >= oldSelf.replicas",
            "replicas cannot be lowered: the server that stays may lack the last writes; make a new flow instead",
        ),
        ("self.storage == oldSelf.storage", "storage cannot change: Kubernetes keeps the volumes of a StatefulSet"),
    ]


class AccessMode(StrEnum):
    """Who may mount a volume at the same time."""

    ONE_NODE = "ReadWriteOnce"
    MANY_NODES = "ReadWriteMany"


class Storage(Volume):
    """The volume that a flow's pods share: trained models, the knowledge index, and the records of labelling and
    rating."""

    access_mode: AccessMode = AccessMode.ONE_NODE
    """ReadWriteOnce works with every storage class, but all gateways then run on one node. ReadWriteMany lets them
    spread over nodes and needs a class that offers it. It cannot change later."""

    cel: ClassVar = [
        ("self.accessMode == oldSelf.accessMode", "accessMode cannot change later"),
        (
            "has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName)"
            " || self.storageClassName == oldSelf.storageClassName)",
            "storageClassName cannot change later",
        ),
    ]


class Observability(Spec):
    """Monitoring objects; those whose API the cluster lacks are left out."""

    pod_monitor: bool = True
    """A PodMonitor (prometheus-operator) for gateways and worker."""
    alerts: bool = True
    """A PrometheusRule (prometheus-operator) with alerts on errors, slow first replies and degraded rungs."""


class ModelFormat(StrEnum):
    """What a model server speaks."""

    VLLM = "vLLM"
    HUGGING_FACE = "huggingface"


class KServeModel(Spec):
    """A language model that KServe serves in the flow's namespace, by an InferenceService in Standard mode."""

    storage_uri: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+://[^\x00-\x20]+$", max_length=1000)]
    """Where its files are, for example hf://Qwen/Qwen3-8B, pvc://models/qwen, s3://bucket/path or oci://image."""
    format: ModelFormat = ModelFormat.VLLM
    """vLLM for the runtime kserve-vllmserver, huggingface for kserve-huggingfaceserver and others like it."""
    runtime: ObjectName | None = None
    """Name of the ServingRuntime; KServe chooses one by the format without it."""
    gpu: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each server; 0 serves on CPU."""
    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Resource name of a GPU."""
    args: Annotated[list[Argument], Field(max_length=100)] = []
    """Further arguments of the server, for example --max-model-len=8192."""
    replicas: Replicas = Replicas()
    """How many servers run."""
    resources: Resources = Resources(requests={"cpu": "4", "memory": "16Gi"})
    """What each server asks of its node besides GPUs."""
    service_account_name: ObjectName | None = None
    """ServiceAccount whose Secrets open the storage (a Hugging Face token, S3 keys)."""


class IntentServer(Spec):
    """A server for the intent classifier, by an InferenceService in Standard mode."""

    storage_uri: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+://[^\x00-\x20]+$", max_length=1000)]
    """Where the trained classifier is, for example pvc://shop-support-data/artefacts."""
    format: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=63)] = "chatflow-intent"
    """Model format by which KServe chooses a runtime."""
    runtime: ObjectName | None = None
    """Name of the ServingRuntime; KServe chooses one by the format without it."""
    replicas: Replicas = Replicas()
    """How many servers run."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "512Mi"})
    """What each server asks of its node."""


ModelRole = Literal["llm", "backup", "intent"]
"""What a model is for."""
