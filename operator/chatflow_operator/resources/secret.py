"""The Secret with the state server's generated password."""

from __future__ import annotations

import base64

from chatflow_operator.objects import SECRET, Manifest
from chatflow_operator.resources.frame import Frame, Part


def redis_password(frame: Frame, password: str) -> Manifest:
    """Made once and never changed: whoever wants another password deletes it, and all pods that read it roll."""
    data = {"password": base64.b64encode(password.encode()).decode()}
    return frame.object(SECRET, Part.REDIS, type="Opaque", immutable=True, data=data)
