"""The keys that an identity provider publishes, followed while the gateway runs. Started by `bootstrap`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key

from chatflow_runtime.errors import KeysUnavailable

log = structlog.get_logger()

REFRESH_S = 300.0
SHORTEST_S = 10.0
"""Between two looks, however many tokens name unknown keys."""
TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
ASYMMETRIC = ("RSA", "EC", "OKP")


class _Published(msgspec.Struct):
    """A JSON Web Key Set."""

    keys: list[dict[str, Any]]


_key_set = msgspec.json.Decoder(_Published)


class PublishedKeys:
    """Reads a provider's keys, and gives them to whoever reads its tokens; `misses_key` asks for another look."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, use: Callable[[KeySet], None], misses_key: asyncio.Event
    ) -> None:
        self._url = url
        self._session = session
        self._use = use
        self._misses_key = misses_key

    async def check(self) -> None:
        """Read them once; KeysUnavailable with the reason."""
        self._use(await self._read())

    async def run(self) -> None:
        """Read them again and again, until cancelled; the old ones stay where that fails."""
        while True:
            await asyncio.sleep(SHORTEST_S)
            try:
                async with asyncio.timeout(REFRESH_S - SHORTEST_S):
                    await self._misses_key.wait()
            except TimeoutError:
                pass
            self._misses_key.clear()
            try:
                await self.check()
            except KeysUnavailable as error:
                log.warning("issuer_keys_unavailable", reason=str(error))

    async def _read(self) -> KeySet:
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.get(self._url, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    raise KeysUnavailable(f"{self._url} answered {response.status}; it must give the issuer's keys")
                body = b""
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise KeysUnavailable(f"{self._url} holds more than {MAX_BYTES} bytes; it must be a key set")
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise KeysUnavailable(f"{self._url} cannot be read: {error or type(error).__name__}") from error
        return _usable(self._url, body)


def _usable(url: str, body: bytes) -> KeySet:
    """The asymmetric keys of a key set; others, and kinds that are not known, are left out."""
    try:
        published = _key_set.decode(body)
    except msgspec.DecodeError as error:
        raise KeysUnavailable(f"{url} holds no key set ({error}); it must have RFC 7517's form") from error
    keys: list[Key] = []
    for number, one in enumerate(published.keys):
        if one.get("kty") in ASYMMETRIC and one.get("use", "sig") == "sig":
            try:
                keys.append(import_key(one))
            except (JoseError, ValueError) as error:
                log.warning("issuer_key_left_out", number=number, reason=str(error))
    if not keys:
        raise KeysUnavailable(f"{url} holds no key that tokens could be checked by")
    return KeySet(keys)
