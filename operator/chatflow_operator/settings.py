"""The operator's settings, read from the environment once, at the entry point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

DEFAULT_IMAGES = {
    "RUNTIME": "chatflow/runtime",
    "BUILDER": "chatflow/builder",
    "REDIS": "redis:7-bookworm",
    "INTENT": "chatflow/intent",
    "WARMUP": "chatflow/warm-up",
    "VLLM": "vllm/vllm-openai:v0.32.0",
}


class SettingsInvalid(Exception):
    """An environment variable is missing or unusable; the message names it."""


@dataclass(frozen=True, slots=True)
class Images:
    """The images that a flow's pods run."""

    runtime: str
    builder: str
    redis: str
    intent: str
    """The intent server."""
    warm_up: str
    """The sidecar that warms language models."""
    vllm: str
    """vLLM, for clusters whose KServe brings no runtime for it."""
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Webhook:
    """The validating admission webhook. Without a folder of certificates the operator makes its own."""

    port: int
    service: str
    configuration: str
    certificates: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """How this operator runs."""

    images: Images
    namespaces: tuple[str, ...]
    """The namespaces that it looks after; all when empty."""
    peering: str | None
    health_port: int
    metrics_port: int
    workers: int
    log_format: str
    prometheus_namespace: str | None
    webhook: Webhook | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings in `environ` (CHATFLOW_OPERATOR_*); SettingsInvalid names the variable that is wrong."""
        return cls(
            images=_images(environ),
            namespaces=_names(environ, "NAMESPACES"),
            peering=_text(environ, "PEERING"),
            health_port=_number(environ, "HEALTH_PORT", 8080, 0, 65535),
            metrics_port=_number(environ, "METRICS_PORT", 9090, 0, 65535),
            workers=_number(environ, "WORKERS", 20, 1, 200),
            log_format=_choice(environ, "LOG_FORMAT", ("json", "console")),
            prometheus_namespace=_text(environ, "PROMETHEUS_NAMESPACE"),
            webhook=_webhook(environ),
        )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(f"CHATFLOW_OPERATOR_{name}") or None


def _names(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (_text(environ, name) or "").split(",") if part.strip())


def _number(environ: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    value = _text(environ, name) or str(default)
    if not value.isdigit() or not lowest <= int(value) <= highest:
        raise SettingsInvalid(f"CHATFLOW_OPERATOR_{name}={value!r}; give a number from {lowest} to {highest}")
    return int(value)


def _choice(environ: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    value = _text(environ, name) or values[0]
    if value not in values:
        raise SettingsInvalid(f"CHATFLOW_OPERATOR_{name}={value!r}; give {' or '.join(values)}")
    return value


def _images(environ: Mapping[str, str]) -> Images:
    runtime, builder, redis, intent, warm_up, vllm = (
        _text(environ, f"{name}_IMAGE") or default for name, default in DEFAULT_IMAGES.items()
    )
    return Images(
        runtime=runtime,
        builder=builder,
        redis=redis,
        intent=intent,
        warm_up=warm_up,
        vllm=vllm,
        pull_policy=_choice(environ, "PULL_POLICY", ("IfNotPresent", "Always", "Never")),
        pull_secrets=_names(environ, "PULL_SECRETS"),
    )


def _webhook(environ: Mapping[str, str]) -> Webhook | None:
    port = _number(environ, "WEBHOOK_PORT", 0, 0, 65535)
    if port == 0:
        return None
    service, configuration = _text(environ, "WEBHOOK_SERVICE"), _text(environ, "WEBHOOK_CONFIGURATION")
    if service is None or configuration is None:
        raise SettingsInvalid(
            "CHATFLOW_OPERATOR_WEBHOOK_PORT is set, but _SERVICE or _CONFIGURATION is not; the chart sets all of them"
        )
    return Webhook(port, service, configuration, _text(environ, "WEBHOOK_CERTIFICATES"))
