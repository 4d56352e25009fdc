"""What every builder is given: the flow, what is derived from it, and the images its pods run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from chatflow_api import v1alpha1 as api
from chatflow_api.names import LABEL_COMPONENT, LABEL_FLOW, flow_labels
from chatflow_api.runtime_config import RuntimeConfig

from chatflow_operator.objects import Kind, Manifest
from chatflow_operator.references import secrets_of, sources_of
from chatflow_operator.settings import Images


class Part(StrEnum):
    """The parts of a flow; they name its objects and its pods' component label."""

    GATEWAY = "gateway"
    WORKER = "worker"
    BUILD = "build"
    REDIS = "redis"
    CONFIG = "config"
    DATA = "data"
    PODS = "pods"
    LLM = "llm"
    BACKUP = "backup"
    INTENT = "intent"


@dataclass(frozen=True, slots=True)
class Frame:
    """One flow, with what its objects have in common."""

    flow: api.ChatFlow
    config: RuntimeConfig
    images: Images
    content: Mapping[str, str]
    """Digests of the ConfigMap and Secret keys that the flow refers to, by `Kind/name/key`."""
    prometheus_namespace: str | None = None
    """The namespace whose pods may read metrics; any when None."""

    @property
    def spec(self) -> api.ChatFlowSpec:
        """The flow's spec."""
        return self.flow.spec

    @property
    def annotations(self) -> Mapping[str, str]:
        """The flow's own annotations."""
        return (self.flow.metadata.model_extra or {}).get("annotations") or {}

    def start_references(self) -> frozenset[str]:
        """The keys of `content` that pods read when they start."""
        spec, external = self.spec, self.spec.state.redis.external
        refs = [("Secret", ref) for _, ref in secrets_of(spec)]
        if external is not None:
            refs.append(("Secret", external.url_secret_ref))
        return frozenset({f"{kind}/{ref.name}/{ref.key}" for kind, ref in refs} | {self.password_key})

    @property
    def password_key(self) -> str:
        """Under which `content` holds which generated password there is."""
        return f"Secret/{self.name(Part.REDIS)}/password"

    def build_references(self) -> frozenset[str]:
        """The keys of `content` that artefacts are made from."""
        maps = [source.config_map for _, source in sources_of(self.spec) if source.config_map is not None]
        wanted = {(one.name, key) for one in maps for key in one.keys}
        whole = {one.name for one in maps if not one.keys}
        parts = {key: key.split("/", 2) for key in self.content}
        return frozenset(
            key
            for key, (kind, name, item) in parts.items()
            if kind == "ConfigMap" and (name in whole or (name, item) in wanted)
        )

    @property
    def managed_redis(self) -> api.ManagedRedis | None:
        """The flow's own state server; None when it uses another one."""
        redis = self.spec.state.redis
        return None if redis.external is not None else redis.managed or api.ManagedRedis()

    def name(self, part: str) -> str:
        """The name of the object of a part."""
        return f"{self.flow.metadata.name}-{part}"

    def selector(self, part: Part | None = None) -> dict[str, str]:
        """The labels that choose a part's pods, or all of the flow's."""
        labels = {LABEL_FLOW: self.flow.metadata.name}
        return labels if part is None else {**labels, LABEL_COMPONENT: part.value}

    def labels(self, part: str) -> dict[str, str]:
        """The labels of everything that belongs to a part."""
        return {
            "app.kubernetes.io/name": "chatflow",
            "app.kubernetes.io/part-of": "chatflow",
            LABEL_COMPONENT: str(part),
            **flow_labels(self.flow.metadata.name),
        }

    def object(self, kind: Kind, part: str, *, name: str | None = None, **body: Any) -> Manifest:
        """A manifest of the flow's: named, labelled and owned by it."""
        return {**self.unowned(kind, part, name=name, **body), **self._owned(kind, part, name)}

    def unowned(self, kind: Kind, part: str, *, name: str | None = None, **body: Any) -> Manifest:
        """The same without an owner: deleting the flow leaves it."""
        metadata = {
            "name": name or self.name(part),
            "namespace": self.flow.metadata.namespace,
            "labels": self.labels(part),
        }
        return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **body}

    def _owned(self, kind: Kind, part: str, name: str | None) -> Manifest:
        metadata = self.unowned(kind, part, name=name)["metadata"]
        return {"metadata": {**metadata, "ownerReferences": [owner_reference(self.flow.metadata)]}}


def owner_reference(flow: api.Metadata) -> dict[str, Any]:
    """The reference by which the garbage collector deletes what a flow owns."""
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "name": flow.name,
        "uid": flow.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def digest(*values: Any) -> str:
    """Sixteen hex digits that stand for the values, whatever the order of their keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
