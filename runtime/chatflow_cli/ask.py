"""`chatflow ask FILE|URL "text"`: one question, its answer, and where the answer came from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from chatflow_cli.target import gateway
from chatflow_cli.transcript import show_reply, whole_reply


@click.command("ask")
@click.argument("target", metavar="FILE|URL")
@click.argument("text")
@click.option(
    "--uid", metavar="ID", help="Ask as this user, in their conversation, where the flow lets you.  [a new one]"
)
@click.option("--json", "is_json", is_flag=True, help="Print the whole reply as JSON.")
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
def command(target: str, text: str, uid: str | None, token: str | None, is_json: bool, data: Path) -> None:
    """Ask one question and show the answer.

    Prints the answer as it streams, then rung, origin, intent, confidence and citations. A FILE whose `chatflow up` is
    running is asked there; otherwise the flow is started for this question and stopped afterwards.
    """
    with gateway(target, data, token) as client:
        events = client.ask(client.user(uid), text)
        if is_json:
            click.echo(json.dumps(whole_reply(events), ensure_ascii=False, indent=2))
        else:
            show_reply(events)
