"""The managed state server: one Redis, or three under Sentinel."""

from __future__ import annotations

from chatflow_api import v1alpha1 as api

from chatflow_operator.objects import STATEFUL_SET, Manifest
from chatflow_operator.projection import quantity
from chatflow_operator.resources import pods
from chatflow_operator.resources.configmap import redis_files
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.resources.volumeclaim import claim_spec

SHARE_OF_MEMORY = 0.75
"""The rest is for copy-on-write while the append-only file is rewritten, and for clients' buffers."""
_UNTIL_SERVER_ENDS = 'n=0; while [ "$n" -lt 50 ] && redis-cli ping >/dev/null 2>&1; do n=$((n + 1)); sleep 0.5; done'
_PING = 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -p {port} ping | grep -q PONG'
_CAN_FAIL_OVER = """export REDISCLI_AUTH="$REDIS_PASSWORD"
redis-cli -p {port} sentinel ckquorum primary | grep -q ^OK
redis-cli -p {port} info sentinel | grep -q 'name=primary,.*slaves=[{replicas}-9]'"""
"""A sentinel learns of replicas from the primary, every ten seconds, and forgets none. One that does not know of all
cannot put them behind another primary: they would stay behind the old one, and writes would want for a replica."""


def redis(frame: Frame, managed: api.ManagedRedis) -> Manifest:
    """Servers with an append-only file on a volume each."""
    claim = {
        "metadata": {"name": "data", "labels": frame.selector(Part.REDIS)},
        "spec": {"accessModes": ["ReadWriteOnce"], **claim_spec(managed.storage)},
    }
    spec = {
        "replicas": int(managed.replicas),
        "serviceName": frame.name(Part.REDIS),
        "podManagementPolicy": "Parallel",
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": frame.selector(Part.REDIS)},
        "template": _template(frame, managed),
        "volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": managed.reclaim.value, "whenScaled": "Retain"},
    }
    return frame.object(STATEFUL_SET, Part.REDIS, spec=spec)


def _template(frame: Frame, managed: api.ManagedRedis) -> Manifest:
    containers = [_server(frame, managed)]
    more: Manifest = {}
    if managed.replicas > 1:
        containers.append(_sentinel(frame))
        # A sentinel stands still while it looks a name up, each second for a server that is away; after two seconds it
        # mistrusts its clock and acts on nothing for thirty. So a lookup takes one second at most.
        resolver = [{"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"}]
        more = {"affinity": {"podAntiAffinity": _apart(frame)}, "dnsConfig": {"options": resolver}}
    spec = pods.pod_spec(
        frame,
        user=pods.REDIS_USER,
        containers=containers,
        volumes=[
            {"name": "files", "configMap": {"name": frame.name(Part.REDIS), "defaultMode": 0o555}},
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        terminationGracePeriodSeconds=30,
        **more,
    )
    return pods.template(
        frame, Part.REDIS, spec, hashed=[redis_files(frame)["data"], frame.content.get(frame.password_key)]
    )


def _server(frame: Frame, managed: api.ManagedRedis) -> Manifest:
    return pods.container(
        frame,
        "redis",
        frame.images.redis,
        command=["/bin/sh", "/etc/redis/redis.sh"],
        ports=[{"name": "redis", "containerPort": pods.REDIS_PORT, "protocol": "TCP"}],
        env=[*_environment(frame, managed), {"name": "REDIS_MAXMEMORY", "value": str(_max_memory(managed))}],
        resources=pods.resources(managed.resources),
        startupProbe=_ping(pods.REDIS_PORT, periodSeconds=1, timeoutSeconds=5, failureThreshold=300),
        readinessProbe=_ping(pods.REDIS_PORT, periodSeconds=10, timeoutSeconds=5),
        livenessProbe={"tcpSocket": {"port": "redis"}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        lifecycle={"preStop": {"exec": {"command": ["/bin/sh", "/etc/redis/handover.sh"]}}},
        volumeMounts=_mounts(),
    )


def _sentinel(frame: Frame) -> Manifest:
    managed = frame.managed_redis or api.ManagedRedis()
    return pods.container(
        frame,
        "sentinel",
        frame.images.redis,
        command=["/bin/sh", "/etc/redis/sentinel.sh"],
        ports=[{"name": "sentinel", "containerPort": pods.SENTINEL_PORT, "protocol": "TCP"}],
        env=_environment(frame, managed),
        # Little is used, but at once: it must not be held up either.
        resources={"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        startupProbe=_ping(pods.SENTINEL_PORT, periodSeconds=1, timeoutSeconds=5, failureThreshold=120),
        readinessProbe={
            "exec": {"command": ["/bin/sh", "-ec", _can_fail_over(managed)]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        livenessProbe={
            "tcpSocket": {"port": "sentinel"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        # It is needed until the server beside it has handed over.
        lifecycle={"preStop": {"exec": {"command": ["/bin/sh", "-c", _UNTIL_SERVER_ENDS]}}},
        volumeMounts=_mounts(),
    )


def _can_fail_over(managed: api.ManagedRedis) -> str:
    return _CAN_FAIL_OVER.format(port=pods.SENTINEL_PORT, replicas=managed.replicas - 1)


def _environment(frame: Frame, managed: api.ManagedRedis) -> list[Manifest]:
    return [
        pods.redis_password(frame),
        {"name": "REDIS_SERVICE", "value": frame.name(Part.REDIS)},
        {"name": "REDIS_REPLICAS", "value": str(int(managed.replicas))},
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
    ]


def _mounts() -> list[Manifest]:
    return [
        {"name": "data", "mountPath": "/data"},
        {"name": "files", "mountPath": "/etc/redis", "readOnly": True},
        {"name": "run", "mountPath": "/run/redis"},
    ]


def _ping(port: int, **timing: int) -> Manifest:
    return {"exec": {"command": ["/bin/sh", "-c", _PING.format(port=port)]}, **timing}


def _max_memory(managed: api.ManagedRedis) -> int:
    """Bytes; 0 without a limit."""
    limit = quantity(managed.resources.limits.get("memory", "0"))
    return int(float(limit or 0) * SHARE_OF_MEMORY)


def _apart(frame: Frame) -> Manifest:
    term = {"labelSelector": {"matchLabels": frame.selector(Part.REDIS)}, "topologyKey": "kubernetes.io/hostname"}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
