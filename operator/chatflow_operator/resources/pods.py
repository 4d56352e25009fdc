"""What the flow's pods have in common: the restricted security profile, images, environment, mounted references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chatflow_api import v1alpha1 as api
from chatflow_api.names import ANNOTATION_CONFIG_HASH

from chatflow_operator.objects import Manifest
from chatflow_operator.references import secrets_of, word_lists_of
from chatflow_operator.resources.frame import Frame, Part, digest
from chatflow_operator.served_models import roles_on_volume

USER = 10001
"""The user of the project's images."""
REDIS_USER = 999
"""The user of the public Redis and Valkey images."""
GATEWAY_PORT, ADMIN_PORT, REDIS_PORT, SENTINEL_PORT = 8080, 9090, 6379, 26379
CONFIG_DIR = "/etc/chatflow/config"
SECRETS_DIR = "/etc/chatflow/secrets"
CONFIGMAPS_DIR = "/etc/chatflow/configmaps"
ARTEFACTS_DIR = "/var/lib/chatflow/artefacts"
RECORDS_DIR = "/var/lib/chatflow/records"
PRIMARY = "primary"
"""The name under which Sentinel knows the primary."""

RESTRICTED: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What the restricted Pod Security profile asks of a container, and a read-only root besides."""


def resources(wanted: api.Resources) -> Manifest:
    """A container's resources; parts without a value are left out, as the server leaves them out."""
    parts = {"requests": dict(wanted.requests), "limits": dict(wanted.limits)}
    return {name: amounts for name, amounts in parts.items() if amounts}


def security(user: int) -> Manifest:
    """A pod's security context under the restricted profile."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_spec(frame: Frame, *, user: int = USER, **body: Any) -> Manifest:
    """A pod's spec that passes the restricted profile. Flows call no Kubernetes API, so pods get no token."""
    pulling = [{"name": name} for name in frame.images.pull_secrets]
    return {
        "serviceAccountName": frame.flow.metadata.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(user),
        **({"imagePullSecrets": pulling} if pulling else {}),
        **body,
    }


def template(frame: Frame, part: Part, spec: Manifest, *, hashed: Sequence[Any], scraped: bool = False) -> Manifest:
    """A pod template. `hashed` is what its pods read when they start: a change rolls them."""
    annotations = {ANNOTATION_CONFIG_HASH: digest(*hashed)}
    if scraped:
        annotations |= {"prometheus.io/scrape": "true", "prometheus.io/port": str(ADMIN_PORT)}
    return {"metadata": {"labels": frame.labels(part), "annotations": annotations}, "spec": spec}


def container(frame: Frame, name: str, image: str, **body: Any) -> Manifest:
    """A container under the restricted profile."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": frame.images.pull_policy,
        "securityContext": RESTRICTED,
        **body,
    }


def http_probe(path: str, port: int, **timing: int) -> Manifest:
    """A probe by HTTP."""
    return {"httpGet": {"path": path, "port": port}, **timing}


def state_environment(frame: Frame) -> list[Manifest]:
    """Where the state server is. The password stays in its Secret; Kubernetes puts it into the URL."""
    external = frame.spec.state.redis.external
    if external is not None:
        return [_from_secret("CHATFLOW_REDIS_URL", external.url_secret_ref.name, external.url_secret_ref.key)]
    managed, service = frame.managed_redis, frame.name(Part.REDIS)
    assert managed is not None, "a state server is managed or external"  # noqa: S101  The type guarantees it.
    if managed.replicas == 1:
        url = f"redis://:$(REDIS_PASSWORD)@{service}:{REDIS_PORT}/0"
    else:
        hosts = ",".join(f"{service}-{number}.{service}:{SENTINEL_PORT}" for number in range(managed.replicas))
        url = f"redis+sentinel://:$(REDIS_PASSWORD)@{hosts}/{PRIMARY}/0?sentinel_password=$(REDIS_PASSWORD)"
    return [redis_password(frame), {"name": "CHATFLOW_REDIS_URL", "value": url}]


def redis_password(frame: Frame) -> Manifest:
    """The generated password, as an environment variable."""
    return _from_secret("REDIS_PASSWORD", frame.name(Part.REDIS), "password")


def _from_secret(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def reference_volumes(frame: Frame) -> tuple[list[Manifest], list[Manifest]]:
    """(volumes, mounts) of the Secrets and word lists that gateways read, each key as NAME/KEY."""
    secrets = _projected("secret", [(ref.name, ref.key) for _, ref in secrets_of(frame.spec)])
    lists = _projected("configMap", [(ref.name, ref.key) for _, ref in word_lists_of(frame.spec)])
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    for name, sources, path in (("secrets", secrets, SECRETS_DIR), ("configmaps", lists, CONFIGMAPS_DIR)):
        if sources:
            volumes.append({"name": name, "projected": {"sources": sources, "defaultMode": 0o440}})
            mounts.append({"name": name, "mountPath": path, "readOnly": True})
    return volumes, mounts


def _projected(source: str, keys: Sequence[tuple[str, str]]) -> list[Manifest]:
    by_name: dict[str, list[str]] = {}
    for name, key in keys:
        if key not in by_name.setdefault(name, []):
            by_name[name].append(key)
    return [
        {source: {"name": name, "items": [{"key": key, "path": f"{name}/{key}"} for key in keys]}}
        for name, keys in by_name.items()
    ]


def data_volume(frame: Frame) -> Manifest:
    """The volume that the flow's pods share."""
    return {"name": "data", "persistentVolumeClaim": {"claimName": frame.name(Part.DATA)}}


def config_volume(frame: Frame) -> Manifest:
    """The flow's configuration."""
    return {"name": "config", "configMap": {"name": frame.name(Part.CONFIG), "defaultMode": 0o444}}


def together(frame: Frame) -> Manifest:
    """Where pods go: on one node where the shared volume can be mounted by one alone, else spread out."""
    if frame.spec.storage.access_mode is api.AccessMode.ONE_NODE:
        term = {
            "labelSelector": {"matchLabels": frame.selector(), "matchExpressions": [_mounts_data(frame)]},
            "topologyKey": "kubernetes.io/hostname",
        }
        return {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    return {}


def _mounts_data(frame: Frame) -> Manifest:
    parts = [Part.GATEWAY.value, Part.WORKER.value, Part.BUILD.value, *roles_on_data(frame)]
    return {"key": "app.kubernetes.io/component", "operator": "In", "values": parts}


def roles_on_data(frame: Frame) -> list[api.ModelRole]:
    """The models whose servers mount the volume that the flow's pods share."""
    return roles_on_volume(frame.spec, frame.name(Part.DATA))


def spread(frame: Frame, part: Part) -> list[Manifest]:
    """Spread a part's pods over zones and nodes as far as it goes; a full cluster still takes them."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": frame.selector(part)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
