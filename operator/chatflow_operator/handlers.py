"""Registration with kopf, which watches, keeps watches alive, peers and serves the admission webhook.

Nothing else knows kopf. Handlers only pass on what they see: `reconcile` decides what to look at, `plan` what to do.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import kopf
import structlog
from chatflow_api.names import LABEL_MANAGED_BY, MANAGED_BY
from prometheus_client import CollectorRegistry

from chatflow_operator import admission
from chatflow_operator.certificates import self_signed
from chatflow_operator.cluster import KubernetesCluster, until_open
from chatflow_operator.errors import ApiError, Unavailable
from chatflow_operator.metrics import Metrics
from chatflow_operator.objects import CHATFLOW, CHILDREN, CONFIG_MAP, SECRET, Kind
from chatflow_operator.peering import rivals
from chatflow_operator.plan import Environment
from chatflow_operator.reconcile import Reconciler, periodically
from chatflow_operator.settings import Settings, Webhook

log = structlog.get_logger()

PEERS_S, DISCOVER_S, VERIFY_S, RESYNC_S, CERTIFICATE_S = 5.0, 15.0, 60.0, 600.0, 10.0
LOAD_ATTEMPTS = 30
STUCK_S = 120.0
"""Without a look for so long although flows wait, the process is taken for stuck and started anew."""
WEBHOOK_ID = "validate-chatflow"
_UNWATCHED_SECRETS = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"
"""Large or many, and never what a flow refers to."""


class Operator:
    """The operator's parts, and what kopf calls of them."""

    def __init__(self, settings: Settings, registry: CollectorRegistry, identity: str) -> None:
        """`identity`: this process among its peers."""
        self.ends = asyncio.Event()
        """Set when the process should end, and be started anew."""
        self._identity = identity
        self._settings = settings
        metrics = Metrics(registry)
        self._cluster = KubernetesCluster(metrics)
        self._reconciler: Reconciler | None = None
        self._metrics = metrics
        self._tasks: list[asyncio.Task[None]] = []

    def register(self, registry: kopf.OperatorRegistry) -> None:
        """Give kopf every handler."""
        kopf.on.login(registry=registry)(_login)
        kopf.on.startup(registry=registry)(self.start)
        kopf.on.cleanup(registry=registry)(self.stop)
        kopf.on.probe(id="reconciler", registry=registry)(self.probe)
        kopf.on.event(CHATFLOW.group, CHATFLOW.version, CHATFLOW.plural, registry=registry)(self.flow_event)
        for kind in CHILDREN:
            _on_event(kind, registry)(self.child_event)
        if self._settings.webhook is not None:
            kopf.on.validate(CHATFLOW.group, CHATFLOW.version, CHATFLOW.plural, id=WEBHOOK_ID, registry=registry)(
                self.validate
            )

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:
        """Configure kopf, reach the API server, and begin to work."""
        _configure(settings, self._settings)
        await until_open(self._cluster)
        environment = Environment(self._settings.images, self._settings.prometheus_namespace)
        reconciler = Reconciler(
            self._cluster,
            environment,
            self._metrics,
            namespaces=self._settings.namespaces,
            new_password=lambda: secrets.token_urlsafe(24),
        )
        self._reconciler = reconciler
        await _patiently(reconciler.load)
        await _patiently(self._look_at_peers)
        work = [
            periodically(PEERS_S, self._look_at_peers, "peers"),
            *(reconciler.work() for _ in range(self._settings.workers)),
            periodically(DISCOVER_S, reconciler.discover, "discover"),
            periodically(VERIFY_S, reconciler.verify, "verify"),
            periodically(RESYNC_S, reconciler.resync, "resync"),
        ]
        webhook = self._settings.webhook
        if webhook is not None:
            settings.admission.server = await self._webhook_server(webhook)
            if webhook.certificates is not None:
                file = Path(webhook.certificates) / "tls.crt"
                look = partial(self._look_at_certificate, file, await asyncio.to_thread(file.read_bytes))
                work.append(periodically(CERTIFICATE_S, look, "certificate"))
        self._tasks = [asyncio.create_task(one) for one in work]
        log.info("operator_ready", namespaces=list(self._settings.namespaces) or "all")

    async def _look_at_peers(self) -> None:
        """Work only while no other operator has a better right to."""
        name, reconciler = self._settings.peering, self._reconciler
        if reconciler is None:
            return
        now, others = datetime.now(UTC), list[str]()
        if name is not None:
            for namespace in self._settings.namespaces or (None,):
                others += rivals(await self._cluster.peers(name, namespace), self._identity, now)
        if others and not reconciler.is_held:
            log.warning("held_by_peers", peers=others)
            reconciler.hold()
        elif not others and reconciler.is_held:
            log.info("works")
            await reconciler.go_on()

    async def _look_at_certificate(self, file: Path, first: bytes) -> None:
        """End the process once its certificate has been replaced: it is read at the start alone."""
        if await asyncio.to_thread(file.read_bytes) != first:
            log.info("certificate_renewed", file=str(file))
            self.ends.set()

    async def _webhook_server(self, webhook: Webhook) -> kopf.WebhookServer:
        if webhook.certificates is not None:
            folder = webhook.certificates
            return kopf.WebhookServer(
                addr="0.0.0.0",  # noqa: S104  A pod's own network.
                port=webhook.port,
                certfile=f"{folder}/tls.crt",
                pkeyfile=f"{folder}/tls.key",
                cafile=f"{folder}/ca.crt",
            )
        pair = self_signed(webhook.service)
        await self._cluster.trust_webhook(webhook.configuration, pair.certificate_file.read_bytes())
        return kopf.WebhookServer(
            addr="0.0.0.0",  # noqa: S104  A pod's own network.
            port=webhook.port,
            certfile=str(pair.certificate_file),
            pkeyfile=str(pair.key_file),
        )

    async def stop(self, **_: Any) -> None:
        """Let the looks under way end, then close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cluster.close()

    async def probe(self, **_: Any) -> dict[str, Any]:
        """Liveness: fails when flows wait and nobody has come round for long."""
        reconciler = self._reconciler
        if reconciler is None:
            return {"state": "starting"}
        if reconciler.is_stuck(STUCK_S):
            raise RuntimeError(f"{len(reconciler.queue)} flows wait and none was looked at for {STUCK_S:g} s")
        return {"state": "working", "flows": len(reconciler.cache), "queue": len(reconciler.queue)}

    async def flow_event(self, type: str | None, body: Mapping[str, Any], **_: Any) -> None:  # noqa: A002  kopf's name.
        """A flow was listed, made, changed or deleted."""
        if self._reconciler is not None:
            self._reconciler.see_flow(_plain(body), is_deleted=type == "DELETED")

    async def child_event(
        self,
        type: str | None,  # noqa: A002  kopf's name.
        body: Mapping[str, Any],
        **_: Any,
    ) -> None:
        """An object that may belong to a flow, or that a flow may refer to."""
        if self._reconciler is None:
            return
        plain = _plain(body)
        if plain["metadata"].get("labels", {}).get(LABEL_MANAGED_BY) == MANAGED_BY:
            self._reconciler.see_child(plain, is_deleted=type == "DELETED")
        elif plain["kind"] in (CONFIG_MAP.kind, SECRET.kind):
            self._reconciler.see_content(plain, is_deleted=type == "DELETED")

    async def validate(
        self, body: Mapping[str, Any], namespace: str | None, warnings: list[str], operation: str = "", **_: Any
    ) -> None:
        """Refuse a flow that could never work; warn of what is not there yet."""
        plain = _plain(body)
        if operation == "DELETE" or "deletionTimestamp" in plain["metadata"]:
            return
        plain["metadata"].setdefault("namespace", namespace or "default")
        try:
            flow = admission.check(plain)
        except admission.Refused as error:
            raise kopf.AdmissionError(str(error), code=422) from error
        try:
            warnings.extend(await admission.remarks(flow, self._cluster))
        except ApiError as error:
            log.warning("references_not_checked", flow=flow.metadata.name, reason=str(error))


async def _patiently(load: Callable[[], Awaitable[None]]) -> None:
    """Load at the start, over again while the API server is too busy: kopf would wait a minute between attempts."""
    for attempt in range(LOAD_ATTEMPTS):
        try:
            return await load()
        except Unavailable as error:
            log.warning("load_failed", attempt=attempt, reason=str(error))
            await asyncio.sleep(1)
    return await load()


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """kopf's own connection: the pod's credentials, else the user's kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """kopf's view of an object as the mapping that it looks into."""
    return {**body, "metadata": dict(body["metadata"])}


def _on_event(kind: Kind, registry: kopf.OperatorRegistry) -> Any:
    return kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)


def _configure(settings: kopf.OperatorSettings, ours: Settings) -> None:
    settings.watching.server_timeout = 120
    settings.watching.client_timeout = 150
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 50
    settings.networking.request_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = 50
    # A worker keeps its place for so long after its last event; by default ten objects a second would pass.
    settings.queueing.idle_timeout = 0.05
    settings.posting.enabled = False
    settings.persistence.finalizer = "chatflow.dev/operator"
    settings.peering.lifetime = 20
    settings.peering.standalone = ours.peering is None
    if ours.peering is not None:
        settings.peering.name = ours.peering
        settings.peering.mandatory = True
        settings.peering.clusterwide = not ours.namespaces
    # Without a right to list CRDs the watches of optional kinds are settled at the start.
    settings.scanning.disabled = bool(ours.namespaces)
    selector = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    for kind in CHILDREN:
        if kind in (CONFIG_MAP, SECRET):
            continue
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
    settings.watching.field_selectors[SECRET.group, SECRET.version, SECRET.plural] = _UNWATCHED_SECRETS
