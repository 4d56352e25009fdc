"""Workers that tell a real receiver, over the stores of a case; pauses are noted and then skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chatflow_api.runtime_config import WebhookConfig
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.webhooks import HttpWebhook
from chatflow_runtime.domain.deliveries import Delivery, Hook
from chatflow_runtime.domain.signature import keys_of
from chatflow_runtime.hook_worker import HookWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import HookReader
from chatflow_runtime.web.webhooks import body_of
from prometheus_client import CollectorRegistry
from tests_runtime.state_cases import Case

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FLOW = "flow-key"


@dataclass
class Postman:
    """A worker that tells, and what it needs."""

    worker: HookWorker
    ownership: Ownership
    task: asyncio.Task[None]
    registry: CollectorRegistry
    pauses_s: list[float] = field(default_factory=list)

    def count(self, outcome: str, hook: Hook = Hook.MESSAGES) -> float:
        """Attempts with an outcome."""
        labels = {"hook": hook.value, "outcome": outcome}
        return self.registry.get_sample_value("chatflow_webhook_deliveries_total", labels) or 0.0


@asynccontextmanager
async def telling(
    case: Case,
    urls: Mapping[Hook, str],
    name: str = "worker",
    *,
    secret: str = SECRET,
    timeout_s: float = 20.0,
    reader: HookReader | None = None,
    on_pause: Callable[[float], None] | None = None,
    are_pauses_skipped: bool = True,
) -> AsyncIterator[Postman]:
    """A worker with all partitions that are free."""
    registry, pauses_s = CollectorRegistry(), list[float]()

    def later(seconds: float, then: Callable[[], None]) -> None:
        pauses_s.append(seconds)
        if on_pause is not None:
            on_pause(seconds)
        if are_pauses_skipped:
            asyncio.get_running_loop().call_soon(then)

    async def unreached(_: Delivery) -> None:
        return

    ownership = case.ownership(name)
    await ownership.refresh()
    async with open_session() as session:
        webhooks = {
            hook: HttpWebhook(
                WebhookConfig(url=url, secret="-", timeout_s=timeout_s),
                keys_of(secret),
                session,
                body_of,
                case.time.clock,
            )
            for hook, url in urls.items()
        }
        worker = HookWorker(
            reader or case.hooks,
            ownership,
            webhooks,
            Metrics(registry),
            case.time.clock,
            FLOW,
            unreached,
            later=later,
            jitter=lambda: 0.0,
        )
        task = asyncio.create_task(worker.run())
        try:
            yield Postman(worker, ownership, task, registry, pauses_s)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
