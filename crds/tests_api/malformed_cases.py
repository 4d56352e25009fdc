"""The cases of malformed.yaml, for the unit tests and for the scenario on a real API server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from chatflow_api.v1alpha1 import API_VERSION, KIND


class Refuser(StrEnum):
    """The first on a cluster that refuses a case."""

    CRD = "crd"
    WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Case:
    """A manifest with one mistake."""

    id: str
    manifest: dict[str, Any]
    field: str
    """What `chatflow validate` names."""
    by: Refuser
    at: str
    """Where the API server reports it."""


def read_cases() -> list[Case]:
    """All of them, in the order of the file."""
    rows = yaml.safe_load(Path(__file__).with_name("malformed.yaml").read_text(encoding="utf-8"))
    return [_case(row) for row in rows]


def _case(row: dict[str, Any]) -> Case:
    metadata = row.get("metadata", {"name": "shop"})
    manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": row["spec"]}
    return Case(row["id"], manifest, row["field"], Refuser(row["by"]), row.get("at", row["field"]))
