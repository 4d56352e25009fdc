"""The `chatflow` command. Each subcommand is a module beside this one, imported when it is called."""

from __future__ import annotations

from importlib import import_module, metadata

import click

COMMANDS = {
    "validate": "Check manifests and what they refer to.",
    "render": "Print what the operator would apply.",
    "simulate": "Replay a load profile against the autoscaling of a model.",
    "status": "Show a flow on a cluster.",
    "up": "Run a manifest on this machine.",
    "ask": "Ask one question and show the answer.",
    "chat": "Chat in the terminal.",
    "train": "Train the intent model, test it against the current one, report.",
    "evaluate": "Measure a manifest with labelled questions.",
}


class _Lazy(click.Group):
    """Lists the commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature.
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"chatflow_cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        click.echo(f"chatflow {metadata.version('chatflow')}")
        ctx.exit()


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def main() -> None:
    """One manifest, a customer-service chat.

    A manifest is a YAML file with a ChatFlow (docs/reference/manifest.md), or a folder with one and its
    kustomization.yaml.
    """
