"""The signature of a webhook's deliveries, by the Standard Webhooks specification: the receiver learns that a delivery
comes from this flow, unchanged and of late. Called by `adapters.webhooks`.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from chatflow_runtime.domain.access import lines_of

PREFIX = "whsec_"
"""Stands before a secret in base64."""


def keys_of(secret: str) -> tuple[bytes, ...]:
    """The keys in a Secret's text, one a line: base64 behind `whsec_`, anything else as it is. ValueError when there is
    none, or one is no base64."""
    lines = lines_of(secret)
    if not lines:
        raise ValueError("holds no secret; write one a line")
    return tuple(map(_key, lines))


def signatures(keys: Sequence[bytes], delivery_id: str, timestamp_s: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature for each key, with a space between them."""
    signed = f"{delivery_id}.{timestamp_s}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}" for key in keys)


def _key(line: str) -> bytes:
    if not line.startswith(PREFIX):
        return line.encode()
    encoded = line.removeprefix(PREFIX)
    try:
        # Generators of secrets leave the padding out at times, as other libraries allow.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"holds a secret that begins with {PREFIX} and is no base64 ({error})") from error
    if not key:
        raise ValueError(f"holds a secret with nothing behind {PREFIX}")
    return key
