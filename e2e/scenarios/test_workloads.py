"""What a flow's objects need of a cluster: rollouts, probes, names, jobs, volumes, network policies, autoscalers."""

from __future__ import annotations

import urllib.request
from functools import partial

from e2e.cluster.kubectl import KubectlFailed, Manifest
from e2e.harness.manifests import container, deployment, pod, pod_spec, service, web_container
from e2e.harness.workspace import Workspace


def fetch(workspace: Workspace, from_pod: str, url: str) -> str:
    """What `url` answers to a pod; KubectlFailed when it does not within 2 seconds."""
    # Debian's busybox ends in a segmentation fault with wget's own option for this.
    return workspace.kubectl.exec(from_pod, "timeout", "2", "wget", "-q", "-O", "-", url)


def client(workspace: Workspace, name: str = "client", **labels: str) -> Manifest:
    """A pod to ask from."""
    return pod(name, pod_spec(container(workspace.target.image("busybox"), "sleep", "3600")), labels)


def test_a_deployment_rolls_out_behind_its_probes_and_is_found_by_name(workspace: Workspace) -> None:
    image = workspace.target.image("busybox")
    workspace.apply(
        deployment("web", pod_spec(web_container(image, "one")), replicas=2), service("web"), client(workspace)
    )
    workspace.wait_rollout("deployment", "web")
    workspace.wait_condition("pod", "client", "Ready")
    by_name = f"http://web.{workspace.name}.svc.cluster.local/"
    assert workspace.eventually("the Service answers by name", lambda: fetch(workspace, "client", by_name)) == "one"
    assert fetch(workspace, "client", "http://web/") == "one"

    # A version whose readiness probe never passes must not take the place of one that serves.
    broken = web_container(image, "broken") | {"readinessProbe": {"httpGet": {"path": "/none", "port": 8080}}}
    workspace.apply(deployment("web", pod_spec(broken), replicas=2))
    workspace.eventually("a broken pod runs beside the old ones", lambda: len(workspace.pod_names("app=web")) == 3)
    assert _answers(workspace) == {"one"}

    workspace.apply(deployment("web", pod_spec(web_container(image, "two")), replicas=2))
    workspace.wait_rollout("deployment", "web")
    # An old pod that is going may answer until its endpoint has left every table.
    workspace.eventually("the new version alone answers", lambda: _answers(workspace) == {"two"})
    with workspace.port_forward("service/web", 80) as port:
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read() == b"two"


def _answers(workspace: Workspace) -> set[str]:
    return {fetch(workspace, "client", "http://web/") for _ in range(10)}


def test_a_job_runs_to_completion(workspace: Workspace) -> None:
    spec = {**pod_spec(container(workspace.target.image("busybox"), "echo", "done")), "restartPolicy": "Never"}
    template = {"spec": spec}
    workspace.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "train"},
            "spec": {"completions": 2, "parallelism": 2, "template": template},
        }
    )
    workspace.wait_condition("job", "train", "Complete")
    assert workspace.kubectl.run("logs", "job/train").strip() == "done"


def test_a_stateful_set_keeps_its_volume_when_its_pod_goes(workspace: Workspace) -> None:
    image = workspace.target.image("busybox")
    script = "test -f /data/kept || date +%s%N > /data/kept; cat /data/kept; exec sleep 3600"
    keeper = container(image, "sh", "-c", script, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    workspace.apply(
        service("keeper", clusterIP="None"),
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "keeper"},
            "spec": {
                "serviceName": "keeper",
                "replicas": 2,
                "selector": {"matchLabels": {"app": "keeper"}},
                "template": {"metadata": {"labels": {"app": "keeper"}}, "spec": pod_spec(keeper)},
                "volumeClaimTemplates": [claim],
            },
        },
        client(workspace),
    )
    workspace.wait_rollout("statefulset", "keeper")
    before = [workspace.kubectl.run("logs", f"keeper-{index}").strip() for index in (0, 1)]
    assert before[0] != before[1]
    workspace.kubectl.delete("pod", "keeper-0")
    workspace.wait_rollout("statefulset", "keeper")
    assert workspace.kubectl.run("logs", "keeper-0").strip() == before[0]
    workspace.wait_condition("pod", "client", "Ready")
    name = f"keeper-0.keeper.{workspace.name}.svc.cluster.local"
    workspace.eventually("the pod has a name", lambda: workspace.kubectl.exec("client", "nslookup", "-type=a", name))


def test_a_network_policy_lets_through_only_what_it_names(workspace: Workspace) -> None:
    workspace.apply(
        pod("web", pod_spec(web_container(workspace.target.image("busybox"), "inside"))),
        service("web"),
        client(workspace, "friend", role="friend"),
        client(workspace, "stranger"),
    )
    for name in ("web", "friend", "stranger"):
        workspace.wait_condition("pod", name, "Ready")
    for name in ("friend", "stranger"):
        workspace.eventually(f"{name} gets through", partial(_gets_through, workspace, name))
    ingress = {"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}], "ports": [{"port": 8080}]}
    workspace.apply(_policy("web", "web", {"policyTypes": ["Ingress"], "ingress": [ingress]}))
    workspace.eventually("the stranger is kept out", partial(_is_kept_out, workspace, "stranger"))
    assert _gets_through(workspace, "friend")

    to_dns = {
        "to": [{"namespaceSelector": {}}],
        "ports": [{"port": 5353, "protocol": "UDP"}, {"port": 53, "protocol": "UDP"}],
    }
    workspace.apply(_policy("no-way-out", "friend", {"policyTypes": ["Egress"], "egress": [to_dns]}))
    workspace.eventually("the friend may only ask DNS", partial(_is_kept_out, workspace, "friend"))
    assert workspace.kubectl.exec("friend", "nslookup", "-type=a", f"web.{workspace.name}.svc.cluster.local")


def _policy(name: str, app: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec},
    }


def _gets_through(workspace: Workspace, name: str) -> bool:
    try:
        return fetch(workspace, name, "http://web/") == "inside"
    except KubectlFailed:
        return False


def _is_kept_out(workspace: Workspace, name: str) -> bool:
    return not _gets_through(workspace, name)


def test_an_autoscaler_follows_real_cpu_use(workspace: Workspace) -> None:
    workspace.target.require("metrics-server")
    resources = {"requests": {"cpu": "50m"}, "limits": {"cpu": "150m"}}
    busy = container(workspace.target.image("busybox"), "sh", "-c", "while true; do :; done", resources=resources)
    utilization = {"type": "Utilization", "averageUtilization": 50}
    workspace.apply(
        deployment("busy", pod_spec(busy), replicas=None),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "busy"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
                "minReplicas": 1,
                "maxReplicas": 2,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
            },
        },
    )
    workspace.eventually("CPU use brings a second pod", lambda: len(workspace.pod_names("app=busy")) == 2, 150.0)
    workspace.wait_condition("hpa", "busy", "ScalingActive")
