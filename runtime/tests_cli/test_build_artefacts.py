"""The build Job's real command, on folders as a kubelet mounts them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chatflow_cli.local.artefact_store import ArtefactStore, Pair
from chatflow_runtime.adapters.artefacts import ArtefactFolder, Versions
from tests_cli.conftest import MANIFEST

FLOW, OBJECT = yaml.safe_load_all(MANIFEST)
FAQ: str = OBJECT["data"]["faq.yaml"]


@dataclass
class Ended:
    """How a build ended."""

    status: int
    out: str
    err: str
    word: str


class Cluster:
    """What the Job's pod sees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artefacts = root / "artefacts"
        self.ready = root / "ready"
        self.flow: dict[str, Any] = json.loads(json.dumps(FLOW))
        self.mount("faq", {"faq.yaml": FAQ})

    def mount(self, name: str, data: dict[str, str]) -> None:
        """A ConfigMap's volume: links into a folder that a newer content replaces."""
        folder = self.root / "configmaps" / name
        number = len(list(folder.glob("..20*"))) if folder.exists() else 0
        content = folder / f"..2026_11_22_{number}"
        content.mkdir(parents=True)
        link = folder / "..data_tmp"
        link.symlink_to(content.name)
        link.replace(folder / "..data")
        for key, text in data.items():
            (content / key).write_text(text, encoding="utf-8")
            if not (folder / key).is_symlink():
                (folder / key).symlink_to(f"..data/{key}")

    async def build(self, *arguments: str) -> Ended:
        process = await self.start(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode(), (self.root / "word").read_text(encoding="utf-8"))

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        managed = {**self.flow["metadata"], "managedFields": [{"manager": "kubectl"}], "generation": 3}
        stored = {**self.flow, "metadata": managed, "status": {"phase": "new"}}
        (self.root / "flow.json").write_text(json.dumps(stored), encoding="utf-8")
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chatflow_cli.build_artefacts", "--flow", str(self.root / "flow.json")),
            *("--configmaps", str(self.root / "configmaps"), "--artefacts", str(self.artefacts)),
            *("--ready-file", str(self.ready), *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUTF8": "1", "CHATFLOW_TERMINATION_LOG": str(self.root / "word")},
        )

    def in_force(self) -> Pair:
        pair = ArtefactStore(self.artefacts).in_force()
        assert pair is not None
        return pair


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def stages(ended: Ended) -> list[str]:
    return [line for line in ended.out.splitlines() if line.startswith("in force: ")]


async def test_a_new_flow_has_its_knowledge_in_force_before_its_model(cluster: Cluster) -> None:
    ended = await cluster.build()
    assert (ended.status, ended.err) == (0, "")
    pair = cluster.in_force()
    first, whole = stages(ended)
    assert first.startswith("in force: intent model None, knowledge ")
    assert whole == f"in force: intent model {pair.intent}, knowledge {pair.knowledge}"
    assert ended.out.index(first) < ended.out.index("training the intent model") < ended.out.index(whole)
    summary = json.loads(ended.word)
    assert (summary["intent"], summary["knowledge"], summary["entries"]) == (pair.intent, pair.knowledge, 2)
    assert (summary["examples"], summary["intents"], summary["warnings"]) == (21, 2, summary["warnings"])
    assert 0 <= summary["accuracy"] <= 1
    loaded = ArtefactFolder(cluster.artefacts).load(Versions(knowledge=pair.knowledge, intent=pair.intent))
    assert loaded.intent is not None
    assert len(loaded.index.entries) == 2

    cluster.ready.unlink()
    before = {path: path.stat().st_mtime_ns for path in cluster.artefacts.rglob("*") if path.name != "lock"}
    again = await cluster.build()
    assert (again.status, stages(again), again.word) == (0, [], ended.word)
    assert cluster.ready.exists()
    assert before.items() <= {path: path.stat().st_mtime_ns for path in cluster.artefacts.rglob("*")}.items()


async def test_changed_knowledge_is_in_force_before_the_model_is_trained_again(cluster: Cluster) -> None:
    await cluster.build()
    old = cluster.in_force()
    cluster.mount("faq", {"faq.yaml": FAQ.replace("three working days", "four working days")})
    cluster.flow["spec"]["models"]["intent"]["examples"]["refund"].append("give me my money")
    ended = await cluster.build()
    new = cluster.in_force()
    assert None not in (old.intent, new.intent)
    assert new.intent != old.intent
    assert stages(ended) == [
        f"in force: intent model {intent}, knowledge {new.knowledge}" for intent in (old.intent, new.intent)
    ]


async def test_a_model_of_another_encoder_waits_for_the_new_pair(cluster: Cluster) -> None:
    await cluster.build()
    cluster.flow["spec"]["models"]["intent"]["encoder"] = "universal"
    cluster.mount("faq", {"faq.yaml": FAQ.replace("three working days", "four working days")})
    process = await cluster.start()
    assert process.stdout is not None
    while b"training the intent model" not in await process.stdout.readline():
        assert not cluster.ready.exists()
    await process.communicate()
    assert process.returncode == 0
    assert cluster.ready.exists()


def flip(file: Path) -> None:
    """Change one byte."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no manifest of the model": ("intent/*/manifest.json", Path.unlink),
    "an empty manifest of the model": ("intent/*/manifest.json", lambda file: file.write_bytes(b"")),
    "a byte of the weights": ("intent/*/weights.npz", flip),
    "no manifest of the index": ("knowledge/*/manifest.json", Path.unlink),
    "a byte of the entries": ("knowledge/*/entries.msgpack", flip),
    "zeros for the index's version": ("knowledge/by-input-*", lambda file: file.write_bytes(b"\0" * 16)),
    "zeros for what was built": ("built/*.json", lambda file: file.write_bytes(b"\0" * 16)),
    "everything": ("*/*/*", Path.unlink),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_is_damaged_is_built_again(cluster: Cluster, damage: str) -> None:
    await cluster.build()
    pair = cluster.in_force()
    where, harm = DAMAGES[damage]
    found = list(cluster.artefacts.glob(where))
    assert found
    for file in found:
        harm(file)
    ended = await cluster.build()
    assert (ended.status, cluster.in_force()) == (0, pair)
    ArtefactFolder(cluster.artefacts).load(Versions(knowledge=pair.knowledge, intent=pair.intent))


async def test_a_damaged_index_costs_no_intent_model_while_another_is_trained(cluster: Cluster) -> None:
    await cluster.build()
    old = cluster.in_force()
    flip(cluster.artefacts / "knowledge" / old.knowledge / "entries.msgpack")
    cluster.flow["spec"]["models"]["intent"]["examples"]["refund"].append("give me my money")
    ended = await cluster.build()
    new = cluster.in_force()
    # The index is what it was once it is made again, so the pair in force is too.
    assert stages(ended) == [f"in force: intent model {new.intent}, knowledge {old.knowledge}"]
    assert None not in (old.intent, new.intent)


async def test_a_build_that_is_told_to_stop_leaves_the_folder_to_the_next(cluster: Cluster) -> None:
    store = ArtefactStore(cluster.artefacts)
    store.make()
    with store.held(print):
        waiting = await cluster.start()
        assert waiting.stdout is not None
        assert await waiting.stdout.readline() == b"waiting for another build of this flow to end\n"
        waiting.send_signal(signal.SIGTERM)
        await waiting.communicate()
        assert waiting.returncode == 128 + signal.SIGTERM
        assert not list((cluster.artefacts / "intent").iterdir())
    training = await cluster.start()
    assert training.stdout is not None
    while b"training the intent model" not in await training.stdout.readline():
        pass
    training.send_signal(signal.SIGTERM)
    ended = await cluster.build()
    await training.communicate()
    assert (training.returncode, ended.status) == (128 + signal.SIGTERM, 0)


async def test_a_flow_without_intents_is_built_in_one_step(cluster: Cluster) -> None:
    cluster.flow["spec"]["models"] = {}
    cluster.mount("faq", {"faq.yaml": "- question: When are you open?\n  answer: From nine to five.\n"})
    ended = await cluster.build()
    assert ended.status == 0
    assert len(stages(ended)) == 1
    assert json.loads(ended.word) == {
        "intent": None,
        "knowledge": cluster.in_force().knowledge,
        "entries": 1,
        "examples": 0,
        "intents": 0,
        "accuracy": None,
        "warnings": [],
    }


async def test_what_is_wrong_with_the_content_is_told_and_the_old_stays(cluster: Cluster) -> None:
    await cluster.build()
    old = cluster.in_force()
    cluster.ready.unlink()
    cluster.mount("faq", {"faq.yaml": "- question: When?\n- answer: Never.\n"})
    ended = await cluster.build()
    assert ended.status == 1
    assert ended.err.startswith("faq/faq.yaml, entry 1: answer is missing; ")
    assert len(ended.err.splitlines()) == 2
    assert ended.word == ended.err.rstrip("\n")
    assert cluster.in_force() == old
    assert not cluster.ready.exists()


async def test_every_source_that_is_missing_is_told(cluster: Cluster) -> None:
    cluster.flow["spec"]["knowledge"]["sources"] = [
        {"configMap": {"name": "guide"}},
        {"configMap": {"name": "faq", "keys": ["..data"]}},
        {"persistentVolumeClaim": {"claimName": "manuals"}},
    ]
    ended = await cluster.build()
    assert ended.status == 1
    guide, hidden, manuals = ended.err.splitlines()
    assert guide == ("spec.knowledge.sources[0]: ConfigMap guide is not mounted; create it in the flow's namespace")
    assert hidden == "spec.knowledge.sources[1]: ConfigMap faq has no key ..data; its keys: faq.yaml"
    assert manuals.endswith("give its folder here: --volume manuals=FOLDER")


async def test_volumes_are_read_and_idle_actions_are_told(cluster: Cluster) -> None:
    volume = cluster.root / "volume"
    (volume / "..2026").mkdir(parents=True)
    (volume / "..2026" / "broken.yaml").write_text("- nothing")
    (volume / "hours.md").write_text("# Opening hours\n\nFrom nine to five.\n")
    cluster.flow["spec"]["knowledge"]["sources"].append({"persistentVolumeClaim": {"claimName": "manuals"}})
    action = {"name": "a", "intent": "cancel_order", "http": {"url": "http://orders/1"}, "reply": "Done."}
    cluster.flow["spec"]["dialogue"]["actions"] = [action]
    ended = await cluster.build("--volume", f"manuals={volume}")
    assert ended.status == 0
    summary = json.loads(ended.word)
    assert summary["entries"] == 3
    assert summary["warnings"][0].startswith("spec.dialogue.actions[0].intent: no example teaches the intent 'cancel_")


async def test_two_builds_at_once_leave_a_whole_pair(cluster: Cluster) -> None:
    ended = await asyncio.gather(cluster.build(), cluster.build())
    assert [each.status for each in ended] == [0, 0]
    pair = cluster.in_force()
    ArtefactFolder(cluster.artefacts).load(Versions(knowledge=pair.knowledge, intent=pair.intent))
    assert not list(cluster.artefacts.rglob("*.new"))


async def test_a_flow_that_is_no_flow_is_told(cluster: Cluster) -> None:
    cluster.flow["spec"]["locale"] = "xx"
    ended = await cluster.build()
    assert (ended.status, ended.err.startswith("spec.locale: ")) == (1, True)
