"""InferenceServices (KServe) for the language model, its backup and the intent classifier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chatflow_api import v1alpha1 as api
from chatflow_api.names import inference_service

from chatflow_operator.objects import INFERENCE_SERVICE, Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part

WARM_UP_PORT = 8081
ANNOTATIONS = {
    # Standard mode cannot be changed later, and the installation's default may be another.
    "serving.kserve.io/deploymentMode": "Standard",
    # The number of replicas is the flow's matter: KServe's own autoscaling knows neither queues nor zero.
    "serving.kserve.io/autoscalerClass": "external",
}


@dataclass(frozen=True, slots=True)
class Served:
    """A model that KServe serves."""

    role: api.ModelRole
    format: str
    storage_uri: str
    runtime: str | None
    replicas: api.Replicas
    resources: Manifest
    args: tuple[str, ...] = ()
    service_account: str | None = None


def services(frame: Frame) -> list[Manifest]:
    """One for each model of the flow that KServe serves."""
    return [_service(frame, model) for model in served_models(frame.spec)]


def served_models(spec: api.ChatFlowSpec) -> Iterator[Served]:
    """The models that ask for KServe."""
    roles: tuple[tuple[api.ModelRole, api.LanguageModel | None], ...] = (
        ("llm", spec.models.llm),
        ("backup", spec.models.backup),
    )
    for role, model in roles:
        if model is not None and model.kserve is not None:
            yield _language_model(role, model.kserve)
    intent = spec.models.intent.kserve
    if intent is not None:
        resources = pods.resources(intent.resources)
        yield Served("intent", intent.format, intent.storage_uri, intent.runtime, intent.replicas, resources)


def _language_model(role: api.ModelRole, model: api.KServeModel) -> Served:
    resources = pods.resources(model.resources)
    if model.gpu:
        # Of an extended resource request and limit must agree.
        amount = {model.gpu_resource: str(model.gpu)}
        resources = {name: {**resources.get(name, {}), **amount} for name in ("requests", "limits")}
    return Served(
        role=role,
        format=model.format.value,
        storage_uri=model.storage_uri,
        runtime=model.runtime,
        replicas=model.replicas,
        resources=resources,
        args=tuple(model.args),
        service_account=model.service_account_name,
    )


def _service(frame: Frame, served: Served) -> Manifest:
    model: Manifest = {
        "modelFormat": {"name": served.format},
        "storageUri": served.storage_uri,
        "resources": served.resources,
    }
    if served.runtime is not None:
        model["runtime"] = served.runtime
    if served.args:
        model["args"] = list(served.args)
    predictor: Manifest = {
        "minReplicas": served.replicas.min,
        "maxReplicas": served.replicas.max,
        "model": model,
    }
    if served.service_account is not None:
        predictor["serviceAccountName"] = served.service_account
    if served.role != "intent" and frame.images.warm_up is not None:
        predictor["containers"] = [_warm_up(frame, served)]
    name = inference_service(frame.flow.metadata.name, served.role)
    manifest = frame.object(INFERENCE_SERVICE, Part(served.role), name=name, spec={"predictor": predictor})
    manifest["metadata"]["annotations"] = dict(ANNOTATIONS)
    return manifest


def _warm_up(frame: Frame, served: Served) -> Manifest:
    """The sidecar that asks the server the flow's own prompts before traffic comes."""
    assert frame.images.warm_up is not None, "asked for by the caller"  # noqa: S101
    base_path = "/openai/v1" if served.format == api.ModelFormat.HUGGING_FACE else "/v1"
    environment = {
        "CHATFLOW_WARMUP_URL": f"http://127.0.0.1:8080{base_path}",
        "CHATFLOW_WARMUP_MODEL": inference_service(frame.flow.metadata.name, served.role),
        "CHATFLOW_WARMUP_PORT": str(WARM_UP_PORT),
    }
    return pods.container(
        frame,
        "warm-up",
        frame.images.warm_up,
        env=[{"name": name, "value": value} for name, value in environment.items()],
        ports=[{"name": "warm-up", "containerPort": WARM_UP_PORT, "protocol": "TCP"}],
        resources={"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        readinessProbe=pods.http_probe("/readyz", WARM_UP_PORT, periodSeconds=2, failureThreshold=1),
    )
