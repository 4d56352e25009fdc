"""`chatflow chat FILE|URL`: a conversation in the terminal, or with a file of questions on standard input."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatflow_cli.client import GatewayClient
from chatflow_cli.errors import GatewayUnreachable
from chatflow_cli.target import gateway
from chatflow_cli.transcript import show_reply

if TYPE_CHECKING:
    from rich.console import Console


@click.command("chat")
@click.argument("target", metavar="FILE|URL")
@click.option(
    "--uid", metavar="ID", help="Chat as this user, in their conversation, where the flow lets you.  [a new one]"
)
@click.option(
    "--token",
    envvar="CHATFLOW_TOKEN",
    metavar="TOKEN",
    show_envvar=True,
    help="An API key, a JWT or a session's token.  [an anonymous session]",
)
@click.option(
    "--data", default=".chatflow", show_default=True, type=click.Path(path_type=Path), help="Folder that `up` uses."
)
def command(target: str, uid: str | None, token: str | None, data: Path) -> None:
    """Chat in the terminal.

    A line is a message; /quit or the end of the input ends the chat. Notices (the conversation is about to close, it
    has ended) appear as they come. Works with piped input too: every line is asked in turn.
    """
    with gateway(target, data, token) as client:
        user = client.user(uid)
        if sys.stdin.isatty():
            who = "" if user is None else f" as {user}"
            click.echo(click.style(f"{client.url}{who}; /quit ends the chat", dim=True))
            threading.Thread(target=_show_notices, args=(client, user), daemon=True, name="notices").start()
        for text in _messages():
            try:
                show_reply(client.ask(user, text))
            except GatewayUnreachable as error:
                error.show()
                if not sys.stdin.isatty():
                    raise SystemExit(error.exit_code) from error


def _messages() -> Iterator[str]:
    """What is typed or piped, line by line, without empty lines."""
    is_terminal = sys.stdin.isatty()
    prompt = _prompt() if is_terminal else None
    while True:
        try:
            line = prompt.input("[bold cyan]›[/] ") if prompt is not None else sys.stdin.readline()
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if prompt is None and not line:
            return
        text = line.strip()
        if text == "/quit":
            return
        if text:
            if not is_terminal:
                click.echo(click.style(f"› {text}", bold=True))
            yield text


def _prompt() -> Console:
    # Line editing and a history of this chat come with the module.
    import readline  # noqa: F401

    from rich.console import Console

    return Console()


def _show_notices(client: GatewayClient, user: str | None) -> None:
    """Print what the bot says between turns, until the program ends. Replies come on their own stream."""
    try:
        for event in client.events(user):
            if event.kind == "notice":
                click.echo(f"\r{click.style('● ' + event.data['text'], fg='yellow')}")
    except GatewayUnreachable:
        # The next message meets the same trouble, and reports it.
        return
