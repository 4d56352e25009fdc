"""Deployments: the gateways, and the worker beside them."""

from __future__ import annotations

from chatflow_operator.objects import DEPLOYMENT, Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part

PRE_STOP_S = 5
"""Between the end of readiness and SIGTERM: load balancers learn in this time that the gateway leaves."""
GRACE_MARGIN_S = 10
STARTUP_DEADLINE_S = 60
"""After this a gateway takes traffic with whatever it has."""
STARTUP_PERIOD_S = 1


def gateway(frame: Frame) -> Manifest:
    """Gateways, without a number of replicas: that is the autoscaler's."""
    labels = frame.selector(Part.GATEWAY)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}
    spec = {
        "selector": {"matchLabels": labels},
        "strategy": strategy,
        "minReadySeconds": 1,
        "revisionHistoryLimit": 3,
        "template": _gateway_template(frame),
    }
    return frame.object(DEPLOYMENT, Part.GATEWAY, spec=spec)


def _gateway_template(frame: Frame) -> Manifest:
    volumes, mounts = pods.reference_volumes(frame)
    container = pods.container(
        frame,
        "gateway",
        frame.images.runtime,
        args=["--role", "gateway"],
        ports=[
            {"name": "http", "containerPort": pods.GATEWAY_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": pods.ADMIN_PORT, "protocol": "TCP"},
        ],
        env=[*_environment(frame), {"name": "CHATFLOW_STARTUP_DEADLINE_S", "value": str(STARTUP_DEADLINE_S)}],
        resources=pods.resources(frame.spec.gateway.resources),
        # The gateway itself stops waiting at its deadline; twice that is one that hangs.
        startupProbe=pods.http_probe(
            "/readyz", pods.ADMIN_PORT, periodSeconds=STARTUP_PERIOD_S, failureThreshold=2 * STARTUP_DEADLINE_S
        ),
        readinessProbe=pods.http_probe("/readyz", pods.ADMIN_PORT, periodSeconds=3, failureThreshold=2),
        livenessProbe=pods.http_probe(
            "/livez", pods.ADMIN_PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
        lifecycle={"preStop": {"exec": {"command": ["sleep", str(PRE_STOP_S)]}}},
        volumeMounts=[
            {"name": "config", "mountPath": pods.CONFIG_DIR, "readOnly": True},
            {"name": "data", "mountPath": pods.ARTEFACTS_DIR, "subPath": "artefacts", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  The container's own.
            *mounts,
        ],
    )
    spec = pods.pod_spec(
        frame,
        containers=[container],
        volumes=[pods.config_volume(frame), pods.data_volume(frame), {"name": "tmp", "emptyDir": {}}, *volumes],
        terminationGracePeriodSeconds=PRE_STOP_S + round(frame.config.gateway.drain_s) + GRACE_MARGIN_S,
        topologySpreadConstraints=pods.spread(frame, Part.GATEWAY),
        **pods.together(frame),
    )
    return pods.template(frame, Part.GATEWAY, spec, hashed=_read_at_start(frame), scraped=True)


def worker(frame: Frame) -> Manifest:
    """One worker: it answers what waits in the inboxes, sends closing notices and moves records to the volume."""
    volumes, mounts = pods.reference_volumes(frame)
    container = pods.container(
        frame,
        "worker",
        frame.images.runtime,
        args=["--role", "worker"],
        ports=[{"name": "admin", "containerPort": pods.ADMIN_PORT, "protocol": "TCP"}],
        env=_environment(frame),
        # Model and index are loaded with the first message that waits.
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        startupProbe=pods.http_probe("/readyz", pods.ADMIN_PORT, periodSeconds=2, failureThreshold=60),
        livenessProbe=pods.http_probe(
            "/livez", pods.ADMIN_PORT, periodSeconds=10, timeoutSeconds=5, failureThreshold=6
        ),
        volumeMounts=[
            {"name": "config", "mountPath": pods.CONFIG_DIR, "readOnly": True},
            {"name": "data", "mountPath": pods.ARTEFACTS_DIR, "subPath": "artefacts", "readOnly": True},
            {"name": "data", "mountPath": pods.RECORDS_DIR, "subPath": "records"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  The container's own.
            *mounts,
        ],
    )
    spec = pods.pod_spec(
        frame,
        containers=[container],
        volumes=[pods.config_volume(frame), pods.data_volume(frame), {"name": "tmp", "emptyDir": {}}, *volumes],
        terminationGracePeriodSeconds=30,
        **pods.together(frame),
    )
    body = {
        "replicas": 1,
        # The old worker lets go of its partitions before the new one takes them.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": frame.selector(Part.WORKER)},
        "template": pods.template(frame, Part.WORKER, spec, hashed=_read_at_start(frame), scraped=True),
    }
    return frame.object(DEPLOYMENT, Part.WORKER, spec=body)


def _environment(frame: Frame) -> list[Manifest]:
    plain = {
        "CHATFLOW_CONFIG": f"{pods.CONFIG_DIR}/runtime.json",
        "CHATFLOW_SECRETS_DIR": pods.SECRETS_DIR,
        "CHATFLOW_CONFIGMAPS_DIR": pods.CONFIGMAPS_DIR,
        "CHATFLOW_ARTEFACTS_DIR": pods.ARTEFACTS_DIR,
        "CHATFLOW_SINK_DIR": pods.RECORDS_DIR,
        "CHATFLOW_HOST": "0.0.0.0",  # noqa: S104  A pod's own network.
    }
    return [*({"name": name, "value": value} for name, value in plain.items()), *pods.state_environment(frame)]


def _read_at_start(frame: Frame) -> list[object]:
    """What a pod reads when it starts. Knowledge and examples are not among it: they reload in place."""
    from_files = {key: value for key, value in frame.content.items() if key in frame.start_references()}
    return [frame.config.model_dump(mode="json"), from_files]
