"""A rehearsed training: what is held out, what two models' difference says, and what the current one may have seen."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import IntentModel, NoEncoder, TrainingDataError
from chatflow_models.intent.artefact import read_artefact, write_artefact
from chatflow_models.intent.fingerprints import are_known, fingerprint
from chatflow_models.intent.text import grams, normalise, spelling
from chatflow_models.training import Example, Rehearsed, Settings, rehearse
from chatflow_models.training.comparison import Verdict, compare
from chatflow_models.training.fit import FittedModel, fit_model
from chatflow_models.training.folds import ALWAYS_TRAINED, assign_folds
from chatflow_models.training.judgement import Judged
from chatflow_models.training.near_duplicates import ALIKE, Alike, group_of, near_duplicates
from chatflow_models.training.pages import figures, markdown, verdict
from chatflow_models.training.rehearsal import Basis, Rival
from chatflow_models.training.split import hold_out_groups
from hypothesis import given
from hypothesis import strategies as st
from tests_models.flow_examples import EXAMPLES, HELD_OUT

LIGHT = NoEncoder()


def _likeness(first: str, second: str) -> float:
    def pieces(text: str) -> set[str]:
        found = grams(normalise(text))
        words = [word for word in found.spelt if not any(map(str.isdigit, word))]
        return {*found.words, *found.pieces, *(p for word in words for p in spelling(word))} or {text}

    return len(pieces(first) & pieces(second)) / len(pieces(first) | pieces(second))


@given(st.lists(st.text(st.sampled_from("ab1 退款我要"), max_size=12), max_size=12))
def test_exactly_what_is_alike_enough_is_a_near_duplicate_and_the_first_stands_for_the_same(texts: list[str]) -> None:
    wanted = {(i, j) for i, j in combinations(range(len(texts)), 2) if _likeness(texts[i], texts[j]) >= ALIKE}
    found = near_duplicates(texts)
    assert {(pair.first, pair.second) for pair in found} <= wanted
    everything = group_of(len(texts), [Alike(i, j, 1.0) for i, j in wanted])
    assert group_of(len(texts), found).tolist() == everything.tolist()
    is_first = [not any(_likeness(texts[i], texts[j]) == 1 for i in range(j)) for j in range(len(texts))]
    assert {(i, j) for i, j in wanted if is_first[i] and is_first[j]} <= {(pair.first, pair.second) for pair in found}


def test_questions_that_differ_in_a_number_alone_are_as_many_pairs() -> None:
    found = near_duplicates([f"where is my order {10000 + number}" for number in range(5000)])
    assert len(found) == 4999


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=60),
    st.integers(2, 10),
    st.integers(0, 5),
)
def test_folds_divide_no_group_and_leave_something_to_learn_each_class_from(
    rows: list[tuple[int, int]], folds: int, seed: int
) -> None:
    classes, groups = (np.array(column) for column in zip(*rows, strict=True))
    fold_of = assign_folds(classes, groups, folds, np.random.default_rng(seed))
    for class_ in set(classes.tolist()):
        own = fold_of[classes == class_]
        names = groups[classes == class_]
        assert all(len(set(own[names == name].tolist())) == 1 for name in names)
        if len(set(names.tolist())) == 1:
            assert set(own.tolist()) == {ALWAYS_TRAINED}
        else:
            assert len(set(own.tolist())) == min(folds, len(set(names.tolist())))


def test_an_order_number_does_not_make_two_questions_alike() -> None:
    assert not near_duplicates(["查件 QH20254433", "取消 QH20253321"])
    assert near_duplicates(["取消 QH20254433", "取消 QH20253321"])


def test_near_duplicates_of_near_duplicates_are_one_group() -> None:
    groups = group_of(5, [Alike(0, 1, 0.9), Alike(1, 3, 0.8)])
    assert groups[0] == groups[1] == groups[3]
    assert len(set(groups.tolist())) == 3


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 15)), max_size=40),
    st.floats(0.05, 0.5),
    st.integers(0, 3),
)
def test_no_group_is_divided_and_every_intent_with_two_groups_is_on_both_sides(
    rows: list[tuple[str, int]], share: float, seed: int
) -> None:
    intents, groups = [intent for intent, _ in rows], np.array([group for _, group in rows], dtype=np.intp)
    is_held = hold_out_groups(intents, groups, share, seed)
    intents_of, sides_of, own_groups = defaultdict(set), defaultdict(set), defaultdict(set)
    for (intent, group), held in zip(rows, is_held.tolist(), strict=True):
        intents_of[group].add(intent)
        sides_of[group].add(held)
    assert all(len(sides) == 1 for sides in sides_of.values())
    for group, found in intents_of.items():
        if len(found) == 1:
            own_groups[min(found)].add(group)
    for own in own_groups.values():
        if len(own) > 1:
            assert {side for group in own for side in sides_of[group]} == {True, False}
    assert hold_out_groups(intents, groups, share, seed).tolist() == is_held.tolist()


def _judged(right: Sequence[bool], confidence: float = 0.9) -> Judged:
    questions = tuple(Example(f"question {i}", "refund") for i in range(len(right)))
    predicted = tuple("refund" if is_right else "delivery" for is_right in right)
    return Judged(questions, predicted, np.full(len(right), confidence, dtype=np.float32))


def test_a_clear_difference_is_shown_and_a_small_one_is_not() -> None:
    good, middling, poor = _judged([True] * 60), _judged([True] * 57 + [False] * 3), _judged([False] * 12 + [True] * 48)
    each = np.arange(60)
    better, worse = compare(good, poor, each, 0.85, 0), compare(poor, good, each, 0.85, 0)
    assert (better.verdict, better.won, better.lost) == (Verdict.BETTER, 12, 0)
    assert better.p_value == pytest.approx(2 / 2**12)
    assert (worse.verdict, worse.won, worse.lost) == (Verdict.WORSE, 0, 12)
    change = better.differences["accuracy"]
    assert change.low is not None
    assert change.high is not None
    assert 0 < change.low < 0.2 < change.high
    assert not better.differences["coverage"].is_shown
    assert compare(good, middling, each, 0.85, 0).verdict is Verdict.NO_DIFFERENCE


def test_near_duplicates_count_once_in_a_comparison() -> None:
    good, poor = _judged([True] * 60), _judged([False] * 12 + [True] * 48)
    one_group = np.array([0] * 12 + list(range(1, 49)))
    found = compare(good, poor, one_group, 0.85, 0)
    assert (found.verdict, found.won) == (Verdict.NO_DIFFERENCE, 1)


@pytest.fixture(scope="module")
def light() -> FittedModel:
    return fit_model(EXAMPLES, LIGHT)


def _rehearsed(examples: Sequence[Example], current: IntentModel | None = None, seed: int = 0) -> Rehearsed:
    return rehearse(examples, LIGHT, Settings(held_out=0.25, seed=seed), current)


def _rival(rehearsed: Rehearsed) -> Rival:
    assert rehearsed.test is not None
    assert rehearsed.test.rival is not None
    return rehearsed.test.rival


def test_the_model_to_use_is_trained_on_everything_whatever_is_held_out(light: FittedModel) -> None:
    first, other = _rehearsed(EXAMPLES), _rehearsed(EXAMPLES, seed=1)
    assert first.fitted.report.version == other.fitted.report.version == light.report.version
    assert first.test is not None
    assert other.test is not None
    assert first.test.judged.questions != other.test.judged.questions
    assert first.test.learned + len(first.test.judged.questions) == len(EXAMPLES)


def test_the_same_data_and_seed_give_the_same_report_but_for_the_time(light: FittedModel) -> None:
    current = IntentModel(replace(light.stored, trained_on=None), LIGHT)

    def report() -> str:
        found = figures(_rehearsed(EXAMPLES, current))
        return json.dumps(found | {"training_s": 0.0}, sort_keys=True)

    assert report() == report()


def test_a_current_model_of_the_same_examples_leaves_nothing_to_compare(light: FittedModel) -> None:
    rehearsed = _rehearsed(EXAMPLES, IntentModel(light.stored, LIGHT))
    rival = _rival(rehearsed)
    assert rival.basis is Basis.SAME_EXAMPLES
    assert rival.known_share == 1
    assert verdict(rehearsed) == "No difference to show: the current model was trained on the same examples."


def test_other_labels_or_more_examples_are_not_the_same(light: FittedModel) -> None:
    current = IntentModel(light.stored, LIGHT)
    relabelled = [
        replace(one, intent="other") if one.intent == "refund" and i % 2 else one for i, one in enumerate(EXAMPLES)
    ]
    assert _rival(_rehearsed(relabelled, current)).basis is Basis.DOUBTFUL
    assert _rival(_rehearsed(EXAMPLES[::2], current)).basis is Basis.DOUBTFUL
    assert _rival(_rehearsed(relabelled, current)).foreign > 0


def test_a_current_model_that_learned_held_out_questions_is_replaced_by_a_stand_in() -> None:
    some = [example for i, example in enumerate(EXAMPLES) if i % 3]
    rehearsed = _rehearsed([*EXAMPLES, *HELD_OUT], IntentModel(fit_model(some, LIGHT).stored, LIGHT))
    rival = _rival(rehearsed)
    assert rival.basis is Basis.STAND_IN
    assert rehearsed.test is not None
    learned = {example.text for example in some}
    assert rival.seen == sum(question.text in learned for question in rehearsed.test.judged.questions) > 0
    assert "In its place stands a model of its own examples without them" in markdown(rehearsed)


def test_a_current_model_that_saw_nothing_is_tested_itself_and_an_old_one_is_doubted(light: FittedModel) -> None:
    elsewhere = np.array([1, 2, 3], dtype=np.uint64)
    itself = _rival(_rehearsed(EXAMPLES, IntentModel(replace(light.stored, trained_on=elsewhere), LIGHT)))
    assert (itself.basis, itself.seen, itself.known_share) == (Basis.ITSELF, 0, 0.0)
    old = _rehearsed(EXAMPLES, IntentModel(replace(light.stored, trained_on=None), LIGHT))
    assert _rival(old).basis is Basis.DOUBTFUL
    assert "does not say what it was trained on" in markdown(old)


def test_one_text_with_two_labels_stops_the_training_and_names_both_places() -> None:
    conflicting = [Example("我要退款", "refund", source="a.csv:2"), Example("我要退款 ", "coupon", source="b.jsonl:7")]
    with pytest.raises(TrainingDataError) as raised:
        _rehearsed([*conflicting, *EXAMPLES])
    assert str(raised.value) == (
        "b.jsonl:7: '我要退款 ' has the label 'coupon', but 'refund' in a.csv:2;"
        " keep the right one and remove the other"
    )


def test_near_duplicates_with_different_labels_are_warned_of() -> None:
    doubtful = Example("where is my parcel now", "refund", source="a.csv:2")
    found = "\n".join(_rehearsed([*EXAMPLES, doubtful]).warnings)
    assert "'where is my parcel' (delivery) and 'where is my parcel now' (refund in a.csv:2)" in found


def test_too_few_examples_for_a_test_are_still_trained_from() -> None:
    rehearsed = _rehearsed([EXAMPLES[0], EXAMPLES[12]])
    assert rehearsed.test is None
    assert "nothing was held out" in rehearsed.warnings[-1]
    assert "untested" in verdict(rehearsed)


def test_an_artefact_tells_what_it_was_trained_on_and_older_ones_read_as_before(
    light: FittedModel, tmp_path: Path
) -> None:
    write_artefact(tmp_path / "new", light.stored, {}, "")
    write_artefact(tmp_path / "old", replace(light.stored, trained_on=None), {}, "")
    new, old = read_artefact(tmp_path / "new"), read_artefact(tmp_path / "old")
    assert new.version == old.version
    assert old.trained_on is None
    assert new.trained_on is not None
    assert are_known(["我要退款", "WHERE is my parcel?", "who are you"], new.trained_on).tolist() == [True, True, False]


@given(st.text(st.characters(), max_size=40))
def test_a_fingerprint_fits_64_bits_and_is_that_of_the_normalised_text(text: str) -> None:
    assert 0 <= fingerprint(text) < 2**64
    assert fingerprint(normalise(text)) == fingerprint(text)
