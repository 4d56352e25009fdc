"""Builders of the small workloads that scenarios run."""

from __future__ import annotations

from typing import Any

from e2e.cluster.kubectl import Manifest

# What the restricted Pod Security profile asks of a container.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(image: str, *command: str, **more: Any) -> Manifest:
    """A container that passes the restricted profile."""
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": RESTRICTED,
        **more,
    }


def web_container(image: str, text: str, path: str = "index.html", port: int = 8080) -> Manifest:
    """busybox's httpd, serving `text` under /`path`."""
    script = 'printf "%s" "$TEXT" > /www/$FILE && exec httpd -f -p $PORT -h /www'
    environment = {"TEXT": text, "FILE": path, "PORT": str(port)}
    return container(
        image,
        "sh",
        "-c",
        script,
        env=[{"name": name, "value": value} for name, value in environment.items()],
        ports=[{"containerPort": port, "name": "http"}],
        readinessProbe={"httpGet": {"path": f"/{path}", "port": port}, "periodSeconds": 1},
        volumeMounts=[{"name": "www", "mountPath": "/www"}],
    )


def pod_spec(*containers: Manifest, **more: Any) -> Manifest:
    """A pod's spec that ends at once, with the folder that `web_container` serves from."""
    return {
        "terminationGracePeriodSeconds": 1,
        "containers": list(containers),
        "volumes": [{"name": "www", "emptyDir": {}}],
        **more,
    }


def pod(name: str, spec: Manifest, labels: dict[str, str] | None = None, **metadata: Any) -> Manifest:
    """A Pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name, **(labels or {})}, **metadata},
        "spec": spec,
    }


def deployment(name: str, spec: Manifest, replicas: int | None = 1, **metadata: Any) -> Manifest:
    """A Deployment; `replicas` None leaves the number to an autoscaler."""
    template = {"metadata": {"labels": {"app": name}, **metadata}, "spec": spec}
    body: Manifest = {"selector": {"matchLabels": {"app": name}}, "template": template}
    if replicas is not None:
        body["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}


def service(name: str, port: int = 80, target: int = 8080, **spec: Any) -> Manifest:
    """A Service for the pods with label app=`name`."""
    ports = [{"name": "http", "port": port, "targetPort": target}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }
