"""Webhooks over HTTP: ports.Webhook. Wired by `webhook_parts`, called by `hook_worker`.

A delivery is a POST of JSON with the three headers of Standard Webhooks. Only the status of the answer counts; its body
is not read, and redirects are not followed: the address is the manifest's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import aiohttp
from chatflow_api.runtime_config import WebhookConfig
from yarl import URL

from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.signature import signatures
from chatflow_runtime.errors import DeliveryFailed, WebhookGone
from chatflow_runtime.ports import Clock

GONE = 410
_REMEDIES = {
    401: "check the secret on both sides",
    403: "check the secret on both sides",
    404: "check url",
    405: "it has to take POST",
}


class HttpWebhook:
    """One address. `payload` gives a delivery the form in which it is sent."""

    def __init__(
        self,
        config: WebhookConfig,
        keys: Sequence[bytes],
        session: aiohttp.ClientSession,
        payload: Callable[[Delivery], bytes],
        clock: Clock,
    ) -> None:
        self._config = config
        self._url = URL(config.url)
        self._keys = keys
        self._session = session
        self._payload = payload
        self._clock = clock

    async def post(self, delivery_id: str, delivery: Delivery) -> None:
        """Tell it. DeliveryFailed when that is to be tried again, WebhookGone when it is not."""
        body = self._payload(delivery)
        headers = self._headers(delivery_id, body)
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                status = response.status
        except TimeoutError as error:
            raise self._failure(
                f"took longer than {self._config.timeout_s:g} s", "see its load, or raise timeout"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(f"cannot be reached ({type(error).__name__})", "check that it runs") from error
        if status == GONE:
            raise WebhookGone(f"webhook {self._shown} says that it takes this no more (410)")
        if not 200 <= status < 300:
            remedy = "write the final address as url" if 300 <= status < 400 else "see its log"
            raise self._failure(f"answered with status {status}", _REMEDIES.get(status, remedy))

    def _headers(self, delivery_id: str, body: bytes) -> dict[str, str]:
        timestamp_s = self._clock.now_ms() // 1000
        return {
            "Content-Type": "application/json",
            "webhook-id": delivery_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signatures(self._keys, delivery_id, timestamp_s, body),
        }

    @property
    def _shown(self) -> str:
        """Without what follows the path: some addresses carry a token there."""
        return str(self._url.with_query(None))

    def _failure(self, what: str, remedy: str) -> DeliveryFailed:
        return DeliveryFailed(f"webhook {self._shown} {what}; {remedy}")
