"""`chatflow train` on small flows: what it reads, compares, writes and refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from chatflow_cli.local.artefact_store import ArtefactStore, Pair
from chatflow_cli.main import main
from chatflow_models.intent import IntentModel
from chatflow_runtime.adapters.record_files import RecordFiles
from chatflow_runtime.ports import Record, RecordKind
from click.testing import CliRunner, Result

SHOP = Path(__file__).parents[2] / "examples" / "shop-support" / "intents.yaml"
MORE = [
    {"text": "reimburse me please", "intent": "refund"},
    {"text": "where has the courier got to", "intent": "delivery"},
    {"text": "sing me a song", "intent": "out_of_scope"},
]


def train(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", str(file), "--data", str(file.parent / "data"), *arguments])


def evaluate(file: Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", str(file), "--json", "--data", str(file.parent / "data")])


def report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Further labelled questions."""
    file = tmp_path / "more.jsonl"
    file.write_text("\n".join(map(json.dumps, MORE)))
    return file


def put_in_force(file: Path) -> Path:
    """The folder of the model that is in force, once what `evaluate` built is."""
    assert evaluate(file).exit_code == 0
    store = ArtefactStore(file.parent / "data" / "tiny" / "artefacts")
    (intent,) = (store.path / "intent").iterdir()
    (knowledge,) = (path for path in (store.path / "knowledge").iterdir() if path.is_dir())
    store.put_in_force(Pair(intent.name, knowledge.name))
    return intent


def test_the_model_serves_and_its_report_lies_beside_it(tiny: Path) -> None:
    result = train(tiny)
    assert result.exit_code == 0, result.output
    folder = tiny.parent / "data" / "tiny" / "training"
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "weights.npz", "report.md", "report.json", "report.html")
    }
    model = IntentModel.load(folder)
    assert model.predict(["i want my money back"])[0].intent == "refund"
    assert f"version {model.version}" in result.stdout
    assert "model to use: fitted" in result.stderr
    assert json.loads((folder / "report.json").read_text())["verdict"] in result.stdout


def test_up_finds_the_model_once_the_further_examples_stand_in_the_manifest(tiny: Path, more: Path) -> None:
    assert train(tiny, "--examples", str(more)).exit_code == 0
    source = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "more"},
        "data": {"labelled.jsonl": more.read_text()},
    }
    with_source = tiny.read_text().replace(
        "    intent:\n", "    intent:\n      exampleSources: [{configMap: {name: more}}]\n"
    )
    tiny.write_text(f"{with_source}---\n{yaml.safe_dump(source)}")
    result = evaluate(tiny)
    assert "indexing the knowledge" in result.stderr
    assert "training" not in result.stderr


def test_questions_that_the_bot_kept_count_with_the_label_a_person_gave_them(tiny: Path) -> None:
    kept = [
        Record(
            RecordKind.LABELLING,
            f"u{i}",
            1_764_000_000_000,
            {"text": text, "intent": "delivery", "confidence": 0.4, "origin": "static", "message_id": f"m{i}"},
            id=f"{i}-0",
        )
        for i, text in enumerate(("reimburse me please", "what is love", "give back what i paid", "hm"))
    ]
    asyncio.run(RecordFiles(tiny.parent / "records").write(kept))
    (file,) = (tiny.parent / "records").iterdir()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, label in zip(rows, ("refund", "out_of_scope", "refund", ""), strict=True):
        row["label"] = label
    del rows[3]["label"]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = report(train(tiny, "--json", "--current", "none", "--examples", str(file)))
    assert found["examples_per_intent"] == {"delivery": 8, "refund": 10, "out_of_scope": 6}
    assert f"{file}: 1 of 4 questions have no label; left out" in found["warnings"]


def test_a_table_of_labels_is_read_too_and_a_misspelt_label_is_pointed_out(tiny: Path) -> None:
    file = tiny.parent / "labelled.csv"
    file.write_text("text,intent, Label\nreimburse me please,delivery,refnd\nhm,delivery,\n")
    found = report(train(tiny, "--json", "--examples", str(file)))
    assert found["examples_per_intent"]["refnd"] == 1
    assert f"{file}: 1 of 2 questions have no label; left out" in found["warnings"]
    assert f"{file}:2: no example of the manifest has the label 'refnd'; did you mean 'refund'?" in found["warnings"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("more.jsonl", '{"text": "a", "intent": "b"}\nno json', "more.jsonl:2: no JSON"),
        ("more.jsonl", '{"text": "a"}', "more.jsonl:1: the columns text and intent are needed"),
        ("more.csv", "text,label\nrefund, please,refund\n", "more.csv:2: the row has more cells than the header"),
        (
            "more.jsonl",
            '{"kind": "rating", "fields": {"score": 5}}',
            "more.jsonl:1: a record of kind 'rating' holds no",
        ),
        ("more.csv", "text;label\na;refund\nb;refund\n", "more.csv:1: the columns text and label, or text and intent"),
        ("more.csv", "text,intent,confidence\na,refund,0.4\n", "more.csv:1: intent is what the bot took"),
        ("more.csv", 'text,label\n"two\nlines",refund\n"a\nb","bad\nname"\n', "more.csv:4: the label 'bad\\nname'"),
        ("more.jsonl", '{"text": ' + "[" * 100_000, "more.jsonl:1: this cannot be read as JSON"),
        ("more.txt", "refund", "more.txt: examples are read from .yaml, .jsonl and .csv"),
        (
            "more.jsonl",
            '{"text": "Money back", "intent": "delivery"}',
            "more.jsonl:1: 'Money back' has the label 'delivery', but 'refund' in flow.yaml:16; keep the right one",
        ),
    ],
    ids=[
        "no JSON",
        "no label",
        "too many cells",
        "a rating",
        "semicolons",
        "the bot's guesses",
        "no name",
        "too deep",
        "another ending",
        "a conflict",
    ],
)
def test_examples_that_cannot_be_used_are_named_with_file_and_line(
    tiny: Path, name: str, content: str, message: str
) -> None:
    (tiny.parent / name).write_text(content)
    result = train(tiny, "--examples", str(tiny.parent / name))
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tiny.parent / "data" / "tiny" / "training").exists()


def test_the_model_in_force_is_compared_with_and_left_as_it_is(tiny: Path, more: Path) -> None:
    in_force = put_in_force(tiny)
    before = {path.name: path.read_bytes() for path in in_force.iterdir()}
    same = report(train(tiny, "--json"))["held_out"]["current"]
    assert same["basis"] == "same examples"
    found = report(train(tiny, "--json", "--examples", str(more)))["held_out"]["current"]
    assert found["basis"] == "stand-in"
    assert found["known_share"] == 1
    assert found["version"] == same["version"] == IntentModel.load(in_force).version
    assert {path.name: path.read_bytes() for path in in_force.iterdir()} == before
    others = tiny.parent / "others/artefacts"
    others.mkdir(parents=True)
    (others / "current.json").write_text("{}")
    for folder in (in_force, others / "intent/v1"):
        refused = train(tiny, "--out", str(folder))
        assert (refused.exit_code, "a model that may be in use lies there" in refused.stderr) == (2, True)
    assert "it holds something else" in train(tiny, "--out", str(tiny.parent)).stderr


def test_a_folder_without_a_model_is_no_current_model(tiny: Path) -> None:
    result = train(tiny, "--current", str(tiny.parent))
    assert result.exit_code == 2
    assert "is no intent artefact; or name another with --current, or none" in result.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A part of the Chinese example's intents as a flow of their own."""
    listed: dict[str, list[str]] = yaml.safe_load(SHOP.read_text(encoding="utf-8"))
    part = {name: listed[name][:20] for name in ("refund", "invoice", "shipping_time", "membership", "out_of_scope")}
    flow = {
        "apiVersion": "chatflow.dev/v1alpha1",
        "kind": "ChatFlow",
        "metadata": {"name": "shop"},
        "spec": {"locale": "zh-CN", "models": {"intent": {"encoder": "none", "examples": part}}},
    }
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(flow, allow_unicode=True), encoding="utf-8")
    return file


def test_the_same_data_and_seed_give_the_same_version_and_report_in_chinese_too(shop: Path) -> None:
    found = [report(train(shop, "--json", "--seed", "3")) | {"training_s": 0} for _ in range(2)]
    assert found[0] == found[1]
    assert found[0]["held_out"]["questions"] == 20
    other = report(train(shop, "--json", "--seed", "4"))
    assert other["version"] == found[0]["version"]
    assert other["held_out"]["mistakes"] != found[0]["held_out"]["mistakes"]
    page = (shop.parent / "data" / "shop" / "training" / "report.html").read_text(encoding="utf-8")
    assert all(mistake["text"] in page for mistake in other["held_out"]["mistakes"])
