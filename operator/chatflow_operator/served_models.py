"""Which models of a flow KServe serves. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chatflow_api import v1alpha1 as api


@dataclass(frozen=True, slots=True)
class Served:
    """A model that KServe serves, and in how many servers."""

    role: api.ModelRole
    replicas: api.Replicas
    autoscaling: api.ModelAutoscaling | None = None
    """Of a language model."""


def language_models(spec: api.ChatFlowSpec) -> Iterator[tuple[api.ModelRole, api.LanguageModel, api.KServeModel]]:
    """The language models that ask for KServe: what each is for, all of it, and the part about serving."""
    roles: tuple[tuple[api.ModelRole, api.LanguageModel | None], ...] = (
        ("llm", spec.models.llm),
        ("backup", spec.models.backup),
    )
    for role, model in roles:
        if model is not None and model.kserve is not None:
            yield role, model, model.kserve


def served_models(spec: api.ChatFlowSpec) -> Iterator[Served]:
    """All models that ask for KServe."""
    for role, _, served in language_models(spec):
        yield Served(role, served.replicas, served.autoscaling)
    intent = spec.models.intent.kserve
    if intent is not None:
        yield Served("intent", intent.replicas)


def roles_on_volume(spec: api.ChatFlowSpec, claim: str) -> list[api.ModelRole]:
    """The models whose servers mount a PersistentVolumeClaim."""
    uris: dict[api.ModelRole, list[str]] = {}
    for role, _, served in language_models(spec):
        uris[role] = [served.storage_uri, *(one.storage_uri for one in served.adapters)]
        if served.cache_claim is not None:
            uris[role].append(f"pvc://{served.cache_claim}")
    if spec.models.intent.kserve is not None:
        uris["intent"] = [spec.models.intent.kserve.storage_uri]
    return [role for role, named in uris.items() if any(f"{uri}/".startswith(f"pvc://{claim}/") for uri in named)]


def roles_served(spec: api.ChatFlowSpec) -> frozenset[api.ModelRole]:
    """What these models are for."""
    return frozenset(one.role for one in served_models(spec))
