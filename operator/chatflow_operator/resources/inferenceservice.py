"""InferenceServices (KServe) for the language model, its backup and the intent classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal

from chatflow_api import v1alpha1 as api
from chatflow_api.names import ANNOTATION_CONFIG_HASH, LABEL_COMPONENT, inference_service

from chatflow_operator.objects import INFERENCE_SERVICE, Manifest
from chatflow_operator.projection import quantity
from chatflow_operator.resources import pods, servingruntime, warmup
from chatflow_operator.resources.frame import Frame, Part, digest
from chatflow_operator.served_models import language_models

LEAVING_S = 10
"""Gateways are told that a server goes, and stop asking, within this time."""
INTENT_DRAIN_S = 30
"""How long an intent server answers what it has accepted, once told to stop."""
KSERVE_LIMITS: Mapping[str, str] = {"cpu": "1", "memory": "2Gi"}
"""The limits of KServe's own runtimes."""
HEADROOM = 4
"""How many times its request a server may use where it must have a limit."""
HOME_DIR = "/tmp"  # noqa: S108  An emptyDir.
ADAPTERS_DIR, CACHE_DIR, TEMPLATE_DIR = "/mnt/adapters", "/var/cache/model-server", "/etc/chatflow/chat-template"


def services(frame: Frame, runtimes: frozenset[str], unscaled: frozenset[api.ModelRole]) -> list[Manifest]:
    """One for each model of the flow that KServe serves. `runtimes` are KServe's for all namespaces, `unscaled` those
    models whose number of servers is fixed."""
    found = [_language_model(frame, role, model, runtimes) for role, model, _ in language_models(frame.spec)]
    intent = frame.spec.models.intent.kserve
    if intent is not None:
        found.append(_intent(frame, intent))
    for manifest in found:
        role = manifest["metadata"]["labels"][LABEL_COMPONENT]
        manifest["metadata"]["annotations"] = _annotations(role, is_scaled=role not in unscaled)
    return found


def _intent(frame: Frame, server: api.IntentServer) -> Manifest:
    runtime = servingruntime.of_intent(frame, server)
    model: Manifest = {
        "modelFormat": {"name": server.format},
        "storageUri": server.storage_uri,
        "resources": _resources(server.resources, is_brought=runtime == frame.name(Part.INTENT)),
        **_runtime(runtime),
        **_staying(LEAVING_S),
    }
    predictor = {"model": model, "terminationGracePeriodSeconds": LEAVING_S + INTENT_DRAIN_S + 5}
    return _service(frame, "intent", server.replicas, predictor)


def _language_model(frame: Frame, role: api.ModelRole, wanted: api.LanguageModel, runtimes: frozenset[str]) -> Manifest:
    served = wanted.kserve
    assert served is not None, "chosen by it"  # noqa: S101
    runtime = servingruntime.of_language_model(frame, role, served, runtimes)
    # A server that is told to stop breaks its answers off (vLLM by default): it is told when the last one has ended.
    stays_s = LEAVING_S + math.ceil(api.duration_s(wanted.answer_deadline))
    model: Manifest = {
        "modelFormat": {"name": served.format.value},
        "resources": _resources(served.resources, is_brought=runtime == frame.name(role), extended=_gpus(served)),
        **_runtime(runtime),
        "args": list(_arguments(served)),
        "env": list(_environment(served)),
        **warmup.probes(served),
        **_staying(stays_s),
    }
    predictor: Manifest = {
        "model": model,
        "containers": [warmup.sidecar(frame, role, served)],
        "terminationGracePeriodSeconds": stays_s + 5,
    }
    if served.adapters:
        places = [("/mnt/models", served.storage_uri)]
        places += [(f"{ADAPTERS_DIR}/{one.name}", one.storage_uri) for one in served.adapters]
        predictor["storageUris"] = [{"uri": uri, "mountPath": path} for path, uri in places]
    else:
        model["storageUri"] = served.storage_uri
    mounts, predictor["volumes"] = _volumes(served)
    predictor["volumes"].append(warmup.volume(frame))
    model["volumeMounts"] = mounts
    if served.chat_template is not None:
        ref = served.chat_template
        # A server reads its template when it starts.
        read = frame.content.get(f"ConfigMap/{ref.name}/{ref.key}")
        predictor["annotations"] = {ANNOTATION_CONFIG_HASH: digest(read)}
    if served.node_selector:
        predictor["nodeSelector"] = dict(served.node_selector)
    if served.tolerations:
        predictor["tolerations"] = [one.model_dump(mode="json", exclude_none=True) for one in served.tolerations]
    if served.service_account_name is not None:
        predictor["serviceAccountName"] = served.service_account_name
    return _service(frame, role, served.replicas, predictor)


def _runtime(name: str | None) -> Manifest:
    return {} if name is None else {"runtime": name}


def _resources(wanted: api.Resources, *, is_brought: bool, extended: Mapping[str, str] | None = None) -> Manifest:
    """The resources of a model's container. KServe adds what its runtime names besides, and a request above a limit is
    refused: each limit gets a request, and each request a limit where the runtime is not the flow's own, for a limit of
    the runtime's can be raised from here but not removed."""
    limits = dict(wanted.limits)
    if not is_brought:
        limits = {**_roomy(wanted.requests), **limits}
    # Of an extended resource request and limit must agree.
    parts = {"requests": {**wanted.limits, **wanted.requests}, "limits": limits}
    found = {name: {**amounts, **(extended or {})} for name, amounts in parts.items()}
    return {name: amounts for name, amounts in found.items() if amounts}


def _roomy(requests: Mapping[str, str]) -> dict[str, str]:
    """Limits far above requests, for KServe's limits not to throttle or end a server; not below those either."""
    found: dict[str, str] = {}
    for name, least in KSERVE_LIMITS.items():
        if name in requests:
            number = requests[name].rstrip("mkMGTi")
            amount = f"{Decimal(number) * HEADROOM:f}{requests[name][len(number) :]}"
            found[name] = max(amount, least, key=lambda one: quantity(one) or Decimal(0))
    return found


def _gpus(served: api.KServeModel) -> dict[str, str]:
    return {served.gpu_resource: str(served.gpu)} if served.gpu else {}


def _staying(seconds: int) -> Manifest:
    """For how long a server goes on after its pod is asked to go."""
    return {"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}}


def _environment(served: api.KServeModel) -> Iterator[Manifest]:
    """Where a user without a line in /etc/passwd, who has neither a home nor a name, keeps what is compiled."""
    cache = f"{HOME_DIR}/.cache/vllm" if served.cache_claim is None else CACHE_DIR
    found = {"HOME": HOME_DIR, "USER": "model-server", "VLLM_CACHE_ROOT": cache}
    if served.cache_claim is not None:
        found["HF_HOME"] = CACHE_DIR
    yield from ({"name": name, "value": value} for name, value in found.items())


def _arguments(served: api.KServeModel) -> Iterator[str]:
    if served.format is api.ModelFormat.VLLM:
        yield "--enable-prefix-caching"
        if served.max_model_len is not None:
            yield f"--max-model-len={served.max_model_len}"
        if served.chat_template is not None:
            yield f"--chat-template={TEMPLATE_DIR}/{served.chat_template.key}"
        if served.gpu > 1:
            yield f"--tensor-parallel-size={served.gpu}"
        if served.adapters:
            yield "--enable-lora"
            yield "--lora-modules"
            yield from (f"{one.name}={ADAPTERS_DIR}/{one.name}" for one in served.adapters)
    elif served.max_model_len is not None:
        yield f"--max_model_len={served.max_model_len}"
    # The last of two equal arguments counts: the user's own.
    yield from served.args


def _volumes(served: api.KServeModel) -> tuple[list[Manifest], list[Manifest]]:
    """(mounts, volumes) of the model's container."""
    # By the name that KServe's own runtimes give it, so that theirs and this one become one.
    memory = {"medium": "Memory", "sizeLimit": served.shared_memory}
    mounts: list[Manifest] = [{"name": "devshm", "mountPath": "/dev/shm"}]  # noqa: S108  Where processes share memory.
    volumes: list[Manifest] = [{"name": "devshm", "emptyDir": memory}]
    mounts.append({"name": "tmp", "mountPath": HOME_DIR})
    volumes.append({"name": "tmp", "emptyDir": {}})
    if served.cache_claim is not None:
        mounts.append({"name": "cache", "mountPath": CACHE_DIR})
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": served.cache_claim}})
    if served.chat_template is not None:
        ref = served.chat_template
        mounts.append({"name": "chat-template", "mountPath": TEMPLATE_DIR, "readOnly": True})
        items = [{"key": ref.key, "path": ref.key}]
        volumes.append({"name": "chat-template", "configMap": {"name": ref.name, "items": items}})
    return mounts, volumes


def _service(frame: Frame, role: api.ModelRole, replicas: api.Replicas, predictor: Manifest) -> Manifest:
    name = inference_service(frame.flow.metadata.name, role)
    pulling = [{"name": one} for one in frame.images.pull_secrets]
    body = {
        # KServe takes no zero here; who wakes models scales to it.
        "minReplicas": max(replicas.min, 1),
        "maxReplicas": replicas.max,
        "automountServiceAccountToken": False,
        "securityContext": pods.security(pods.USER),
        **predictor,
        **(pods.together(frame) if role in pods.roles_on_data(frame) else {}),
        **({"imagePullSecrets": pulling} if pulling else {}),
    }
    return frame.object(INFERENCE_SERVICE, Part(role), name=name, spec={"predictor": body})


def _annotations(role: str, *, is_scaled: bool) -> dict[str, str]:
    found = {
        # Standard mode cannot be changed later, and the installation's default may be another.
        "serving.kserve.io/deploymentMode": "Standard",
        # KServe's own autoscaling knows neither queues nor zero; with none it sets the lowest number itself.
        "serving.kserve.io/autoscalerClass": "external" if is_scaled else "none",
    }
    if role != Part.INTENT:
        # Pods get them from here. KServe's own switch would name the port of Knative's proxy.
        found |= {"prometheus.io/scrape": "true", "prometheus.io/port": str(warmup.SERVER_PORT)}
    return found
