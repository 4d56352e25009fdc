"""Cluster DNS: CoreDNS as a Deployment behind the Service address that the kubelet writes into pods."""

from __future__ import annotations

from .kubectl import Manifest
from .node import DNS_IP

IMAGE = "chatflow.test/coredns:bed"
_LABELS = {"k8s-app": "kube-dns"}
_COREFILE = """\
.:5353 {
  errors
  health :8080
  ready :8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    pods insecure
    ttl 5
  }
  cache 5
  loadbalance
}
"""


def manifests() -> list[Manifest]:
    """What runs CoreDNS, with only the rights that it needs."""
    subject = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    rules = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named("coredns")},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": role,
            "subjects": [subject],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named("coredns"), "data": {"Corefile": _COREFILE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _named("kube-dns"),
            "spec": {
                "selector": _LABELS,
                "clusterIP": DNS_IP,
                "ports": [
                    {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP"},
                    {"name": "dns-tcp", "port": 53, "targetPort": 5353, "protocol": "TCP"},
                ],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _named("coredns"),
            "spec": {
                "selector": {"matchLabels": _LABELS},
                "template": {"metadata": {"labels": _LABELS}, "spec": _pod()},
            },
        },
    ]


def _pod() -> Manifest:
    container = {
        "name": "coredns",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "corefile", "mountPath": "/etc/coredns"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "terminationGracePeriodSeconds": 1,
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [{"name": "corefile", "configMap": {"name": "coredns"}}],
    }


def _named(name: str) -> Manifest:
    return {"name": name, "namespace": "kube-system", "labels": _LABELS}
