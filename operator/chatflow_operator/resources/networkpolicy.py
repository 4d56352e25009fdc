"""NetworkPolicies: nothing may pass but what a flow needs. Model servers are KServe's and are left out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from chatflow_operator.objects import NETWORK_POLICY, Manifest
from chatflow_operator.resources import pods
from chatflow_operator.resources.frame import Frame, Part

_ANYWHERE = [{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]
_DNS = [
    {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    # Behind the Service's port 53 the cluster's own servers may listen on another one, and that is what a policy sees.
    {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ]
    },
]
_DEFAULT_PORTS = {"http": 80, "https": 443}


def policies(frame: Frame) -> list[Manifest]:
    """One that denies all but DNS, then one for each part that needs more."""
    found = [_default(frame), _gateway(frame), _worker(frame)]
    if frame.managed_redis is not None:
        found.append(_redis(frame))
    return found


def _default(frame: Frame) -> Manifest:
    parts = [Part.BUILD.value, Part.GATEWAY.value, Part.REDIS.value, Part.WORKER.value]
    ours = {"key": "app.kubernetes.io/component", "operator": "In", "values": parts}
    spec = {
        "podSelector": {"matchLabels": frame.selector(), "matchExpressions": [ours]},
        "policyTypes": ["Ingress", "Egress"],
        "egress": _DNS,
    }
    return frame.object(NETWORK_POLICY, Part.PODS, spec=spec)


def _gateway(frame: Frame) -> Manifest:
    ingress = [{"ports": _ports(pods.GATEWAY_PORT)}, _scraping(frame)]
    return _policy(frame, Part.GATEWAY, ingress, [*_to_state(frame), *_to_named(frame)])


def _worker(frame: Frame) -> Manifest:
    return _policy(frame, Part.WORKER, [_scraping(frame)], [*_to_state(frame), *_to_named(frame)])


def _redis(frame: Frame) -> Manifest:
    ports = _ports(pods.REDIS_PORT, pods.SENTINEL_PORT)
    clients = [_pods(frame, part) for part in (Part.GATEWAY, Part.WORKER, Part.REDIS)]
    egress = [{"to": [_pods(frame, Part.REDIS)], "ports": ports}]
    return _policy(frame, Part.REDIS, [{"from": clients, "ports": ports}], egress)


def _policy(frame: Frame, part: Part, ingress: list[Manifest], egress: list[Manifest]) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": frame.selector(part)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }
    return frame.object(NETWORK_POLICY, part, spec=spec)


def _scraping(frame: Frame) -> Manifest:
    rule: Manifest = {"ports": _ports(pods.ADMIN_PORT)}
    if frame.prometheus_namespace is not None:
        rule["from"] = [_namespace(frame.prometheus_namespace)]
    return rule


def _to_state(frame: Frame) -> list[Manifest]:
    if frame.managed_redis is not None:
        return [{"to": [_pods(frame, Part.REDIS)], "ports": _ports(pods.REDIS_PORT, pods.SENTINEL_PORT)}]
    # The address stands in a Secret that the operator keeps no copy of; replicas of a cluster may be anywhere.
    return [{"to": _ANYWHERE}]


def _to_named(frame: Frame) -> list[Manifest]:
    """Models, business APIs and webhooks, each once."""
    rules: list[Manifest] = []
    for url in sorted(set(_urls(frame))):
        for rule in _to_url(url, frame.flow.metadata.namespace):
            if rule not in rules:
                rules.append(rule)
    return rules


def _urls(frame: Frame) -> Iterator[str]:
    if frame.config.gateway.auth.jwt is not None:
        yield frame.config.gateway.auth.jwt.jwks_url
    for model in (frame.config.llm, frame.config.backup):
        if model is not None:
            yield model.base_url
    if frame.config.intent.server is not None:
        yield frame.config.intent.server.base_url
    for action in frame.spec.dialogue.actions:
        yield action.http.url
    if (webhook := frame.spec.gateway.messages.webhook) is not None:
        yield webhook.url
    if (handoff := frame.spec.dialogue.handoff) is not None:
        yield handoff.webhook.url


def _to_url(url: str, namespace: str) -> Iterator[Manifest]:
    """Rules for a URL's host. A policy sees the port of a pod, not that of its Service: pods are let through whole."""
    # Placeholders stand in the path alone; urlsplit refuses some of what may stand there.
    parts = urlsplit(url.split("{", 1)[0])
    host = parts.hostname or ""
    ports = _ports(parts.port or _DEFAULT_PORTS[parts.scheme])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.removesuffix(".").split(".")
        if len(labels) == 1:
            yield {"to": [_namespace(namespace)]}
        elif len(labels) == 2 or labels[2] == "svc":
            yield {"to": [_namespace(labels[1])]}
        if len(labels) == 2 or (len(labels) > 2 and labels[2] != "svc"):
            yield {"to": _ANYWHERE, "ports": ports}
    else:
        yield {"to": [{"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}], "ports": ports}


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


def _pods(frame: Frame, part: Part) -> Manifest:
    return {"podSelector": {"matchLabels": frame.selector(part)}}


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
