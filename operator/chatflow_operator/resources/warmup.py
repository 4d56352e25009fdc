"""The warm-up beside a language model: its sidecar, the probes that ask it, and the prompts that it sends."""

from __future__ import annotations

import json
from collections.abc import Mapping

from chatflow_api import v1alpha1 as api
from chatflow_api.names import inference_service
from chatflow_api.system_prompt import system_prompt

from chatflow_operator.objects import Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part

PORT = 8095
PERIOD_S = 2
SERVER_PORT = 8080
"""Where the servers of KServe's runtimes listen."""
LIVENESS: Mapping[api.ModelFormat, str] = {
    api.ModelFormat.VLLM: "/health",
    api.ModelFormat.HUGGING_FACE: "/v2/health/live",
}
"""What the server of each format answers at once however many questions it has."""
SILENT_S = 180
"""A server that says nothing for so long is started anew; it took no traffic since its sidecar noticed."""
PROMPTS_DIR = "/etc/chatflow/warm-up"
_QUESTIONS: Mapping[api.Locale, tuple[str, ...]] = {
    api.Locale.ZH_CN: ("我的订单到哪里了？", "怎么申请退款？"),
    api.Locale.EN: ("Where is my order?", "How do I get a refund?"),
}


def prompts_key(role: api.ModelRole) -> str:
    """Under which the flow's ConfigMap holds the prompts of a model."""
    return f"warm-up-{role}.json"


def prompts(frame: Frame, model: api.LanguageModel) -> str:
    """What the sidecar asks: common questions after the flow's own system prompt, which is what conversations share.
    JSON, lists of chat messages."""
    spec = frame.spec
    system = {"role": "system", "content": system_prompt(model.prompt, spec.dialogue.persona, spec.locale)}
    asked = [[system, {"role": "user", "content": question}] for question in _QUESTIONS[spec.locale]]
    return json.dumps(asked, ensure_ascii=False)


def volume(frame: Frame) -> Manifest:
    """The volume with the prompts."""
    return {"name": "warm-up", "configMap": {"name": frame.name(Part.CONFIG), "defaultMode": 0o444}}


def probes(served: api.KServeModel) -> Manifest:
    """The probes of the model's own container. Two ask the sidecar, which says yes to the process that it has warmed,
    while that answers, and to no other: the kubelet runs the startup probe anew at each start of the container. The
    third asks the server itself, so that a sidecar that is away ends no model; of a runtime that the flow names it is
    not known what it answers, and its own probe stays."""
    failures = max(1, round(api.duration_s(served.warm_up.start_within) / PERIOD_S))
    found = {
        "startupProbe": pods.http_probe(
            "/readyz", PORT, periodSeconds=PERIOD_S, timeoutSeconds=2, failureThreshold=failures
        ),
        "readinessProbe": pods.http_probe(
            "/readyz", PORT, periodSeconds=PERIOD_S, timeoutSeconds=2, failureThreshold=1
        ),
    }
    if served.runtime is None:
        found["livenessProbe"] = pods.http_probe(
            LIVENESS[served.format], SERVER_PORT, periodSeconds=10, timeoutSeconds=10, failureThreshold=SILENT_S // 10
        )
    return found


def sidecar(frame: Frame, role: api.ModelRole, served: api.KServeModel) -> Manifest:
    """The container that asks the server the flow's own prompts before traffic comes."""
    base_path = "/openai/v1" if served.format is api.ModelFormat.HUGGING_FACE else "/v1"
    environment = {
        "URL": f"http://127.0.0.1:{SERVER_PORT}{base_path}",
        "MODEL": served.adapter or inference_service(frame.flow.metadata.name, role),
        "PORT": str(PORT),
        "PROMPTS_FILE": f"{PROMPTS_DIR}/{prompts_key(role)}",
        "DEADLINE_S": f"{api.duration_s(served.warm_up.warm_within):g}",
        "RATIO": f"{served.warm_up.ratio:g}",
    }
    return pods.container(
        frame,
        "warm-up",
        frame.images.warm_up,
        env=[{"name": f"CHATFLOW_WARMUP_{name}", "value": value} for name, value in environment.items()],
        ports=[{"name": "warm-up", "containerPort": PORT, "protocol": "TCP"}],
        resources={"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        livenessProbe=pods.http_probe("/healthz", PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6),
        volumeMounts=[{"name": "warm-up", "mountPath": PROMPTS_DIR, "readOnly": True}],
    )
