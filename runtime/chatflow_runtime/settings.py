"""The process's settings, read from the environment once, at the entry point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chatflow_api.runtime_config import RuntimeConfig
from pydantic import ValidationError


class SettingsInvalid(Exception):
    """An environment variable is missing or unusable; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything is."""

    config: RuntimeConfig
    redis_url: str
    secrets_dir: Path
    configmaps_dir: Path
    artefacts_dir: Path
    sink_dir: Path
    host: str
    port: int
    admin_port: int
    shared_admin_port: int | None
    """Opened beside the admin port once the gateway is warm: processes that take turns share it."""
    reuse_port: bool
    startup_deadline_s: float
    """A gateway waits this long for what it needs, and then serves without; 0 tries each once and waits for nothing."""
    host_aliases: Mapping[str, str]
    log_format: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ` (CHATFLOW_*); SettingsInvalid names the variable that is wrong."""
        return cls(
            config=_config(_needed(environ, "CHATFLOW_CONFIG")),
            redis_url=_needed(environ, "CHATFLOW_REDIS_URL"),
            secrets_dir=Path(environ.get("CHATFLOW_SECRETS_DIR", "/etc/chatflow/secrets")),
            configmaps_dir=Path(environ.get("CHATFLOW_CONFIGMAPS_DIR", "/etc/chatflow/configmaps")),
            artefacts_dir=Path(environ.get("CHATFLOW_ARTEFACTS_DIR", "/var/lib/chatflow/artefacts")),
            sink_dir=Path(environ.get("CHATFLOW_SINK_DIR", "/var/lib/chatflow/records")),
            host=environ.get("CHATFLOW_HOST", "127.0.0.1"),
            port=_port(environ, "CHATFLOW_PORT", 8080),
            admin_port=_port(environ, "CHATFLOW_ADMIN_PORT", 9090),
            shared_admin_port=_port(environ, "CHATFLOW_SHARED_ADMIN_PORT", 9090)
            if "CHATFLOW_SHARED_ADMIN_PORT" in environ
            else None,
            reuse_port=environ.get("CHATFLOW_REUSE_PORT", "0") == "1",
            startup_deadline_s=_seconds(environ, "CHATFLOW_STARTUP_DEADLINE_S", 60.0),
            host_aliases=_aliases(environ.get("CHATFLOW_HOST_ALIASES", "")),
            log_format=_choice(environ, "CHATFLOW_LOG_FORMAT", ("json", "console")),
        )

    def secret(self, path: str | None) -> str | None:
        """The value of a Secret's key (`NAME/KEY`), without the line end that editors leave."""
        if path is None:
            return None
        file = self.secrets_dir / path
        try:
            return file.read_text().rstrip("\r\n")
        except OSError as error:
            raise SettingsInvalid(f"secret {path}: cannot read {file} ({error.strerror}); create the Secret") from error


def _needed(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise SettingsInvalid(f"{name} is not set; `chatflow up` and the operator set it")
    return value


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, str(default))
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise SettingsInvalid(f"{name}={value!r} is no port; give a number from 1 to 65535")
    return int(value)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    value = environ.get(name, str(default))
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise SettingsInvalid(f"{name}={value!r} is no time; give seconds from 0 to 3600")
    return seconds


def _choice(environ: Mapping[str, str], name: str, values: tuple[str, ...]) -> str:
    value = environ.get(name, values[0])
    if value not in values:
        raise SettingsInvalid(f"{name}={value!r}; give {' or '.join(values)}")
    return value


def _aliases(value: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in value.split(",") if pair]
    wrong = [host for host, _, address in pairs if not host or not address]
    if wrong:
        raise SettingsInvalid(f"CHATFLOW_HOST_ALIASES={value!r}; write host=address:port, separated by commas")
    return {host: address for host, _, address in pairs}


def _config(path: str) -> RuntimeConfig:
    try:
        return RuntimeConfig.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise SettingsInvalid(f"CHATFLOW_CONFIG={path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsInvalid(f"CHATFLOW_CONFIG={path}: {where}: {first['msg']}") from error
