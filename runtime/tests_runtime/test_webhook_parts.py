"""What a process makes of a manifest with webhooks and a desk: whom it tells, which keys it takes, what it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chatflow_api.runtime_config import derive
from chatflow_api.v1alpha1 import ChatFlow, WhileBusy
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.answerers.handoff import requested
from chatflow_runtime.domain.conversation import Event, Memory, Message, Scene
from chatflow_runtime.domain.deliveries import Hook
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Outcome
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.state.rules import Rules
from chatflow_runtime.webhook_parts import desk_of, hook_worker, webhooks_of
from prometheus_client import CollectorRegistry
from tests_runtime.hook_cases import SECRET
from tests_runtime.hook_receiver import receiving
from tests_runtime.state_cases import RULES, Open, memory_case, reply

KEY = {"name": "desk", "key": "hook"}
SPEC = {
    "gateway": {"messages": {"webhook": {"url": "http://crm/hook", "secretRef": KEY, "timeout": "3s"}}},
    "dialogue": {
        "whileBusy": {"greeting": "reject", "answer": "interrupt"},
        "handoff": {
            "webhook": {"url": "http://desk/hook", "secretRef": KEY},
            "agentSecretRef": {"name": "desk", "key": "agents"},
        },
    },
}


def settings_of(folder: Path, spec: object, hook: str = "secret", agents: str = "a-key-of-the-desk") -> Settings:
    (folder / "desk").mkdir()
    (folder / "desk" / "hook").write_text(hook)
    (folder / "desk" / "agents").write_text(agents)
    flow = {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}, "spec": spec}
    config = folder / "config.json"
    config.write_text(derive(ChatFlow.model_validate(flow)).model_dump_json())
    environ = {"CHATFLOW_CONFIG": str(config), "CHATFLOW_REDIS_URL": "-", "CHATFLOW_SECRETS_DIR": str(folder)}
    return Settings.read(environ)


async def start(settings: Settings) -> None:
    """What gateway and worker make of their settings."""
    async with memory_case() as case, open_session() as session:
        desk_of(settings, case.handoffs)
        metrics = Metrics(CollectorRegistry())
        hook_worker(settings, session, case.hooks, case.ownership(), metrics, case.time.clock, case.handoffs)


async def test_webhooks_and_desk_come_from_the_manifest(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, SPEC)
    await start(settings)
    found = {hook: (config.url, config.timeout_s) for hook, config in webhooks_of(settings.config).items()}
    assert found == {Hook.MESSAGES: ("http://crm/hook", 3.0), Hook.HANDOFF: ("http://desk/hook", 10.0)}


async def test_where_nobody_can_be_asked_to_take_over_the_bot_answers_again(tmp_path: Path, open_case: Open) -> None:
    async with receiving() as desk, open_case(RULES) as case, open_session() as session:
        desk.fail_first(2, 410)
        webhook = {"url": desk.url, "secretRef": KEY}
        handoff = {"webhook": webhook, "agentSecretRef": {"name": "desk", "key": "agents"}}
        settings = settings_of(tmp_path, {"dialogue": {"handoff": handoff}}, hook=SECRET)
        claimed = await case.claim(turn := case.turn("m1"))
        asked = requested("u", Message("user", "转人工", 1, "m1"), claimed.conversation, "phrase")
        handed_over = Outcome(Event.HANDED_OVER, Memory(), reply("m1"), delivery=asked)
        await case.store.commit(turn, claimed.conversation, handed_over)
        assert (await case.handoffs.look("u")).scene is Scene.HANDOFF
        metrics, ownership = Metrics(CollectorRegistry()), case.ownership()
        await ownership.refresh()
        worker = hook_worker(settings, session, case.hooks, ownership, metrics, case.time.clock, case.handoffs)
        telling = asyncio.create_task(worker.run())
        with case.store.watch("u") as watch:
            async with asyncio.timeout(30):
                while (await case.handoffs.look("u")).scene is Scene.HANDOFF:
                    await watch.wait(30)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        told = [entry.item for entry in await case.store.outbox("u", "0")][-1]
        assert isinstance(told, Notice)
        assert (told.kind, told.text) == ("returned", texts_for(settings.config).unreached)


async def test_a_flow_without_them_tells_nobody(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, {})
    await start(settings)
    assert webhooks_of(settings.config) == {}
    async with memory_case() as case:
        assert desk_of(settings, case.handoffs) is None


@pytest.mark.parametrize(
    ("secrets", "says"),
    [
        pytest.param({"hook": "\n"}, "secret desk/hook: holds no secret", id="no secret"),
        pytest.param({"hook": "whsec_?"}, "secret desk/hook: .*base64", id="no base64"),
        pytest.param({"agents": "too-short"}, "secret desk/agents: key 1 has 9 characters", id="an easy key"),
        pytest.param({"agents": "# none yet"}, "secret desk/agents: it holds no key", id="no key"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, secrets: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsInvalid, match=says):
        await start(settings_of(tmp_path, SPEC, **secrets))


def test_what_is_said_to_a_person_is_neither_refused_nor_interrupted(tmp_path: Path) -> None:
    policies = Rules.of(settings_of(tmp_path, SPEC).config).while_busy
    assert (policies[Scene.GREETING], policies[Scene.HANDOFF]) == (WhileBusy.REJECT, WhileBusy.ENQUEUE)
