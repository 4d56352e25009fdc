"""Services: the gateways' and the state server's."""

from __future__ import annotations

from chatflow_operator.objects import SERVICE, Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part


def gateway(frame: Frame) -> Manifest:
    """The chat, on port 80 inside the cluster."""
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"}]
    return frame.object(SERVICE, Part.GATEWAY, spec={"selector": frame.selector(Part.GATEWAY), "ports": ports})


def redis(frame: Frame) -> Manifest:
    """Names for the state servers. They find each other by these before they are ready."""
    ports = [{"name": "redis", "port": pods.REDIS_PORT, "targetPort": "redis", "protocol": "TCP"}]
    managed = frame.managed_redis
    if managed is not None and managed.replicas > 1:
        ports.append({"name": "sentinel", "port": pods.SENTINEL_PORT, "targetPort": "sentinel", "protocol": "TCP"})
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": frame.selector(Part.REDIS),
        "ports": ports,
    }
    return frame.object(SERVICE, Part.REDIS, spec=spec)
