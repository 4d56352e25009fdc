"""What a flow refers to: ConfigMaps, Secrets and volumes by the field that names them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from chatflow_api import v1alpha1 as api
from chatflow_api.v1alpha1 import ConfigMapKeyRef, SecretKeyRef, Source
from chatflow_api.validation import path_text

from chatflow_operator.objects import Name


def secrets_of(spec: api.ChatFlowSpec) -> Iterator[tuple[str, SecretKeyRef]]:
    """The Secret keys that gateways and workers read as files, by field; the state server's URL is none of them."""
    for path, ref in api.secret_refs(spec, ("spec",)):
        if path[1] != "state":
            yield path_text(path), ref


def word_lists_of(spec: api.ChatFlowSpec) -> Iterator[tuple[str, ConfigMapKeyRef]]:
    """The word lists, by field."""
    for number, ref in enumerate(spec.moderation.word_lists):
        yield f"spec.moderation.wordLists[{number}]", ref


def chat_templates_of(spec: api.ChatFlowSpec) -> Iterator[tuple[str, ConfigMapKeyRef]]:
    """The chat templates that model servers read, by field."""
    for role, model in (("llm", spec.models.llm), ("backup", spec.models.backup)):
        if model is not None and model.kserve is not None and model.kserve.chat_template is not None:
            yield f"spec.models.{role}.kserve.chatTemplate", model.kserve.chat_template


def sources_of(spec: api.ChatFlowSpec) -> Iterator[tuple[str, Source]]:
    """Where knowledge and examples come from, by field."""
    for number, source in enumerate(spec.knowledge.sources):
        yield f"spec.knowledge.sources[{number}]", source
    for number, source in enumerate(spec.models.intent.example_sources):
        yield f"spec.models.intent.exampleSources[{number}]", source


def references_of(spec: api.ChatFlowSpec) -> Iterator[tuple[str, Name, tuple[str, ...]]]:
    """Every ConfigMap and Secret that a flow reads: (field, object, keys that it must have)."""
    external = spec.state.redis.external
    if external is not None:
        url = external.url_secret_ref
        yield "spec.state.redis.external.urlSecretRef", Name("Secret", url.name), (url.key,)
    for field, secret in secrets_of(spec):
        yield field, Name("Secret", secret.name), (secret.key,)
    for field, ref in (*word_lists_of(spec), *chat_templates_of(spec)):
        yield field, Name("ConfigMap", ref.name), (ref.key,)
    for field, source in sources_of(spec):
        if source.config_map is not None:
            yield f"{field}.configMap", Name("ConfigMap", source.config_map.name), tuple(source.config_map.keys)
