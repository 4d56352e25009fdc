"""The status of a ChatFlow: what the operator observed. Part of the CRD; only the operator writes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Short = Annotated[str, StringConstraints(max_length=316)]
Long = Annotated[str, StringConstraints(max_length=32768)]


class ConditionType(StrEnum):
    """What is said of a flow. Every one is positive: True is good."""

    READY = "Ready"
    CONFIGURATION_VALID = "ConfigurationValid"
    OBJECTS_APPLIED = "ObjectsApplied"
    STATE_READY = "StateReady"
    KNOWLEDGE_READY = "KnowledgeReady"
    MODELS_READY = "ModelsReady"
    GATEWAY_READY = "GatewayReady"
    ROUTE_READY = "RouteReady"
    AUTOSCALING = "Autoscaling"


class Verdict(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Part(BaseModel):
    """Base: camelCase in YAML, frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, use_attribute_docstrings=True
    )


class Condition(Part):
    """One thing that is so, or is not, with the reason."""

    type: Short
    """What is said, for example GatewayReady."""
    status: Verdict
    """Whether it holds; True is good."""
    reason: Short
    """Why, in one word for programs."""
    message: Long
    """Why, in words for people; what to do where it does not hold."""
    last_transition_time: Short
    """When the status last changed."""
    observed_generation: Annotated[int, Field(ge=0)]
    """Generation of the spec that this speaks of."""


class ModelRow(Part):
    """How one model is."""

    role: Short
    """llm, backup or intent."""
    name: Short
    """The model's name, or that of its InferenceService."""
    source: Short
    """Where it runs: KServe, OpenAI (a service that exists) or InProcess."""
    state: Short
    """Ready (also while some of its servers are not), Waking (replicas.min is 0 and a server starts), Loading, Failed,
    Missing, or External for one that the operator does not watch."""
    message: Long = ""
    """More about it."""


class Status(Part):
    """What the operator observed; not for users to write."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec that the operator has acted on."""
    conditions: Annotated[list[Condition], Field(max_length=32)] = []
    """What holds, and what does not and why."""
    url: Short | None = None
    """Where the chat is reached: from outside with a route, else inside the cluster."""
    gateways: Short | None = None
    """Gateways that take traffic, of those wanted."""
    models: Annotated[list[ModelRow], Field(max_length=8)] = []
    """The flow's models."""
