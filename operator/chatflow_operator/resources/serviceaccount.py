"""The ServiceAccount that the flow's pods run as. It has no rights, and its token is not mounted."""

from __future__ import annotations

from chatflow_operator.objects import SERVICE_ACCOUNT, Manifest
from chatflow_operator.resources.frame import Frame, Part


def account(frame: Frame) -> Manifest:
    """Named like the flow, so that image pull secrets and cloud identities can be given to it."""
    name = frame.flow.metadata.name
    return frame.object(SERVICE_ACCOUNT, Part.PODS, name=name, automountServiceAccountToken=False)
