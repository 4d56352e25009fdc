"""The page at `/`, the reference at `/docs` and the widget's script: read once, sent with an ETag, compressed, and the
pages under a strict policy."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Asset:
    """One file of `static/`, plain and compressed."""

    plain: bytes
    compressed: bytes
    media_type: str
    headers: dict[str, str]

    def response(self, request: Request) -> Response:
        """The file, or 304 when the client has it already."""
        if self.headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self.headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers = {**self.headers, "content-encoding": "gzip"}
            return Response(self.compressed, media_type=self.media_type, headers=headers)
        return Response(self.plain, media_type=self.media_type, headers=self.headers)


def page(name: str) -> Asset:
    """An HTML page. Its Content-Security-Policy lets in its own inline parts, by their hashes, and nothing foreign."""
    plain = _read(name)
    return _asset(plain, "text/html", {"content-security-policy": _policy(plain), "referrer-policy": "same-origin"})


def widget() -> Asset:
    """The widget's script. Pages of any origin may load it; the chat routes decide which of them may talk."""
    headers = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
    return _asset(_read("widget.js"), "text/javascript", headers)


def _read(name: str) -> bytes:
    return resources.files("chatflow_runtime.web").joinpath("static", name).read_bytes()


def _asset(plain: bytes, media_type: str, headers: dict[str, str]) -> Asset:
    common = {
        "etag": f'"{hashlib.sha256(plain).hexdigest()[:20]}"',
        # Kept, but asked for again each time: a new release takes effect at once.
        "cache-control": "no-cache",
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    return Asset(plain, gzip.compress(plain, mtime=0), media_type, common | headers)


def _policy(html: bytes) -> str:
    hashes: dict[bytes, str] = {}
    for kind, content in _INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[kind] = f"{hashes.get(kind, '')} 'sha256-{digest}'"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self'{hashes.get(b'script', '')}",
            f"style-src 'self'{hashes.get(b'style', '')}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        )
    )
