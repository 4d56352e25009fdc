"""The only Kubernetes client: read, server-side apply, delete, list, discover.

Built on `kubernetes.aio`, for its configuration (kubeconfig, in-cluster tokens and their renewal) and its connection
pool. Manifests stay plain mappings: its model classes would cost their memory again for every object.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
from chatflow_api.names import MANAGED_BY
from kubernetes.aio import client, config

from chatflow_operator.errors import ApiError, Conflict, Forbidden, NotFound, Unavailable
from chatflow_operator.metrics import Metrics
from chatflow_operator.objects import (
    CHATFLOW,
    CHILDREN,
    CLUSTER_SERVING_RUNTIME,
    EVENT,
    JOB,
    POD,
    FlowName,
    Kind,
    Manifest,
)

TIMEOUT_S = 10.0
CONNECTIONS = 30
PAGE, METADATA_PAGE = 100, 500
WEBHOOKS = Kind("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
PEERINGS = Kind("kopf.dev/v1", "KopfPeering", "kopfpeerings")
CLUSTER_PEERINGS = Kind("kopf.dev/v1", "ClusterKopfPeering", "clusterkopfpeerings")
_APPLY = "application/apply-patch+yaml"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})


class Cluster(Protocol):
    """What `reconcile` needs of a cluster."""

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """One object; None where there is none of that name."""

    async def apply(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        """Server-side apply: make the object (`uid` None), or take the manifest's fields in the one with this UID.
        Conflict when another object stands there by now."""

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this UID, if it is still there."""

    async def write_status(self, flow: FlowName, uid: str, status: Manifest) -> Manifest:
        """Replace the fields of a flow's status that are the operator's; the flow afterwards."""

    async def post_event(self, namespace: str, event: Manifest) -> None:
        """Make an Event."""

    async def uids(self, kind: Kind, namespace: str | None, selector: str) -> set[str]:
        """The UIDs of the objects of a kind."""

    def all(self, kind: Kind, namespace: str | None, selector: str) -> AsyncIterator[Manifest]:
        """The objects of a kind, page by page."""

    async def optional_kinds(self) -> frozenset[str]:
        """The optional kinds that the cluster has."""

    async def serving_runtimes(self) -> frozenset[str] | None:
        """Names of KServe's runtimes for all namespaces that are not disabled; None where they cannot be read."""

    async def termination_message(self, namespace: str, job: str) -> str:
        """What the last failed pod of a Job said when it ended; empty when nothing is known."""


class KubernetesCluster:
    """A Cluster behind an API server."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._api: client.ApiClient | None = None

    async def open(self) -> None:
        """Read the kubeconfig of KUBECONFIG or of the user, or the pod's own credentials."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        settings.connection_pool_maxsize = CONNECTIONS
        self._api = client.ApiClient(settings)

    async def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            await self._api.close()  # type: ignore[no-untyped-call]

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """One object; None where there is none of that name."""
        try:
            found: Manifest = await self._call("GET", kind.path(namespace, name), "get", kind)
        except NotFound:
            return None
        return found

    async def apply(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        """Server-side apply as the operator. An object that is there is taken by force, but only the one with `uid`."""
        metadata = manifest["metadata"]
        body = manifest if uid is None else {**manifest, "metadata": {**metadata, "uid": uid}}
        query = {"fieldManager": MANAGED_BY, "fieldValidation": "Strict"}
        if uid is not None:
            query["force"] = "true"
        path = kind.path(metadata["namespace"], metadata["name"])
        live: Manifest = await self._call("PATCH", path, "apply", kind, body=body, content=_APPLY, query=query)
        return live

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this UID, if it is still there; its dependents follow."""
        # Of two builds one runs at a time: a Job is gone once its pods are.
        policy = "Foreground" if kind == JOB else "Background"
        body = {"propagationPolicy": policy, "preconditions": {"uid": uid}}
        try:
            await self._call("DELETE", kind.path(namespace, name), "delete", kind, body=body)
        except NotFound:
            return
        except Conflict:
            found = await self.read(kind, namespace, name)
            if found is not None and found["metadata"]["uid"] == uid:
                raise

    async def write_status(self, flow: FlowName, uid: str, status: Manifest) -> Manifest:
        """Server-side apply on the status subresource."""
        metadata = {"name": flow.name, "namespace": flow.namespace, "uid": uid}
        body = {"apiVersion": CHATFLOW.api_version, "kind": CHATFLOW.kind, "metadata": metadata, "status": status}
        query = {"fieldManager": MANAGED_BY, "force": "true"}
        path = CHATFLOW.path(flow.namespace, flow.name) + "/status"
        live: Manifest = await self._call(
            "PATCH", path, "apply_status", CHATFLOW, body=body, content=_APPLY, query=query
        )
        return live

    async def post_event(self, namespace: str, event: Manifest) -> None:
        """Make an Event."""
        await self._call("POST", EVENT.path(namespace), "create", EVENT, body=event)

    async def uids(self, kind: Kind, namespace: str | None, selector: str) -> set[str]:
        """The UIDs of the objects of a kind, by their metadata alone."""
        pages = self._pages(kind, namespace, selector, METADATA_PAGE, _METADATA_ONLY)
        return {item["metadata"]["uid"] async for item in pages}

    async def all(self, kind: Kind, namespace: str | None, selector: str) -> AsyncIterator[Manifest]:
        """The objects of a kind, page by page: whole ones are large."""
        async for item in self._pages(kind, namespace, selector, PAGE, "application/json"):
            yield item

    async def _pages(
        self, kind: Kind, namespace: str | None, selector: str, size: int, accept: str
    ) -> AsyncIterator[Manifest]:
        query = {"labelSelector": selector, "limit": str(size)}
        while True:
            page = await self._call("GET", kind.path(namespace), "list", kind, query=query, accept=accept)
            # An empty list of metadata alone is null.
            for item in page["items"] or ():
                yield item
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def trust_webhook(self, configuration: str, certificate: bytes) -> None:
        """Put the webhook's own certificate into its ValidatingWebhookConfiguration, leaving the rest to the chart."""
        path = WEBHOOKS.path(None, configuration)
        found = await self._call("GET", path, "get", WEBHOOKS)
        bundle = base64.b64encode(certificate).decode()
        hooks = [{"name": hook["name"], "clientConfig": {"caBundle": bundle}} for hook in found["webhooks"]]
        body = {
            "apiVersion": WEBHOOKS.api_version,
            "kind": WEBHOOKS.kind,
            "metadata": {"name": configuration},
            "webhooks": hooks,
        }
        query = {"fieldManager": MANAGED_BY, "force": "true"}
        await self._call("PATCH", path, "apply", WEBHOOKS, body=body, content=_APPLY, query=query)

    async def peers(self, name: str, namespace: str | None) -> Manifest:
        """The operators that share a peering object, as kopf notes them in its status; the cluster's without a
        namespace."""
        kind = CLUSTER_PEERINGS if namespace is None else PEERINGS
        try:
            found = await self._call("GET", kind.path(namespace, name), "get", kind)
        except NotFound:
            return {}
        peers: Manifest = found.get("status", {})
        return peers

    async def optional_kinds(self) -> frozenset[str]:
        """The optional kinds whose API the server has now."""
        found: set[str] = set()
        optional = [kind for kind in CHILDREN if kind.is_optional]
        groups = {group["name"] for group in (await self._call("GET", "/apis", "discover"))["groups"]}
        for version in sorted({kind.api_version for kind in optional if kind.group in groups}):
            try:
                answer = await self._call("GET", f"/apis/{version}", "discover")
            except NotFound:
                continue
            names = {one["name"] for one in answer["resources"]}
            found |= {kind.kind for kind in optional if kind.api_version == version and kind.plural in names}
        return frozenset(found)

    async def serving_runtimes(self) -> frozenset[str] | None:
        """KServe's ClusterServingRuntimes. An operator of some namespaces may not read them."""
        try:
            found = await self._call("GET", CLUSTER_SERVING_RUNTIME.path(None), "list", CLUSTER_SERVING_RUNTIME)
        except (NotFound, Forbidden):
            return None
        return frozenset(one["metadata"]["name"] for one in found["items"] if not one["spec"].get("disabled"))

    async def termination_message(self, namespace: str, job: str) -> str:
        """What the newest failed pod of a Job left as its last words."""
        query = {"labelSelector": f"batch.kubernetes.io/job-name={job}"}
        items = (await self._call("GET", POD.path(namespace), "list", POD, query=query))["items"]
        for pod in sorted(items, key=lambda one: one["metadata"]["creationTimestamp"], reverse=True):
            for container in pod.get("status", {}).get("containerStatuses", ()):
                ended = container.get("state", {}).get("terminated", {})
                if ended.get("exitCode"):
                    return str(ended.get("message") or ended.get("reason") or "").strip()
        return ""

    async def _call(
        self,
        method: str,
        path: str,
        verb: str,
        kind: Kind | None = None,
        *,
        body: Manifest | None = None,
        content: str = "application/json",
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> Any:
        """One request; ApiError when the server refuses or does not answer."""
        assert self._api is not None, "open() comes first"  # noqa: S101
        headers = {"Accept": accept, "Content-Type": content, "User-Agent": MANAGED_BY}
        began_s = time.monotonic()
        code = "none"
        try:
            request = await self._api.param_serialize(
                method, path, header_params=headers, auth_settings=["BearerToken"]
            )
            url = request[1] + (f"?{urlencode(query)}" if query else "")
            response = await self._api.call_api(method, url, request[2], body, _request_timeout=TIMEOUT_S)
            data = await response.read()  # type: ignore[no-untyped-call]
            code = str(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError, client.ApiException) as error:
            raise Unavailable(
                f"{verb} {path}: no answer from the API server ({error or type(error).__name__})"
            ) from error
        finally:
            self._metrics.api_call(verb, str(kind or "discovery"), code, time.monotonic() - began_s)
        return _answer(response.status, data, response.headers, f"{verb} {path}")


def _answer(status: int, data: bytes, headers: Mapping[str, str], what: str) -> Any:
    if 200 <= status < 300:
        try:
            return json.loads(data)
        except ValueError as error:
            raise Unavailable(f"{what}: the answer broke off", status=status) from error
    message = f"{what}: {status} {_message(data)}"
    if status == 403:
        raise Forbidden(message, status=status)
    if status == 404:
        raise NotFound(message, status=status)
    if status == 409:
        raise Conflict(message, status=status)
    if status in _RETRYABLE:
        wait = headers.get("Retry-After", "")
        raise Unavailable(message, status=status, retry_after_s=float(wait) if wait.isdigit() else None)
    raise ApiError(message, status=status)


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data).get("message", ""))
    except (ValueError, AttributeError):
        return data[:200].decode(errors="replace")


async def until_open(cluster: KubernetesCluster, attempts_s: float = 60.0) -> None:
    """Open a cluster's client and wait until the server answers."""
    await cluster.open()
    async with asyncio.timeout(attempts_s):
        while True:
            try:
                await cluster.optional_kinds()
            except Unavailable:
                await asyncio.sleep(1)
            else:
                return
