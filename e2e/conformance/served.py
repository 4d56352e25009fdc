"""A gateway as in production, for the suites: its own process, a real Redis, a worker, a scripted language model."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from chatflow_api.v1alpha1 import ChatFlow
from tests_runtime.scripted_openai import Request, Script, says, scripted_openai
from tests_runtime.state_servers import StateServer, free_ports, installed

from e2e.faults.plant import Member, prepared

API_KEY = "conformance-may-name-anyone"
AUTHORIZATION = f"Bearer {API_KEY}"


def flow(llm_url: str) -> ChatFlow:
    """A flow whose access is as in production, with a key that may name any user; nothing is limited by rate."""
    limits = {"perUser": {"messages": 0}, "perAddress": {"messages": 0}}
    spec = {
        "locale": "en",
        "gateway": {"auth": {"apiKeysSecretRef": {"name": "access", "key": "keys"}}, "rateLimit": limits},
        "knowledge": {"sources": [{"configMap": {"name": "faq"}}], "minScore": 0.5},
        "models": {
            "intent": {"encoder": "none", "examples": {"hours": ["opening hours"], "refund": ["refund please"]}},
            "llm": {"openAI": {"baseURL": llm_url, "model": "large"}, "firstTokenDeadline": "30s"},
        },
    }
    return ChatFlow.model_validate(
        {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "conformance"}, "spec": spec}
    )


@asynccontextmanager
async def served() -> AsyncIterator[Member]:
    """The gateway while the context lasts."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatflow-conformance-")))
        llm = await stack.enter_async_context(scripted_openai())

        def answer(_: Request) -> Script:
            llm.requests.clear()  # They would fill the memory: nobody looks at them.
            return says("An ", "answer.")

        llm.default = answer
        (port,) = free_ports(1)
        state = StateServer(installed()[0], folder, ("--maxmemory-policy", "noeviction"), port)
        stack.callback(state.kill)
        state.start()
        environment = await prepared(flow(llm.base_url), folder)
        (folder / "secrets" / "access").mkdir(parents=True)
        (folder / "secrets" / "access" / "keys").write_text(API_KEY, encoding="utf-8")
        environment["CHATFLOW_SECRETS_DIR"] = str(folder / "secrets")
        environment["CHATFLOW_REDIS_URL"] = f"redis://127.0.0.1:{port}"
        members = {role: Member(role, environment, folder / role) for role in ("worker", "gateway")}
        for member in members.values():
            stack.push_async_callback(member.kill)
            await member.start()
        yield members["gateway"]
