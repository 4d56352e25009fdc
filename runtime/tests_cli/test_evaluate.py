"""`chatflow evaluate` on a small flow: the figures that others rely on, and what it says about wrong files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chatflow_cli.main import main
from click.testing import CliRunner, Result


def evaluate(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", str(file), "--data", str(file.parent / "data"), *arguments])


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_figures_are_one_json_object(tiny: Path) -> None:
    found = figures(evaluate(tiny, "--json"))
    assert found["questions"] == 4
    assert set(found) >= {
        *("intent_accuracy", "precision_above_threshold", "found_at_1", "found_at_5", "out_of_scope_held_back"),
        *("rungs", "origins", "calibration_error", "coverage_above_threshold", "out_of_scope_above_threshold"),
    }
    assert found["found_at_5"] == 1.0
    assert found["intent_accuracy"] == 1.0
    assert sum(found["rungs"].values()) == pytest.approx(1.0)
    assert sum(found["origins"].values()) == pytest.approx(1.0)


def test_the_text_form_names_the_questions_that_failed(tiny: Path) -> None:
    (tiny.parent / "questions.jsonl").write_text(
        json.dumps({"text": "when do i get my money back", "intent": "delivery", "answers": ["delivery-time"]})
    )
    result = evaluate(tiny)
    assert result.exit_code == 0
    assert "intent accuracy                  0.0%" in result.stdout
    assert "acted on although wrong:\n  when do i get my money back  [delivery; predicted refund" in result.stdout
    assert "right entry not first" in result.stdout


def test_artefacts_are_built_once_and_again_when_the_content_changes(tiny: Path) -> None:
    assert "training the intent model" in evaluate(tiny, "--json").stderr
    assert evaluate(tiny, "--json").stderr == ""
    tiny.write_text(tiny.read_text().replace("takes two days", "takes three days"))
    changed = evaluate(tiny, "--json").stderr
    assert "indexing the knowledge" in changed
    assert "training" not in changed
    tiny.write_text(tiny.read_text().replace("track my parcel", "follow my parcel"))
    assert "training the intent model" in evaluate(tiny, "--json").stderr


def test_options_change_the_flow_for_this_run_alone(tiny: Path) -> None:
    sure = figures(evaluate(tiny, "--json", "--set", "models.intent.confidence=0.999"))
    assert sure["coverage_above_threshold"] == 0.0
    assert sure["rungs"] == {"L2": 1.0}
    with_model = ("--set", "models.llm.openAI={baseURL: 'http://127.0.0.1:1/v1', model: m}")
    asked = figures(evaluate(tiny, "--json", "--set", "models.intent.confidence=0.999", *with_model))
    assert asked["rungs"] == {"L1": 1.0}


def test_moderation_and_greetings_are_no_answers_from_knowledge(tiny: Path) -> None:
    manifest = tiny.read_text().replace(
        "  models:\n", "  moderation: {wordLists: [{name: faq, key: words.txt}]}\n  models:\n"
    )
    tiny.write_text(manifest.replace("data:\n", "data:\n  words.txt: scoundrel\n"))
    lines = [
        {"text": "how long does a refund take, scoundrel", "intent": "refund", "answers": ["refund-time"]},
        {"text": "hello", "intent": "out_of_scope", "answers": []},
    ]
    (tiny.parent / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = figures(evaluate(tiny, "--json"))
    assert found["origins"] == {"dialogue": 1.0}
    assert found["out_of_scope_held_back"] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}', "questions.jsonl:1: 'intent'; write"),
        ('{"text": "a", "intent": "b"}\nno json', "questions.jsonl:2: "),
        ('{"text": "a", "intent": "b", "answers": "c"}', "answers must be a list of ids"),
        ("", "it holds no question"),
        (
            '{"text": "a", "intent": "refunds"}',
            "questions.jsonl:1: intent 'refunds' is unknown; did you mean 'refund'?",
        ),
        (
            '{"text": "a", "intent": "refund", "answers": ["x"]}',
            "questions.jsonl:1: answer 'x' is unknown; correct it, or add it to the flow",
        ),
    ],
    ids=["missing intent", "no JSON", "answers are no list", "empty", "no such intent", "no such entry"],
)
def test_a_wrong_questions_file_names_the_line(tiny: Path, text: str, message: str) -> None:
    (tiny.parent / "questions.jsonl").write_text(text)
    result = evaluate(tiny)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_missing_questions_file_is_one_line(tiny: Path) -> None:
    result = evaluate(tiny, "--questions", "gone.jsonl")
    assert (result.exit_code, result.stderr) == (2, "gone.jsonl: no such file; correct the path\n")
