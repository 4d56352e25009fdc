"""Routes through Envoy, model servers by KServe, figures by Prometheus, and scaling on them by KEDA."""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

from e2e.harness.manifests import deployment, pod_spec, service, web_container
from e2e.harness.workspace import Workspace


def ask(port: int, host: str, **headers: str) -> str:
    """The body of GET / through the gateway on `port`; OSError when it is not a 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", "/", headers={"Host": host, **named})
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"{host} answers {response.status}: {body[:200]}")
        return body
    finally:
        connection.close()


def test_a_route_splits_by_weight_and_a_header_overrides_it(workspace: Workspace) -> None:
    workspace.target.require("contour")
    port = workspace.target.bed_port("gateway")
    image = workspace.target.image("busybox")
    for variant in ("a", "b"):
        workspace.apply(deployment(variant, pod_spec(web_container(image, variant))), service(variant))
    for variant in ("a", "b"):
        workspace.wait_rollout("deployment", variant)
    host = f"{workspace.name}.example.com"

    def backend(name: str, weight: int = 1) -> dict[str, Any]:
        return {"name": name, "port": 80, "weight": weight}

    header = {"type": "Exact", "name": "x-chatflow-variant", "value": "b"}
    rules = [
        {"matches": [{"headers": [header]}], "backendRefs": [backend("b")]},
        {"backendRefs": [backend("a", 80), backend("b", 20)]},
    ]
    workspace.apply(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "chat"},
            "spec": {
                "parentRefs": [{"name": "contour", "namespace": "projectcontour"}],
                "hostnames": [host],
                "rules": rules,
            },
        }
    )
    workspace.eventually("Envoy serves the route", lambda: ask(port, host))
    assert {ask(port, host, x_chatflow_variant="b") for _ in range(30)} == {"b"}
    counts = Counter(ask(port, host) for _ in range(500))
    # 100 expected; 5 standard deviations of a binomial are 45.
    assert 55 <= counts["b"] <= 145, counts


def test_kserve_makes_a_model_server_ready_and_reachable(workspace: Workspace) -> None:
    workspace.target.require("kserve")
    model = web_container(workspace.target.image("busybox"), "a prediction") | {
        "name": "kserve-container",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
    }
    workspace.apply(
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {
                "name": "intent",
                "annotations": {
                    "serving.kserve.io/deploymentMode": "Standard",
                    "serving.kserve.io/autoscalerClass": "external",
                },
            },
            "spec": {"predictor": {"minReplicas": 1, **pod_spec(model)}},
        }
    )
    workspace.wait_condition("inferenceservice", "intent", "Ready", 90.0)
    with workspace.port_forward("service/intent-predictor", 80) as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"a prediction"


def test_prometheus_scrapes_a_pod_and_keda_scales_on_its_figure(workspace: Workspace) -> None:
    for addon in ("prometheus", "keda"):
        workspace.target.require(addon)
    port = workspace.target.bed_port("prometheus")
    metrics = web_container(workspace.target.image("busybox"), "chatflow_test_waiting 30\n", path="metrics.txt")
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics.txt"}
    idle = web_container(workspace.target.image("busybox"), "idle")
    workspace.apply(
        deployment("queue", pod_spec(metrics), annotations=scraped), deployment("model", pod_spec(idle), replicas=None)
    )
    expression = f'sum(chatflow_test_waiting{{namespace="{workspace.name}"}})'
    query = urllib.parse.urlencode({"query": expression})

    def value() -> float | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as response:
            results = json.load(response)["data"]["result"]
        return float(results[0]["value"][1]) if results else None

    assert workspace.eventually("Prometheus has scraped the pod", value) == 30
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": "http://127.0.0.1:9090",
            "query": expression,
            "threshold": "10",
            "ignoreNullValues": "false",
        },
    }
    workspace.apply(
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "model"},
            "spec": {
                "scaleTargetRef": {"name": "model"},
                "minReplicaCount": 0,
                "maxReplicaCount": 3,
                "pollingInterval": 2,
                "triggers": [trigger],
            },
        }
    )
    workspace.wait_condition("scaledobject", "model", "Ready")
    workspace.eventually("30 waiting at 10 a replica make 3", lambda: len(workspace.pod_names("app=model")) == 3, 90.0)
