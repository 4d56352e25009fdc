"""`chatflow up FILE`: the manifest as processes on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from chatflow_cli.parameters import pairs


@click.command("up")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--admin-port", default=0, type=click.IntRange(0, 65535), help="Port of health and metrics.  [a free one]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--data",
    default=".chatflow",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder that keeps the data.",
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: a temporary folder that is removed at the end.")
@click.option("--redis", "redis_url", metavar="URL", help="Use this Redis or Valkey.  [one of its own]")
@click.option("--gateways", default=1, show_default=True, type=click.IntRange(1, 64), help="Gateway processes.")
@click.option("--llm", metavar="URL|embedded", help="Language model: a base URL such as http://127.0.0.1:8000/v1.")
@click.option("--llm-model", metavar="NAME", help="Name of the model at that URL.")
@click.option("--llm-key-env", metavar="VAR", help="Environment variable that holds its API key.")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Field below spec; may be repeated.")
@click.option(
    "--volume", "volumes", multiple=True, metavar="CLAIM=FOLDER", help="Folder that stands for a volume claim."
)
@click.option("--no-reload", is_flag=True, help="Do not follow changes of the manifest and its files.")
def command(
    file: Path,
    port: int,
    admin_port: int,
    host: str,
    data: Path,
    ephemeral: bool,
    redis_url: str | None,
    gateways: int,
    llm: str | None,
    llm_model: str | None,
    llm_key_env: str | None,
    settings: tuple[str, ...],
    volumes: tuple[str, ...],
    no_reload: bool,
) -> None:
    """Run a manifest on this machine.

    Starts a Redis or Valkey, trains the intent model, indexes the knowledge, starts the processes of the Procfile
    beside the manifest, the gateway and the worker, and prints the URL. Follows changes of the manifest and its files:
    content is swapped in place, a changed spec gets a new gateway before the old one ends. Ctrl-C ends everything.

    FILE is a manifest or its folder. ConfigMaps and Secrets come from the manifest's own documents and from the
    kustomization.yaml beside it. `--llm embedded` runs a small English model on this machine, for trials.
    """
    # Everything below is imported here, so that --help and a wrong option answer at once.
    from chatflow_cli.local.console import Console
    from chatflow_cli.local.preparation import Options
    from chatflow_cli.local.session import run

    _check_model(llm, llm_model)
    options = Options(
        file=file,
        host=host,
        port=port,
        admin_port=admin_port,
        data=None if ephemeral else data,
        redis_url=redis_url,
        gateways=gateways,
        llm=llm,
        llm_model=llm_model,
        llm_key_env=llm_key_env,
        settings=pairs(settings, "--set", "PATH=VALUE, for example models.intent.confidence=0.9"),
        volumes={claim: Path(folder) for claim, folder in pairs(volumes, "--volume", "CLAIM=FOLDER").items()},
        is_reloading=not no_reload,
    )
    asyncio.run(run(options, Console()))


def _check_model(llm: str | None, llm_model: str | None) -> None:
    if llm is None or llm == "embedded":
        return
    if not llm.startswith(("http://", "https://")):
        raise click.UsageError(f"--llm {llm!r}: write a URL such as http://127.0.0.1:8000/v1, or embedded")
    if llm_model is None:
        raise click.UsageError("--llm needs --llm-model: the name of the model there")
