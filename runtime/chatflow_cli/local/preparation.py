"""What a manifest asks for on this machine, read afresh at the start and after every change. Called by `stack`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chatflow_api.runtime_config import RuntimeConfig, derive
from chatflow_api.v1alpha1 import ChatFlow

from chatflow_cli.errors import CommandFailed, ManifestUnusable
from chatflow_cli.local.manifest_file import FlowFiles, load
from chatflow_cli.local.objects import Data
from chatflow_cli.local.procfile import read_procfile
from chatflow_cli.local.references import Content, ReferenceCheck

EMBEDDED = "embedded"
_KEY_SECRET = {"name": "chatflow-up-llm", "key": "api-key"}


@dataclass(frozen=True)
class Options:
    """The options of `up`; the other commands that start a flow use the defaults."""

    file: Path
    host: str = "127.0.0.1"
    port: int = 8080
    admin_port: int = 0
    data: Path | None = Path(".chatflow")
    """None for a temporary folder."""
    artefact_cache: Path | None = None
    """Artefacts of an `up` with a data folder, for a flow without one."""
    redis_url: str | None = None
    gateways: int = 1
    llm: str | None = None
    """A URL, `embedded`, or None for what the manifest says."""
    llm_model: str | None = None
    llm_key_env: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Fields below spec by path, as YAML."""
    volumes: Mapping[str, Path] = field(default_factory=dict)
    is_reloading: bool = True

    def overrides(self, embedded_port: int | None) -> dict[str, str]:
        """Everything that the options say about the spec; what --set says comes last."""
        overrides: dict[str, str] = {}
        if self.redis_url is not None:
            overrides["state.redis"] = "{}"
        if self.llm == EMBEDDED:
            endpoint = {"baseURL": f"http://127.0.0.1:{embedded_port or 1}/v1", "model": "smollm2-135m-instruct"}
            overrides |= {
                "models.llm.openAI": json.dumps(endpoint),
                "models.llm.kserve": "null",
                # Some 35 tokens of prompt and 20 of answer a second on one core.
                "models.llm.firstTokenDeadline": "60s",
                "models.llm.tokenGapDeadline": "20s",
                "models.llm.contextTokens": "1024",
                "models.llm.maxTokens": "200",
                "models.backup": "null",
            }
        elif self.llm is not None:
            remote = {"baseURL": self.llm, "model": self.llm_model}
            key = {"apiKeySecretRef": _KEY_SECRET} if self.llm_key_env else {}
            overrides |= {"models.llm.openAI": json.dumps({**remote, **key}), "models.llm.kserve": "null"}
        return overrides | dict(self.settings)

    def key_secret(self) -> dict[str, Data]:
        """The API key from the environment, as a Secret."""
        if self.llm_key_env is None:
            return {}
        value = os.environ.get(self.llm_key_env)
        if not value:
            raise CommandFailed(f"--llm-key-env {self.llm_key_env}: the variable is not set; export it with the key")
        return {_KEY_SECRET["name"]: {_KEY_SECRET["key"]: value.encode()}}


@dataclass(frozen=True)
class Prepared:
    """A flow that can run here."""

    files: FlowFiles
    content: Content
    config: RuntimeConfig
    procfile: Mapping[str, str]
    secrets: Mapping[str, Data]

    @property
    def flow(self) -> ChatFlow:
        """The flow."""
        return self.files.flow

    @property
    def served(self) -> RuntimeConfig:
        """What runs here: `config` without what is KServe's, and without replicas unless the manifest counts on some.
        Gateways then classify in their own process."""
        intent = self.config.intent.model_copy(update={"server": None})
        replicas = self.flow.spec.state.redis.replication.replicas or 0
        state = self.config.state.model_copy(update={"replicas": replicas})
        changed = {**dict.fromkeys(_served_by_kserve(self.flow)), "intent": intent, "state": state}
        return self.config.model_copy(update=changed)

    @property
    def remarks(self) -> list[str]:
        """What of the manifest does not run here, one line each."""
        return [
            str(
                self.files.manifest.problem(
                    ("spec", "models", role, "kserve"),
                    "KServe does not run on one machine, so this flow runs without that model",
                    _REMEDIES[role],
                )
            )
            for role in _served_by_kserve(self.flow)
        ]

    def urls(self) -> list[str]:
        """Every URL that the gateway or the worker calls."""
        models = [model.base_url for model in (self.served.llm, self.served.backup) if model is not None]
        handoff = self.config.dialogue.handoff
        told = [self.config.gateway.messages_webhook, None if handoff is None else handoff.webhook]
        webhooks = [webhook.url for webhook in told if webhook is not None]
        return [action.url for action in self.config.dialogue.actions] + models + webhooks

    def redis_url(self) -> str | None:
        """The URL of the manifest's own state server, from its Secret."""
        external = self.flow.spec.state.redis.external
        if external is None:
            return None
        ref = external.url_secret_ref
        return self.secrets[ref.name][ref.key].decode().strip()

    def watched(self) -> set[Path]:
        """Folders in which a change may matter."""
        folders = {path.resolve().parent for path in [self.files.path, *self.files.objects.files]}
        return {folder for folder in folders if folder.is_dir()}


_REMEDIES = {
    "llm": "name a server that runs: --llm URL --llm-model NAME, or take --llm embedded",
    "backup": "name a server that runs: --set 'models.backup={openAI: {baseURL: URL, model: NAME}}'",
}
"""What to do about a model that is KServe's, by its field below models."""


def _served_by_kserve(flow: ChatFlow) -> list[str]:
    """Fields below models whose language model is KServe's."""
    models = {"llm": flow.spec.models.llm, "backup": flow.spec.models.backup}
    return [role for role, model in models.items() if model is not None and model.kserve is not None]


def prepare(options: Options, embedded_port: int | None = None) -> Prepared:
    """Read and check everything; ManifestUnusable with every problem, one line each."""
    files = load(options.file, options.overrides(embedded_port))
    files.objects.secrets.update(options.key_secret())
    check = ReferenceCheck(files.manifest, files.objects, options.volumes, "run").run()
    if check.findings.problems:
        raise ManifestUnusable("\n".join(check.findings.problems))
    config = derive(files.flow)
    if config.intent.encoder_path is not None:
        # The path in the manifest counts from its folder; the processes run elsewhere.
        path = str((files.folder / config.intent.encoder_path).resolve())
        config = config.model_copy(update={"intent": config.intent.model_copy(update={"encoder_path": path})})
    return Prepared(files, check.content, config, read_procfile(files.folder), files.objects.secrets)
