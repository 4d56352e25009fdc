"""The sidecar's settings, read from the environment once (CHATFLOW_WARMUP_*)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from chatflow_models.warmup.warmth import Goal

PROMPTS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Where is my order?"}],
    [{"role": "user", "content": "我的订单到哪里了？"}],
)
"""Asked in turn where the flow's own are not given."""


class SettingsInvalid(Exception):
    """A variable is missing or unusable; the message names it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When a warm server counts as silent."""

    period_s: float = 2.0
    """From one look at its health to the next."""
    timeout_s: float = 5.0
    failures: int = 3
    """In a row."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One sidecar."""

    url: URL
    """Of the server, up to and including the version: http://127.0.0.1:8080/v1."""
    model: str
    host: str
    port: int
    goal: Goal
    deadline_s: float
    """From the server's first answer on; a server that answers by then, however slowly, takes traffic."""
    max_tokens: int
    patience: Patience
    prompts_file: Path | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """The settings; SettingsInvalid names the variable that is wrong."""
        goal, patience, file = Goal(), Patience(), environ.get("CHATFLOW_WARMUP_PROMPTS_FILE")
        settings = cls(
            url=_url(environ),
            model=_required(environ, "MODEL"),
            host=environ.get("CHATFLOW_WARMUP_HOST", "0.0.0.0"),  # noqa: S104  A pod's own network.
            port=int(_number(environ, "PORT", 8095, least=1)),
            goal=Goal(
                prompts=int(_number(environ, "PROMPTS_AT_LEAST", goal.prompts, least=1)),
                in_a_row=int(_number(environ, "PROMPTS_IN_A_ROW", goal.in_a_row, least=1)),
                ratio=_number(environ, "RATIO", goal.ratio, least=1),
            ),
            deadline_s=_number(environ, "DEADLINE_S", 300.0, least=0),
            max_tokens=int(_number(environ, "MAX_TOKENS", 8, least=1)),
            patience=Patience(
                period_s=_number(environ, "HEALTH_PERIOD_S", patience.period_s, least=0.1),
                timeout_s=_number(environ, "HEALTH_TIMEOUT_S", patience.timeout_s, least=0.1),
                failures=int(_number(environ, "HEALTH_FAILURES", patience.failures, least=1)),
            ),
            prompts_file=None if file is None else Path(file),
        )
        settings.prompts()
        return settings

    def prompts(self) -> tuple[list[dict[str, str]], ...]:
        """What is asked, read anew; SettingsInvalid when the file cannot be used."""
        return PROMPTS if self.prompts_file is None else _prompts(self.prompts_file)


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(f"CHATFLOW_WARMUP_{name}")
    if not value:
        raise SettingsInvalid(f"CHATFLOW_WARMUP_{name} is missing; set it")
    return value


def _url(environ: Mapping[str, str]) -> URL:
    text = _required(environ, "URL")
    url = URL(text)
    if url.scheme != "http" or not url.host:
        raise SettingsInvalid(
            f"CHATFLOW_WARMUP_URL={text!r}; give the server beside this one, http://127.0.0.1:8080/v1"
        )
    return url


def _number(environ: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = environ.get(f"CHATFLOW_WARMUP_{name}", str(default))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value >= least:
        raise SettingsInvalid(f"CHATFLOW_WARMUP_{name}={text!r}; give a number from {least:g}")
    return value


def _prompts(file: Path) -> tuple[list[dict[str, str]], ...]:
    """Lists of chat messages, as JSON in a file."""
    wanted = 'give a file with JSON: [[{"role": "user", "content": "..."}], ...]'
    name = f"CHATFLOW_WARMUP_PROMPTS_FILE={str(file)!r}"
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"{name} cannot be read ({error}); {wanted}") from error
    if not (isinstance(found, list) and found and all(_is_prompt(prompt) for prompt in found)):
        raise SettingsInvalid(f"{name} holds no prompts; {wanted}")
    return tuple(found)


def _is_prompt(prompt: Any) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and all(
            isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
            for one in prompt
        )
    )
