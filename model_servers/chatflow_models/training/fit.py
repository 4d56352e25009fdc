"""Training of the intent model, from examples to an artefact. Called by `chatflow up`, by Jobs and by benchmarks.

Multinomial logistic regression on n-grams joined with the standardised vectors of a sentence encoder, with a class of
its own for out-of-scope questions: the flow's own ones, and everyday questions that hardly any flow is for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from chatflow_models.intent.artefact import Evidence, StoredModel, write_artefact
from chatflow_models.intent.calibration import Calibration
from chatflow_models.intent.encoders import Encoder
from chatflow_models.intent.errors import TrainingDataError
from chatflow_models.intent.features import Float32
from chatflow_models.intent.fingerprints import fingerprints, labelled_fingerprints
from chatflow_models.intent.neighbours import by_class
from chatflow_models.intent.scoring import PROBES

from .corpus import Corpus, build_corpus
from .evaluation import confusion_matrix, evaluate, top_confusions
from .examples import Example, check_examples
from .folds import HeldOut, assign_folds, hold_out
from .near_duplicates import group_of, near_duplicates
from .report import TrainingReport
from .solver import Regression
from .tempering import fit_calibration, out_of_scope_share

OnProgress = Callable[[str, float], None]
"""Told the stage and the share of the whole that is done, 0 to 1."""

_ENCODED, _VALIDATED = 0.3, 0.85
_WORKERS = 2


@dataclass(frozen=True, slots=True)
class _Fitted:
    """What the computation gives, before any of it is written."""

    corpus: Corpus
    held_out: HeldOut
    folds: NDArray[np.intp]
    calibration: Calibration
    weights: Float32


def train(
    examples: Sequence[Example],
    encoder: Encoder,
    out: Path,
    seed: int = 0,
    threshold: float = 0.85,
    on_progress: OnProgress | None = None,
) -> TrainingReport:
    """Trains a model, writes its artefact to the folder `out`, and reports how good it is.

    The same examples, encoder and seed give the same version. Raises TrainingDataError for examples that no model can
    be trained from, EncoderError from the encoder, ArtefactError when `out` holds something else.
    """
    fitted = fit_model(examples, encoder, seed, threshold, on_progress)
    write_artefact(out, fitted.stored, fitted.report.as_json(), fitted.report.as_markdown())
    return fitted.report


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A trained model that stands on no disk yet."""

    stored: StoredModel
    report: TrainingReport


def fit_model(
    examples: Sequence[Example],
    encoder: Encoder,
    seed: int = 0,
    threshold: float = 0.85,
    on_progress: OnProgress | None = None,
    unseen: Sequence[Example] = (),
) -> FittedModel:
    """What `train` writes; errors as there. Of `unseen`, which the model is to be tested on, none is among its everyday
    questions either."""
    if not 0 < threshold < 1:
        raise TrainingDataError(f"threshold {threshold} is no probability; set one between 0 and 1")
    started = time.perf_counter()
    # One BLAS thread: folds run side by side, and sums come out alike whatever the number of cores.
    with threadpool_limits(limits=1):
        fitted = _fit(examples, encoder, seed, on_progress or _silence, unseen)
        unnamed = _report(fitted, encoder, threshold, time.perf_counter() - started)
        stored = _stored(fitted, encoder, threshold, unnamed)
    return FittedModel(stored, replace(unnamed, version=stored.version))


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What models that did not see an example make of it."""

    examples: tuple[Example, ...]
    """As checked: normalised, none twice."""
    labels: tuple[str, ...]
    probabilities: Float32
    """(examples, labels + 1), out-of-scope last."""
    folds: NDArray[np.intp]
    """(examples,) the fold that each was held out in; ALWAYS_TRAINED for the only example of its intent."""


def cross_validated(examples: Sequence[Example], encoder: Encoder, seed: int = 0) -> CrossValidated:
    """The predictions that calibration and report rest on, for studies of what builds on them; errors as `train`."""
    with threadpool_limits(limits=1):
        fitted = _fit(examples, encoder, seed, _silence)
    count = fitted.corpus.example_count
    probabilities = fitted.calibration.probabilities(fitted.held_out.logits, list(fitted.held_out.evidence.values()))
    return CrossValidated(
        fitted.corpus.checked.examples, fitted.corpus.checked.labels, probabilities[:count], fitted.folds[:count]
    )


def _silence(_stage: str, _share: float) -> None:
    """Progress that nobody listens to."""


def fold_count(examples: int) -> int:
    """More folds for few examples, where a fold's model would otherwise be much worse than the final one."""
    return 10 if examples < 1000 else 5


def _fit(
    examples: Sequence[Example], encoder: Encoder, seed: int, tell: OnProgress, unseen: Sequence[Example] = ()
) -> _Fitted:
    checked = check_examples(examples)
    corpus = build_corpus(checked, encoder, lambda share: tell("encoding", _ENCODED * share), unseen)
    folds = fold_count(corpus.example_count)
    regression = Regression()
    fold_of = assign_folds(corpus.problem.classes, _groups(corpus), folds, np.random.default_rng(seed))
    done = 0

    def on_fold() -> None:
        nonlocal done
        done += 1
        tell("validating", _ENCODED + (_VALIDATED - _ENCODED) * done / folds)

    held_out = hold_out(corpus.problem, fold_of, regression, _WORKERS, on_fold)
    weights = corpus.problem.fit(regression, held_out.mean_weights)
    known = held_out.is_held_out
    problem = corpus.problem
    outside = sum(example.intent == OUT_OF_SCOPE for example in checked.examples)
    calibration = fit_calibration(
        held_out.logits[known],
        [kind[known] for kind in held_out.evidence.values()],
        problem.classes[known],
        problem.importance[known],
        out_of_scope_share(outside, len(checked.examples)),
    )
    tell("fitted", 1.0)
    return _Fitted(corpus, held_out, fold_of, calibration, weights)


def _groups(corpus: Corpus) -> NDArray[np.intp]:
    """(rows,) the group of near-duplicates of each; everyday questions are each one of its own."""
    texts = [example.text for example in corpus.checked.examples]
    own = group_of(len(texts), near_duplicates(texts))
    first = int(own.max(initial=-1)) + 1
    return np.concatenate([own, first + np.arange(corpus.background_count)])


def _report(fitted: _Fitted, encoder: Encoder, threshold: float, training_s: float) -> TrainingReport:
    """The report of a fit; its version is empty until the model is put together."""
    corpus, problem = fitted.corpus, fitted.corpus.problem
    probabilities = fitted.calibration.probabilities(fitted.held_out.logits, list(fitted.held_out.evidence.values()))
    own = fitted.held_out.is_held_out.copy()
    own[corpus.example_count :] = False
    everyday = fitted.held_out.is_held_out & (np.arange(len(own)) >= corpus.example_count)
    inside = own & (problem.classes < problem.class_count - 1)
    counts = Counter(example.intent for example in corpus.checked.examples)
    names = (*corpus.checked.labels, OUT_OF_SCOPE)
    matrix = confusion_matrix(probabilities[own], problem.classes[own])
    warnings = list(corpus.checked.warnings)
    if not inside.any():
        warnings.append("no intent has two examples, so nothing could be measured; all figures read 0")
    return TrainingReport(
        version="",
        encoder=encoder.name,
        threshold=threshold,
        temperature=fitted.calibration.temperature,
        out_of_scope_bias=fitted.calibration.out_of_scope_bias,
        folds=int(fitted.folds.max()) + 1,
        examples_per_intent={name: counts[name] for name in names if counts[name]},
        evaluated=int(inside.sum()),
        evaluation=evaluate(probabilities[own], problem.classes[own], threshold),
        background_questions=corpus.background_count,
        background_left_out=corpus.left_out,
        background_leak=evaluate(probabilities[everyday], problem.classes[everyday], threshold).out_of_scope_leak,
        confusions=top_confusions(matrix, names),
        matrix_labels=names,
        matrix=tuple(tuple(row) for row in matrix.tolist()),
        warnings=tuple(warnings),
        training_s=round(training_s, 3),
    )


def _stored(fitted: _Fitted, encoder: Encoder, threshold: float, report: TrainingReport) -> StoredModel:
    """The model with standardisation and idf folded into its weights."""
    corpus, featuriser, problem = fitted.corpus, fitted.corpus.featuriser, fitted.corpus.problem
    grams = len(featuriser.idf)
    order, starts = by_class(problem.classes, problem.class_count)
    dense = np.asarray(fitted.weights[grams:-1] * corpus.scale[:, None], dtype=np.float32)
    compared = problem.grams[order if Evidence.GRAMS in fitted.held_out.evidence else order[:0]]
    return StoredModel(
        labels=corpus.checked.labels,
        encoder=encoder.name,
        encoder_path=str(encoder.path) if encoder.path else None,
        threshold=threshold,
        calibration=fitted.calibration,
        evidence=tuple(fitted.held_out.evidence),
        unknown_idf=featuriser.unknown_idf,
        words=featuriser.words,
        pieces=featuriser.pieces,
        idf=featuriser.idf,
        rows=np.asarray(fitted.weights[:grams] * featuriser.idf[:, None], dtype=np.float32),
        dense=dense,
        bias=np.asarray(fitted.weights[-1] - corpus.mean @ dense, dtype=np.float32),
        topic_starts=np.array([] if problem.topics is None else problem.topics.starts, dtype=np.int64),
        mean=corpus.mean,
        examples=problem.vectors[order].astype(np.float16),
        gram_pointers=compared.indptr.astype(np.int64),
        gram_ids=compared.indices.astype(np.int32),
        gram_weights=compared.data.astype(np.float16),
        starts=starts.astype(np.int64),
        probes=encoder.encode(PROBES),
        report=report.summary(OUT_OF_SCOPE),
        trained_on=fingerprints(example.text for example in corpus.checked.examples),
        labelled_as=labelled_fingerprints((example.text, example.intent) for example in corpus.checked.examples),
    )
