"""ServingRuntimes (KServe) that a flow brings along: the intent server, and vLLM where KServe has none for it."""

from __future__ import annotations

from collections.abc import Iterator

from chatflow_api import v1alpha1 as api
from chatflow_api.inference import MODEL_FORMAT

from chatflow_operator.objects import SERVING_RUNTIME, Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.served_models import language_models

VLLM = "kserve-vllmserver"
"""KServe's own, from 0.20 on."""
HTTP_PORT, GRPC_PORT = 8080, 8081


def of_intent(frame: Frame, server: api.IntentServer) -> str | None:
    """The runtime that an intent server names; None leaves the choice to KServe."""
    return server.runtime or (frame.name(Part.INTENT) if server.format == MODEL_FORMAT else None)


def of_language_model(
    frame: Frame, role: api.ModelRole, served: api.KServeModel, runtimes: frozenset[str]
) -> str | None:
    """The runtime that a language model names; None leaves the choice to KServe."""
    if served.runtime is not None or served.format is not api.ModelFormat.VLLM:
        return served.runtime
    return VLLM if VLLM in runtimes else frame.name(role)


def brought(frame: Frame, runtimes: frozenset[str]) -> Iterator[Manifest]:
    """The runtimes that the flow's models name and that nobody else brings."""
    intent = frame.spec.models.intent.kserve
    if intent is not None and of_intent(frame, intent) == frame.name(Part.INTENT):
        yield _intent(frame)
    for role, _, served in language_models(frame.spec):
        if served.runtime is None and of_language_model(frame, role, served, runtimes) == frame.name(role):
            yield _vllm(frame, role)


def _intent(frame: Frame) -> Manifest:
    ready = "/v2/models/{{.Name}}/ready"
    container = pods.container(
        frame,
        "kserve-container",
        frame.images.intent,
        # The flow's own artefacts are built while the server starts.
        args=[
            "--model_name={{.Name}}",
            f"--http_port={HTTP_PORT}",
            f"--grpc_port={GRPC_PORT}",
            "--wait_s=280",
            # Whom it could not answer before the gateway gives up is refused at once: half the time is for the way.
            f"--max_wait_ms={api.duration_s(frame.spec.models.intent.deadline) * 500:g}",
        ],
        ports=[
            {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        resources={"requests": {"cpu": "500m", "memory": "512Mi"}},
        startupProbe=pods.http_probe(ready, HTTP_PORT, periodSeconds=1, failureThreshold=300),
        readinessProbe=pods.http_probe(ready, HTTP_PORT, periodSeconds=5, timeoutSeconds=5),
        livenessProbe=pods.http_probe(
            "/v2/health/live", HTTP_PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
    )
    return _runtime(frame, Part.INTENT, MODEL_FORMAT, ["v1", "v2", "grpc-v2"], container)


def _vllm(frame: Frame, role: api.ModelRole) -> Manifest:
    container = pods.container(
        frame,
        "kserve-container",
        frame.images.vllm,
        command=["python3", "-m", "vllm.entrypoints.openai.api_server"],
        args=[f"--port={HTTP_PORT}", "--served-model-name={{.Name}}", "--model=/mnt/models"],
        ports=[{"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        resources={"requests": {"cpu": "4", "memory": "16Gi"}},
    )
    return _runtime(frame, Part(role), api.ModelFormat.VLLM.value, ["v2"], container)


def _runtime(frame: Frame, part: Part, model_format: str, protocols: list[str], container: Manifest) -> Manifest:
    port = str(HTTP_PORT)
    spec = {
        "annotations": {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": port,
            "prometheus.kserve.io/port": port,
            "prometheus.kserve.io/path": "/metrics",
        },
        # Only who names it gets it: another flow's version may be older.
        "supportedModelFormats": [{"name": model_format, "version": "1", "autoSelect": False}],
        "protocolVersions": protocols,
        "containers": [container],
    }
    return frame.object(SERVING_RUNTIME, part, spec=spec)
