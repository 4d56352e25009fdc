"""Volumes from a folder of the node: the objects that local-path-provisioner reads, and its StorageClass."""

from __future__ import annotations

from .kubectl import Manifest

BUSYBOX_IMAGE = "chatflow.test/busybox:bed"
VOLUME_SCRIPTS = "local-path-config"


def helper_pod() -> Manifest:
    """The pod that makes and removes a volume's folder."""
    container = {"name": "helper-pod", "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def manifests() -> list[Manifest]:
    """The default StorageClass and the scripts of the helper pod."""
    scripts = {
        # Open to every user, as pods under the restricted Pod Security profile run as one that nobody knows beforehand.
        "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
    }
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": "local-path",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": VOLUME_SCRIPTS, "namespace": "kube-system"},
            "data": scripts,
        },
    ]
