"""The Procfile beside a manifest: small services that stand for business APIs on one machine, `name: command` a line.

Called by `stack`. A process gets a port in PORT, and its name becomes the host of the actions' URLs that name it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from chatflow_cli.errors import ManifestUnusable

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*:\s*(\S.*)")


def read_procfile(folder: Path) -> dict[str, str]:
    """Commands by name; empty without a Procfile. ManifestUnusable names the line that is wrong."""
    file = folder / "Procfile"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestUnusable(f"{file}: cannot be read ({error}); save it as UTF-8") from error
    commands: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise ManifestUnusable(f"{file}:{number}: {stripped!r} is no entry; write name: command")
        if found[1] in commands:
            raise ManifestUnusable(f"{file}:{number}: {found[1]} stands twice; give each process its own name")
        commands[found[1]] = found[2]
    return commands


def shell_arguments(command: str) -> list[str]:
    """The command as a shell reads it ($PORT, quotes), without a shell that stays around it."""
    return ["/bin/sh", "-c", f"exec {command}"]


def host_aliases(ports: Mapping[str, int], urls: Iterable[str]) -> str:
    """CHATFLOW_HOST_ALIASES: every `host[:port]` of a URL whose host is a process (or `process.namespace...`, as in a
    cluster) leads to that process."""
    aliases: dict[str, str] = {}
    for url in urls:
        parts = urlsplit(url)
        name = (parts.hostname or "").split(".")[0]
        if name in ports:
            aliases[parts.netloc] = f"127.0.0.1:{ports[name]}"
    return ",".join(f"{host}={address}" for host, address in sorted(aliases.items()))
