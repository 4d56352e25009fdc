"""The PersistentVolumeClaim that a flow's pods share: trained artefacts and records."""

from __future__ import annotations

from typing import Any

from chatflow_api import v1alpha1 as api

from chatflow_operator.objects import VOLUME_CLAIM, Keeping, Manifest, Planned
from chatflow_operator.resources.frame import Frame, Part


def data(frame: Frame) -> Planned:
    """Kept when the flow goes, unless its manifest says that volumes are deleted."""
    storage = frame.spec.storage
    spec = {"accessModes": [storage.access_mode.value], **claim_spec(storage)}
    managed = frame.managed_redis
    if managed is not None and managed.reclaim is api.Reclaim.DELETE:
        return Planned(frame.object(VOLUME_CLAIM, Part.DATA, spec=spec))
    return Planned(frame.unowned(VOLUME_CLAIM, Part.DATA, spec=spec), Keeping.KEPT)


def claim_spec(volume: api.Volume) -> Manifest:
    """Size and class of a claim."""
    spec: dict[str, Any] = {"resources": {"requests": {"storage": volume.size}}}
    if volume.storage_class_name is not None:
        spec["storageClassName"] = volume.storage_class_name
    return spec
