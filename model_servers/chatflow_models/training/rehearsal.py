"""A training with a rehearsal: a model of most examples is tested on the rest, beside the current model; then the
model to use is trained on everything. Called by `chatflow train`.

Near-duplicates stay on one side of the split. A current model that learned some of the held-out questions would look
better than it is: then a model of its own examples without those, as far as they are among the given ones, is tested
in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from numpy.typing import NDArray

from chatflow_models.intent.encoders import Encoder
from chatflow_models.intent.fingerprints import are_known, fingerprints, labelled_fingerprints
from chatflow_models.intent.scoring import IntentModel

from .comparison import Compared, compare
from .data_checks import doubtful_pairs, refuse_conflicts
from .examples import Example, check_examples
from .fit import FittedModel, OnProgress, fit_model
from .judgement import Judged, judge
from .near_duplicates import group_of, near_duplicates
from .split import hold_out_groups

FEW = 100
"""With fewer in-scope questions held out only large differences show."""
MOST_KNOWN = 0.9
"""Share of the current model's examples that its stand-in has to know."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train and to test."""

    threshold: float = 0.85
    held_out: float = 0.2
    """Share of the examples that the test takes, 0 to 1."""
    seed: int = 0
    """Which of them; the model to use does not depend on it."""


class Basis(StrEnum):
    """What was tested as the current model."""

    ITSELF = "itself"
    """It learned none of the held-out questions."""
    STAND_IN = "stand-in"
    """A model of its examples without the held-out ones."""
    SAME_EXAMPLES = "same examples"
    """Its examples and labels are the given ones, so the stand-in is the new model's own."""
    DOUBTFUL = "doubtful"
    """Itself, though it may have learned held-out questions, or has."""


@dataclass(frozen=True, slots=True)
class Rival:
    """The current model, as tested."""

    version: str
    basis: Basis
    judged: Judged
    seen: int | None
    """How many of the held-out questions it was trained on; None where its artefact does not say."""
    known_share: float | None
    """Share of its examples that are among the given ones, likewise."""
    compared: Compared
    foreign: int = 0
    """How many of the held-out in-scope questions have a label that it does not know."""


@dataclass(frozen=True, slots=True)
class HeldOutTest:
    """The rehearsal: what the model of the other examples makes of those that were held out."""

    learned: int
    """Examples that it was trained on."""
    groups: int
    """Groups of near-duplicates, most of them of one question, among those held out."""
    judged: Judged
    rival: Rival | None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The model to use, and how good it is."""

    fitted: FittedModel
    settings: Settings
    test: HeldOutTest | None
    """None where no intent has two groups of examples."""
    warnings: tuple[str, ...]


def rehearse(
    examples: Sequence[Example],
    encoder: Encoder,
    settings: Settings,
    current: IntentModel | None = None,
    on_progress: OnProgress | None = None,
) -> Rehearsed:
    """Tests, then trains on everything; the same input gives the same result, but for the seconds that it took.

    Raises TrainingDataError for conflicting labels and for examples that no model can be trained from, EncoderError
    from the encoder.
    """
    refuse_conflicts(examples)
    checked = check_examples(examples).examples
    pairs = near_duplicates([example.text for example in checked])
    groups = group_of(len(checked), pairs)
    is_held = hold_out_groups([example.intent for example in checked], groups, settings.held_out, settings.seed)
    progress = _Progress(on_progress, models=3 if current is not None else 2)
    test = _tested(_Split(checked, groups, is_held), encoder, settings, current, progress)
    fitted = fit_model(examples, encoder, threshold=settings.threshold, on_progress=progress.of(2, "model to use"))
    warnings = [*fitted.report.warnings, *doubtful_pairs(checked, pairs), *_doubts(test)]
    return Rehearsed(fitted, settings, test, tuple(warnings))


@dataclass(frozen=True, slots=True)
class _Split:
    """Checked examples, their groups, and which of them are held out."""

    examples: tuple[Example, ...]
    groups: NDArray[np.intp]
    is_held: NDArray[np.bool_]

    @property
    def held(self) -> list[Example]:
        return [self.examples[i] for i in np.flatnonzero(self.is_held)]

    @property
    def learned(self) -> list[Example]:
        return [self.examples[i] for i in np.flatnonzero(~self.is_held)]


class _Progress:
    """The progress of several fits as one."""

    def __init__(self, tell: OnProgress | None, models: int) -> None:
        self._tell, self._models = tell, models

    def of(self, number: int, name: str) -> OnProgress:
        """The progress of the fit with that number; the last one is number 2, the stand-in 1."""
        first = number if self._models == 3 else min(number, 1)

        def tell(stage: str, share: float) -> None:
            if self._tell is not None:
                self._tell(f"{name}: {stage}", (first + share) / self._models)

        return tell

    def testing(self, number: int) -> Callable[[float], None]:
        """The progress of a test, which comes at the end of the fit with that number."""
        tell = self.of(number, "held-out questions")
        return lambda _: tell("testing", 1.0)


def _tested(
    split: _Split, encoder: Encoder, settings: Settings, current: IntentModel | None, progress: _Progress
) -> HeldOutTest | None:
    if not any(example.intent != OUT_OF_SCOPE for example in split.held):
        return None
    held, groups = split.held, split.groups[split.is_held]
    candidate = _model(split.learned, encoder, settings, progress.of(0, "model to test"), held)
    judged = judge(candidate, held, progress.testing(0))
    rival = None if current is None else _rival(split, judged, candidate, current, settings, progress)
    return HeldOutTest(len(split.learned), len(np.unique(groups)), judged, rival)


def _model(
    examples: Sequence[Example], encoder: Encoder, settings: Settings, tell: OnProgress, held: Sequence[Example]
) -> IntentModel:
    fitted = fit_model(examples, encoder, threshold=settings.threshold, on_progress=tell, unseen=held)
    return IntentModel(fitted.stored, encoder)


def _rival(
    split: _Split,
    new: Judged,
    candidate: IntentModel,
    current: IntentModel,
    settings: Settings,
    progress: _Progress,
) -> Rival:
    seen: int | None = None
    known_share: float | None = None
    basis, judged = Basis.DOUBTFUL, None
    if current.trained_on is not None:
        seen = int(are_known([example.text for example in split.held], current.trained_on).sum())
        known_share = _known_share(split.examples, current)
        its_own = _its_own(split.learned, current)
        if not seen:
            basis = Basis.ITSELF
        elif _has_same_examples(split.examples, current) and _is_same_encoder(current, candidate):
            basis, judged = Basis.SAME_EXAMPLES, new
        elif _can_stand_in(its_own, split, current, candidate):
            tell = progress.of(1, "current model without them")
            stand_in = _model(its_own, current.encoder, settings, tell, split.held)
            basis, judged = Basis.STAND_IN, judge(stand_in, split.held, progress.testing(1))
    if judged is None:
        judged = judge(current, split.held, progress.testing(1))
    compared = compare(new, judged, split.groups[split.is_held], settings.threshold, settings.seed)
    labels = {*current.labels, OUT_OF_SCOPE}
    foreign = sum(example.intent not in labels for example in split.held) if basis is not Basis.STAND_IN else 0
    return Rival(current.version, basis, judged, seen, known_share, compared, foreign)


def _has_same_examples(examples: Sequence[Example], current: IntentModel) -> bool:
    """Whether the current model was trained on these examples, all of them and no others, with these labels."""
    known, labelled = current.trained_on, current.labelled_as
    return (
        known is not None
        and np.array_equal(known, fingerprints(example.text for example in examples))
        and (labelled is None or np.array_equal(labelled, _labelled(examples)))
    )


def _can_stand_in(its_own: Sequence[Example], split: _Split, current: IntentModel, candidate: IntentModel) -> bool:
    """Whether a model of these examples is like the current one. It has today's labels, so not where those were others;
    and where it would be the model to test once more, what the current one knows beside is what matters."""
    if not any(example.intent != OUT_OF_SCOPE for example in its_own):
        return False
    labelled = current.labelled_as
    if labelled is not None and not np.isin(_labelled(its_own), labelled).all():
        return False
    return list(its_own) != split.learned or not _is_same_encoder(current, candidate)


def _is_same_encoder(current: IntentModel, candidate: IntentModel) -> bool:
    return (current.encoder.name, current.encoder.path) == (candidate.encoder.name, candidate.encoder.path)


def _labelled(examples: Sequence[Example]) -> NDArray[np.uint64]:
    return labelled_fingerprints((example.text, example.intent) for example in examples)


def _its_own(learned: Sequence[Example], current: IntentModel) -> list[Example]:
    """The examples that the current model was trained on, too."""
    if current.trained_on is None:
        return []
    are_its = are_known([example.text for example in learned], current.trained_on)
    return [example for example, is_its in zip(learned, are_its, strict=True) if is_its]


def _known_share(examples: Sequence[Example], current: IntentModel) -> float | None:
    if current.trained_on is None or not len(current.trained_on):
        return None
    own = fingerprints(example.text for example in examples)
    return float(np.isin(current.trained_on, own).mean())


def _doubts(test: HeldOutTest | None) -> list[str]:
    if test is None:
        return ["no intent has two examples that differ enough, so nothing was held out; give every intent some"]
    found = []
    inside = int(test.judged.is_inside.sum())
    if inside < FEW:
        found.append(f"only {inside} in-scope questions were held out, so only large differences show")
    rival = test.rival
    if rival is not None and rival.foreign:
        found.append(
            f"{rival.foreign} of the held-out questions have labels that the current model does not know; it gets them"
            " wrong by that alone"
        )
    if rival is not None and rival.basis is Basis.STAND_IN and (rival.known_share or 0) < MOST_KNOWN:
        found.append(
            f"only {rival.known_share:.0%} of the current model's examples are among the given ones, so its stand-in"
            " is weaker than it; give the rest as well, or test both on questions that neither knows"
        )
    return found
