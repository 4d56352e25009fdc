"""Which web origins may talk to the gateway: CORS headers for HTTP, the Origin check for WebSockets.

Browsers alone send Origin, and no page can forge it or the Host header; other clients are not concerned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Headers = list[tuple[bytes, bytes]]
"""Response headers as ASGI has them, names in lower case."""

EXPOSED = b"x-request-id, retry-after"
"""Response headers that scripts of other origins may read."""
MAX_AGE = b"7200"
"""How long a browser may keep a preflight's answer, in seconds; the longest that Chromium takes."""


class Origins:
    """The manifest's allowedOrigins, ready to be asked."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self.is_open = "*" in allowed
        self._pattern = re.compile("|".join(_pattern(origin) for origin in allowed) or r"(?!)", re.IGNORECASE)
        self.vary: Headers = [] if self.is_open else [(b"vary", b"origin")]
        """What every response says, with an Origin or without, so that shared caches keep them apart."""

    def allows(self, origin: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a page of this origin may use the gateway; the gateway's own pages always may."""
        return self.is_open or is_own(origin, headers) or self._pattern.fullmatch(origin) is not None

    def response_headers(self, origin: bytes, headers: Mapping[bytes, bytes]) -> Headers:
        """The CORS headers of a response to a request with this Origin: none when it is not allowed."""
        if self.is_open:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        if not self.allows(origin.decode("latin-1"), headers):
            return self.vary
        return [
            *self.vary,
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
        ]

    def preflight_headers(self, wanted: bytes) -> Headers:
        """The answer to a preflight of an allowed origin. Request headers are granted as asked for: none of them gives
        a page any power, and OpenAI's client in a browser sends a dozen of its own."""
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", MAX_AGE),
        ]


def is_own(origin: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether the page came from this gateway: its host and port are those that the request was sent to.

    The scheme is left out, since TLS usually ends at a proxy; X-Forwarded-Host counts because such a proxy may
    replace Host, and a page in a browser can set neither.
    """
    host = origin.partition("://")[2].lower().encode("latin-1", "replace")
    return host != b"" and host in (headers.get(b"host", b"").lower(), headers.get(b"x-forwarded-host", b"").lower())


def _pattern(origin: str) -> str:
    # A `*` stands for one or more whole labels of a host name, so that https://*.example.com takes neither
    # https://example.com nor https://evil-example.com.
    return r"[a-z0-9-]+(?:\.[a-z0-9-]+)*".join(re.escape(part) for part in origin.split("*"))
