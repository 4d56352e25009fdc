"""How a reply looks in the terminal: its text as it streams, then where it came from. Used by `ask` and `chat`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from chatflow_cli.client import Event
from chatflow_cli.errors import GatewayUnreachable


def show_reply(events: Iterable[Event]) -> Mapping[str, Any]:
    """Print a reply as its events come in and return it whole."""
    has_streamed = False
    for event in events:
        if event.kind == "delta":
            click.echo(event.data["text"], nl=False)
            has_streamed = True
        elif event.kind == "reply":
            click.echo("" if has_streamed else event.data["text"])
            for line in origin_lines(event.data):
                click.echo(click.style(line, dim=True))
            return event.data
    raise GatewayUnreachable("the connection ended before the reply was whole; ask again")


def whole_reply(events: Iterable[Event]) -> Mapping[str, Any]:
    """The reply alone, with nothing printed."""
    for event in events:
        if event.kind == "reply":
            return event.data
    raise GatewayUnreachable("the connection ended before the reply was whole; ask again")


def origin_lines(reply: Mapping[str, Any]) -> list[str]:
    """Rung, origin, intent and confidence in one line, then a line for every citation."""
    parts = [f"{reply['rung']} {reply['origin']}"]
    if reply.get("intent") is not None:
        parts.append(f"intent {reply['intent']}")
    if reply.get("confidence") is not None:
        parts.append(f"confidence {reply['confidence']:.2f}")
    if reply.get("model"):
        parts.append(f"model {reply['model']}")
    if reply.get("is_partial"):
        parts.append("broken off")
    lines = [f"[{' · '.join(parts)}]"]
    for place, citation in enumerate(reply.get("citations", ()), start=1):
        number = citation.get("number", place)
        url = f"  {citation['url']}" if citation.get("url") else ""
        lines.append(f"  {number}. {citation['title']} ({citation['id']}, {citation['score']:.2f}){url}")
    return lines
