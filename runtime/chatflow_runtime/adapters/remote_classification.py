"""Intent classification by the intent server, over kept connections, micro-batched across concurrent turns.

Implements the Classifier port; wired by `bootstrap` where a flow serves its intent model by KServe. One call brings the
intent for routing and the embedding for retrieval. What is late or fails is MISSED, and the turn goes on without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import structlog
from chatflow_api.runtime_config import IntentServerConfig
from chatflow_models.intent.batching import Batcher, BatchFailed, Limits, QueueFull
from chatflow_models.intent.text import gist
from msgspec.structs import replace
from numpy.typing import NDArray

from chatflow_runtime.adapters import intent_wire
from chatflow_runtime.answerers.guard import Guard
from chatflow_runtime.errors import ClassifierUnavailable
from chatflow_runtime.metrics import Fault, Metrics
from chatflow_runtime.ports import MISSED, Classification, Vector

log = structlog.get_logger()

LIMITS = Limits(items=32, size=4000, window_s=0.001, waiting=1024, batches=4)
"""As large as the server's own batches. Several at a time: their connections lead to several replicas, and one that is
stuck holds up no more than its own questions."""
RENEWED_CALLS = 1000
"""One call in so many gives its connection up, so that replicas that were added get their share."""
CHECK_S = 3.0
"""How long the server may take to say that it is ready."""
QUIET_S = 10.0
"""Time without a fault after which the server counts as well again."""
SAME_VECTOR = 0.99
"""Cosine from which two encoders' vectors of the probe count as the same."""


@dataclass(slots=True)
class Probe:
    """What tells whether embeddings go together with an index: what its encoder makes of a text."""

    text: str
    vector: Vector
    fits: dict[str, bool] = field(default_factory=dict)
    """By the version of the server's model, once that has been asked."""

    def judge(self, version: str, vector: NDArray[np.float32] | None) -> None:
        """Compare what a model makes of the text; None: it has no encoder."""
        is_same = vector is not None and len(vector) == len(self.vector) and float(vector @ self.vector) >= SAME_VECTOR
        if not is_same:
            length = 0 if vector is None else len(vector)
            log.warning("embeddings_left_aside", model=version, length=length, index_length=len(self.vector))
        self.fits[version] = is_same


class _Failed(Exception):
    """A call that brought nothing."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


class RemoteClassifier:
    """Asks the server. Belongs to the event loop that calls it."""

    def __init__(
        self,
        config: IntentServerConfig,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        guard: Guard,
        limits: Limits = LIMITS,
    ) -> None:
        self._guard = guard
        self._deadline_s = config.deadline_s
        self._session = session
        self._metrics = metrics
        self._url = f"{config.base_url}/v2/models/{config.model}"
        self._version = "unknown"
        self._probe: Probe | None = None
        self.calls = 0
        """Requests that were sent."""
        self._batcher: Batcher[str, Classification] = Batcher(self._classified, limits, size_of=len)
        self._state = _State(config.base_url)

    @property
    def version(self) -> str:
        """The version of the model that answered last."""
        return self._version

    def swap(self, probe: Probe | None) -> None:
        """Give embeddings that go together with another index from the next batch on; none for one without vectors."""
        self._probe = probe

    async def classify(self, text: str) -> Classification:
        """The classification of a normalised text, or MISSED at the deadline at the latest. Of a long one the server
        is sent what the model reads: others share the call, and a limit that one text exceeds must not cost them."""
        attempt = self._guard.admit()
        if attempt is None:
            self._metrics.intent_fault(Fault.LEFT_ALONE)
            return MISSED
        with attempt:
            try:
                found = await self._asked_for(text)
            except _Failed as error:
                attempt.failed()
                self._metrics.intent_fault(error.fault)
                self._state.missed(error.fault, str(error))
                return MISSED
            attempt.began(0)
        if found.embedding is None and self._probe is not None:
            self._metrics.intent_fault(Fault.MISMATCH)
        self._state.answered()
        return found

    async def check(self) -> None:
        """ClassifierUnavailable unless the server's model is ready."""
        try:
            async with (
                asyncio.timeout(CHECK_S),
                self._session.get(f"{self._url}/ready", allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise ClassifierUnavailable(f"{self._url}/ready answered with status {response.status}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ClassifierUnavailable(f"{self._url} cannot be reached ({type(error).__name__})") from error

    async def _asked_for(self, text: str) -> Classification:
        try:
            async with asyncio.timeout(self._deadline_s):
                (found,) = await self._batcher.submit([gist(text)])
        except TimeoutError as error:
            raise _Failed(Fault.LATE, f"gave no answer in {1000 * self._deadline_s:g} ms") from error
        except QueueFull as error:
            raise _Failed(Fault.OVERLOADED, str(error)) from error
        except BatchFailed as error:
            cause = error.__cause__
            raise _Failed(cause.fault if isinstance(cause, _Failed) else Fault.FAILED, str(error)) from error
        return found

    async def _classified(self, texts: Sequence[str]) -> list[Classification]:
        """The work on a batch. The probe joins it until the model's vectors are known to go together with the index."""
        probe = self._probe
        is_probing = probe is not None and self._version not in probe.fits
        asked = [*texts, probe.text] if probe is not None and is_probing else texts
        wants_embedding = probe is not None and probe.fits.get(self._version, True)
        answer = await self._asked(asked, has_embedding=wants_embedding)
        self._version = answer.version
        found, vectors = answer.classifications[: len(texts)], answer.embeddings
        if probe is not None and is_probing:
            probe.judge(answer.version, None if vectors is None else vectors[-1])
        if probe is None or vectors is None or not probe.fits.get(answer.version, False):
            return found
        return [replace(one, embedding=vector) for one, vector in zip(found, vectors, strict=False)]

    async def _asked(self, texts: Sequence[str], *, has_embedding: bool) -> intent_wire.Answer:
        """One call. Whoever waits for it gives up at a deadline of its own, so that it need not outlast one."""
        body = intent_wire.request(texts, has_embedding=has_embedding)
        try:
            async with asyncio.timeout(self._deadline_s):
                status, length, content = await self._post(body)
        except TimeoutError as error:
            raise _Failed(Fault.LATE, f"gave no answer in {1000 * self._deadline_s:g} ms") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(Fault.FAILED, f"cannot be asked ({type(error).__name__})") from error
        if status == 429:
            raise _Failed(Fault.OVERLOADED, "has too much to do (status 429)")
        if status != 200:
            raise _Failed(Fault.FAILED, f"answered with status {status}")
        try:
            return intent_wire.answer(content, length, len(texts))
        except intent_wire.AnswerInvalid as error:
            raise _Failed(Fault.FAILED, f"gave an answer that {error}") from error

    async def _post(self, body: bytes) -> tuple[int, int | None, bytes]:
        """Status, length of the JSON where bytes follow it, and content."""
        try:
            return await self._post_once(body)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection was most likely closed by the server just as it was used; a new one tells.
            return await self._post_once(body)

    async def _post_once(self, body: bytes) -> tuple[int, int | None, bytes]:
        headers = {"Content-Type": "application/json"}
        self.calls += 1
        if self.calls % RENEWED_CALLS == 0:
            headers["Connection"] = "close"
        url = f"{self._url}/infer"
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            length = response.headers.get(intent_wire.BINARY_HEADER, "")
            return response.status, int(length) if length.isdecimal() else None, await response.read()


class _State:
    """Says when the server begins to fail and when it is well again, not what becomes of each question."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._missed = 0
        self._last_s = 0.0

    def missed(self, fault: Fault, reason: str) -> None:
        """A question was not classified."""
        if not self._missed:
            log.warning("intent_server_failing", server=self._where, fault=fault, reason=reason)
        self._missed += 1
        self._last_s = asyncio.get_running_loop().time()

    def answered(self) -> None:
        """A question was classified."""
        if self._missed and asyncio.get_running_loop().time() - self._last_s >= QUIET_S:
            log.info("intent_server_well", server=self._where, missed=self._missed)
            self._missed = 0
