"""What schemathesis calls before each request: data that is meant to fit gets what a JSON schema cannot say."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

NAMED = {"/v1/chat", "/v1/messages", "/v1/ratings"}
"""Routes that want a uid from whoever comes with an API key."""
USER = "user"


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Complete a case that is meant to fit."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.path == "/v1/events":
        case.query["uid"] = _visible(case.query.get("uid"))
    if isinstance(body := case.body, dict):
        _complete(case.path, body)


def _complete(path: str, body: dict[str, Any]) -> None:
    for name in {"uid", "message_id", "user"} & body.keys():
        body[name] = body[name] if body[name] is None else _visible(body[name])
    if path in NAMED and body.get("uid") is None:
        body["uid"] = USER
    if isinstance(text := body.get("text"), str) and not any(map(str.isalnum, text)):
        body["text"] = "When are you open?"
    if path == "/v1/ratings":
        # To JSON Schema 4.0 is a whole number, and scales are the flow's own.
        body["score"] = min(int(body["score"]), 5)
    if path == "/v1/chat/completions":
        # It is the last message that must be the user's.
        body["messages"][-1] = {"role": "user", "content": "When are you open?"}
        body["n"] = 1


def _visible(given: Any) -> str:
    """An id without characters that nobody sees, which no pattern that all dialects know can name."""
    return given if isinstance(given, str) and given.isprintable() and given else USER
