"""What a command tells instead of a traceback. Every command raises CommandFailed; click prints it and sets the status.

Status 1: the input was read and is wrong (`validate`), or an answer could not be had. Status 2: the command cannot run.
"""

from __future__ import annotations

from typing import ClassVar

import click


class CommandFailed(click.ClickException):
    """The command cannot go on; the message says what, which value, and what to do."""

    code: ClassVar[str] = "command_failed"
    exit_code = 2

    def show(self, file: object = None) -> None:  # noqa: ARG002  click passes a stream that is never ours.
        """One clear line, or one a problem, on standard error."""
        click.echo(f"chatflow: {self.message}", err=True)


class ManifestUnusable(CommandFailed):
    """The manifest, or something that it names, is wrong."""

    code = "manifest_unusable"

    def show(self, file: object = None) -> None:  # noqa: ARG002
        """The problems as they are: each begins with its file and line."""
        click.echo(self.message, err=True)


class PortTaken(CommandFailed):
    """Another program listens on the port."""

    code = "port_taken"


class StateServerMissing(CommandFailed):
    """There is no Redis or Valkey to start."""

    code = "state_server_missing"


class PartFailed(CommandFailed):
    """A process of the flow did not start."""

    code = "part_failed"


class ModelMissing(CommandFailed):
    """The embedded language model is not installed."""

    code = "model_missing"


class GatewayUnreachable(CommandFailed):
    """The gateway refused, broke off or answered with an error."""

    code = "gateway_unreachable"
    exit_code = 1
