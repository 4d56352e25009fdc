"""The parts of the spec that say what runs on a cluster and how much of it: replicas, resources, volumes, routes.

Part of `v1alpha1`; only the operator acts on them, `chatflow up` starts one of each.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from chatflow_api.spec_types import (
    ConfigMapKeyRef,
    Duration,
    Finding,
    ObjectName,
    RuleBroken,
    Spec,
    Within,
    duration_s,
)

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


class ModelReplicas(Replicas):
    """How many model servers run; between two different numbers the requests choose."""

    min: Annotated[int, Field(ge=0, le=1000)] = 1
    """At least this many. 0 needs KEDA and observability.prometheus; the first question then wakes a server, and
    whileWaking says what becomes of who asks meanwhile."""


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
    turns_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Gateways are also added above this average of messages that each answers or has waiting; by keda, and where
    observability.prometheus is set."""


class ModelAutoscaling(Spec):
    """When servers of a language model are added and removed, where replicas.min and replicas.max differ. KEDA does it
    by requests and KV cache, read from observability.prometheus; without either a HorizontalPodAutoscaler by CPU, and
    the condition Autoscaling says so."""

    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    """Requests that one server answers at a time while it keeps the deadlines; not more than its --max-num-seqs.
    Servers are added above three quarters of it. `chatflow simulate` shows what a number leads to."""
    cooldown: Annotated[Duration, Within("3m", "24h")] = "15m"
    """With replicas.min 0: the last server goes when nobody has asked for so long."""


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


class Prometheus(Spec):
    """A Prometheus, or a server with its query API, that scrapes the flow's pods."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\x00-\x20?#]+$", max_length=1000)]
    """Its address as KEDA reaches it, for example http://prometheus.monitoring.svc:9090."""


class Observability(Spec):
    """Monitoring objects; those whose API the cluster lacks are left out."""

    prometheus: Prometheus | None = None
    """Where autoscaling reads what is in flight; without it, only CPU is known."""
    pod_monitor: bool = True
    """PodMonitors (prometheus-operator) for gateways and worker, and for language models that KServe serves."""
    alerts: bool = True
    """A PrometheusRule (prometheus-operator) with alerts on errors, slow first replies and degraded rungs."""


class ModelFormat(StrEnum):
    """What a model server speaks."""

    VLLM = "vLLM"
    HUGGING_FACE = "huggingface"


StorageUri = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+://[^\x00-\x20]+$", max_length=1000)]
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9./_-]*[A-Za-z0-9])?$", max_length=317)]


class Toleration(Spec):
    """A taint of nodes that pods may run on all the same."""

    key: LabelKey | None = None
    """Key of the taint; any without it, with operator Exists."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """Exists tolerates every value."""
    value: LabelValue | None = None
    """Value of the taint, for Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; any without it."""

    @model_validator(mode="after")
    def _is_one_of_kubernetes(self) -> Self:
        if self.key is None and self.operator != "Exists":
            message = f"{self.operator} without a key tolerates nothing; give a key, or set operator: Exists"
            raise RuleBroken(Finding(("operator",), message))
        if self.value is not None and self.operator == "Exists":
            message = f"{self.value!r} with Exists, which takes every value; leave it out, or set operator: Equal"
            raise RuleBroken(Finding(("value",), message))
        return self

    cel: ClassVar = [
        ("has(self.key) || self.operator == 'Exists'", "without a key operator must be Exists"),
        ("!has(self.value) || self.operator == 'Equal'", "operator Exists takes no value"),
    ]


class Adapter(Spec):
    """A LoRA adapter of the model."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$", max_length=63)]
    """Its name as a model of the server."""
    storage_uri: StorageUri
    """Where its files are."""


class WarmUp(Spec):
    """When a server that has just started takes traffic: once its first tokens come about as fast as they ever did."""

    start_within: Annotated[Duration, Within("10s", "4h")] = "30m"
    """A server that is not warm by then is started anew: time to load a large model."""
    warm_within: Annotated[Duration, Within("1s", "1h")] = "5m"
    """A server that answers, but slowly, takes traffic after this long."""
    ratio: Annotated[float, Field(ge=1, le=10)] = 1.5
    """Warm: the last three first tokens took at most this many times the fastest one."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if duration_s(self.warm_within) >= duration_s(self.start_within):
            message = f"{self.warm_within} is not below startWithin {self.start_within}; lower it, or raise startWithin"
            raise RuleBroken(Finding(("warmWithin",), message))
        return self

    cel: ClassVar = [("duration(self.warmWithin) < duration(self.startWithin)", "warmWithin must be below startWithin")]


class KServeModel(Spec):
    """A language model that KServe serves in the flow's namespace, by an InferenceService in Standard mode."""

    storage_uri: StorageUri
    """Where its files are, for example hf://Qwen/Qwen3-8B, pvc://models/qwen, s3://bucket/path or oci://image."""
    format: ModelFormat = ModelFormat.VLLM
    """vLLM for the runtime kserve-vllmserver, huggingface for kserve-huggingfaceserver and others like it. Several
    GPUs, a chat template and adapters are for vLLM alone."""
    runtime: ObjectName | None = None
    """Name of the ServingRuntime. Without it KServe chooses one by the format, and of format vLLM it is
    kserve-vllmserver, or one that the flow brings where the cluster's KServe has none."""
    gpu: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each server; 0 serves on CPU."""
    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Resource name of a GPU."""
    max_model_len: Annotated[int, Field(ge=256, le=10_000_000)] | None = None
    """Longest prompt and answer together, in tokens; the model's own limit without it, which may not fit the GPU."""
    chat_template: ConfigMapKeyRef | None = None
    """Jinja template by which the server turns messages into a prompt; the model's own without it."""
    adapters: Annotated[list[Adapter], Field(max_length=32)] = []
    """LoRA adapters that the server offers beside the model; needs KServe 0.16 or later."""
    adapter: ObjectName | None = None
    """The adapter that the flow asks; the model itself without it."""
    args: Annotated[list[Argument], Field(max_length=100)] = []
    """Further arguments of the server, for example --quantization=fp8. Prefix caching is on: conversations share their
    system prompt."""
    replicas: ModelReplicas = ModelReplicas()
    """How many servers run."""
    autoscaling: ModelAutoscaling = ModelAutoscaling()
    """When servers are added."""
    resources: Resources = Resources(requests={"cpu": "4", "memory": "16Gi"})
    """What each server asks of its node besides GPUs. Of a runtime that the flow does not bring, cpu and memory without
    a limit may reach four times the request: KServe's runtimes have limits of 1 CPU and 2Gi otherwise."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, through which the processes of a server on several GPUs talk; it counts as memory."""
    cache_claim: ObjectName | None = None
    """PersistentVolumeClaim for what the server compiles and downloads, so that the next start finds it; with several
    servers it must allow ReadWriteMany."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=20)] = {}
    """Labels of the nodes that may serve it."""
    tolerations: Annotated[list[Toleration], Field(max_length=20)] = []
    """Taints of nodes that may serve it all the same."""
    service_account_name: ObjectName | None = None
    """ServiceAccount whose Secrets open the storage (a Hugging Face token, S3 keys)."""
    warm_up: WarmUp = WarmUp()
    """When a server that has just started takes traffic."""

    @model_validator(mode="after")
    def _serves_what_it_says(self) -> Self:
        names = [one.name for one in self.adapters]
        findings = [
            Finding(("adapters", number, "name"), f"{name!r} is used before; give each adapter a name of its own")
            for number, name in enumerate(names)
            if name in names[:number]
        ]
        if self.adapter is not None and self.adapter not in names:
            findings.append(
                Finding(("adapter",), f"{self.adapter!r} is none of adapters; add it there, or leave it out")
            )
        if self.format is not ModelFormat.VLLM:
            findings.extend(self._for_vllm_alone())
        if findings:
            raise RuleBroken(*findings)
        return self

    def _for_vllm_alone(self) -> Iterator[Finding]:
        if self.adapters:
            yield Finding(("adapters",), "only format vLLM serves adapters; leave them out, or change format")
        if self.chat_template is not None:
            yield Finding(("chatTemplate",), "only format vLLM takes a chat template; leave it out, or change format")
        if self.gpu > 1:
            message = f"{self.gpu} GPUs, but only format vLLM spreads a model over them; give 1, or change format"
            yield Finding(("gpu",), message)

    cel: ClassVar = [
        (
            "self.adapters.all(a, self.adapters.exists_one(b, b.name == a.name))",
            "adapters must have names of their own",
        ),
        (
            "!has(self.adapter) || self.adapters.exists(a, a.name == self.adapter)",
            "adapter must be one of adapters",
        ),
        ("size(self.adapters) == 0 || self.format == 'vLLM'", "only format vLLM serves adapters"),
        ("!has(self.chatTemplate) || self.format == 'vLLM'", "only format vLLM takes a chat template"),
        ("self.gpu <= 1 || self.format == 'vLLM'", "only format vLLM spreads a model over several GPUs"),
    ]


class IntentServer(Spec):
    """A server for the intent classifier, by an InferenceService in Standard mode."""

    storage_uri: StorageUri
    """Where the trained classifier is: an artefact, or a folder with one, for example s3://models/shop-support."""
    format: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=63)] = "chatflow-intent"
    """Model format. For chatflow-intent the flow brings the runtime; by another one KServe chooses."""
    runtime: ObjectName | None = None
    """Name of another ServingRuntime."""
    replicas: Replicas = Replicas()
    """How many servers run; between two different numbers a HorizontalPodAutoscaler chooses by CPU."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "512Mi"})
    """What each server asks of its node."""


ModelRole = Literal["llm", "backup", "intent"]
"""What a model is for."""
