"""Flows for tests: as small as it gets, and with everything that a cluster can be asked for."""

from __future__ import annotations

from typing import Any

from chatflow_operator.objects import CHILDREN, Manifest, Name
from chatflow_operator.observation import Observed
from chatflow_operator.plan import Environment, frame_of, read_flow
from chatflow_operator.resources.frame import Frame
from chatflow_operator.settings import Images

UID = "5f0c1e9a-0000-4000-8000-000000000001"
ALL_APIS = frozenset(kind.kind for kind in CHILDREN if kind.is_optional)
IMAGES = Images(
    runtime="example.com/runtime:1",
    builder="example.com/builder:1",
    redis="example.com/redis:7",
    intent="example.com/intent:1",
    vllm="example.com/vllm:1",
    warm_up="example.com/warm-up:1",
    pull_secrets=("registry",),
)
ENVIRONMENT = Environment(IMAGES, prometheus_namespace="monitoring")

FULL: Manifest = {
    "locale": "en",
    "gateway": {
        "replicas": {"min": 3, "max": 9},
        "autoscaling": {"by": "keda", "cpuPercent": 60},
        "route": {"parentRefs": [{"name": "public", "namespace": "edge"}], "hostnames": ["chat.example.com"]},
        "messages": {
            "webhook": {"url": "http://inbox.crm.svc:8000/bot?v=1", "secretRef": {"name": "hooks", "key": "messages"}}
        },
    },
    "state": {"redis": {"managed": {"replicas": 3, "storage": {"size": "2Gi", "storageClassName": "fast"}}}},
    "dialogue": {
        "slots": [{"name": "number", "ask": "Which order?", "pattern": "[0-9]+"}],
        "actions": [
            {
                "name": "order",
                "intent": "order",
                "slots": ["number"],
                "http": {
                    "url": "https://orders.example.com/v1/{number}",
                    "secretRef": {"name": "orders", "key": "token"},
                },
                "reply": "It is {response.state}.",
            }
        ],
        "handoff": {
            "webhook": {
                "url": "https://desk.example.com:8443/hooks",
                "secretRef": {"name": "desk", "key": "hook"},
                "timeout": "5s",
            },
            "agentSecretRef": {"name": "desk", "key": "agents"},
            "phrases": ["help me"],
        },
    },
    "knowledge": {
        "sources": [
            {"configMap": {"name": "faq"}},
            {"persistentVolumeClaim": {"claimName": "handbook", "path": "english"}},
        ]
    },
    "models": {
        "intent": {"encoder": "none", "kserve": {"storageUri": "pvc://shop-data/artefacts"}},
        "llm": {
            "kserve": {
                "storageUri": "hf://Qwen/Qwen3-8B",
                "maxModelLen": 8192,
                "chatTemplate": {"name": "templates", "key": "chat.jinja"},
                "adapters": [{"name": "polite", "storageUri": "hf://example/polite"}],
                "adapter": "polite",
                "args": ["--quantization=fp8"],
                "replicas": {"min": 1, "max": 4},
                "cacheClaim": "compiled",
                "nodeSelector": {"gpu": "l4"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "serviceAccountName": "hugging-face",
            }
        },
        "backup": {
            "openAI": {
                "baseURL": "http://small.models.svc:8000/v1",
                "model": "small",
                "apiKeySecretRef": {"name": "backup", "key": "key"},
            }
        },
    },
    "moderation": {"wordLists": [{"name": "words", "key": "words.txt"}]},
    "storage": {"accessMode": "ReadWriteMany", "size": "4Gi"},
    "observability": {"prometheus": {"url": "http://prometheus.monitoring.svc:9090"}},
}
SMALL: Manifest = {"locale": "en", "state": {"redis": {"managed": {"replicas": 1}}}}
EXTERNAL: Manifest = {
    "state": {"redis": {"external": {"urlSecretRef": {"name": "state", "key": "url"}}}},
    "models": {"llm": {"openAI": {"baseURL": "https://llm.example.com/v1", "model": "large"}}},
}
REFERENCES = {
    Name("ConfigMap", "faq"): {"faq.yaml": "aaaa"},
    Name("ConfigMap", "words"): {"words.txt": "bbbb"},
    Name("ConfigMap", "templates"): {"chat.jinja": "ffff"},
    Name("Secret", "orders"): {"token": "cccc"},
    Name("Secret", "backup"): {"key": "dddd"},
    Name("Secret", "hooks"): {"messages": "gggg"},
    Name("Secret", "desk"): {"hook": "hhhh", "agents": "iiii"},
    Name("Secret", "state"): {"url": "eeee"},
}


def body(spec: Manifest, **metadata: Any) -> Manifest:
    """A flow as the API server holds it."""
    return {
        "apiVersion": "chatflow.dev/v1alpha1",
        "kind": "ChatFlow",
        "metadata": {
            "name": "shop",
            "namespace": "sales",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "1",
            **metadata,
        },
        "spec": spec,
    }


def frame(spec: Manifest, **metadata: Any) -> Frame:
    """What builders are given for a flow whose references all exist."""
    return frame_of(read_flow(body(spec, **metadata)), Observed(references=REFERENCES), ENVIRONMENT)
