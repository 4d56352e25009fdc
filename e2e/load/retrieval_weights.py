"""Fits the weights of retrieval: `python -m e2e.load.retrieval_weights`, whose output is copied into
`chatflow_runtime.adapters.knowledge.scoring`.

Uses the training side of the example flows alone: each question of the knowledge is looked up in an index that lacks
it, with the probabilities of an intent model that lacks it too; out-of-scope examples have no right entry. Proportions
come from a conditional logit over all entries, scale and base from a logistic regression on whether the best entry is
right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import yaml
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from chatflow_models.intent import CachingEncoder, Encoder, load_encoder
from chatflow_models.training import Example
from chatflow_models.training.fit import cross_validated
from chatflow_runtime.adapters.knowledge import Knowledge, SourceFile, build_index, read_files, scoring
from chatflow_runtime.adapters.knowledge.index import KnowledgeIndex
from chatflow_runtime.adapters.knowledge.segmentation import is_unspaced
from chatflow_runtime.adapters.knowledge.vectors import centred
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.ports import Query
from numpy.typing import NDArray
from scipy.optimize import minimize

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = ("shop-support", "saas-support")
ALTERNATIVES = 5
OUTSIDE = 0.25
"""Out-of-scope questions count so much beside those of the knowledge."""
NAMES = ("spaced", "unspaced", "question", "questions", "answer", "intent")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Cases:
    """Questions of one flow: (n, features, entries), and the right entry of each, -1 for none."""

    features: Floats
    right: NDArray[np.intp]


def cases(flow: str, encoder: Encoder) -> Cases:
    """What the parts make of each question of a flow's training side."""
    folder = EXAMPLES / flow
    files = sorted((folder / "knowledge").iterdir())
    knowledge = read_files([SourceFile(file.name, file.read_bytes()) for file in files])
    listed = yaml.safe_load((folder / "intents.yaml").read_text(encoding="utf-8"))
    examples = [Example(normalise(str(text)), intent) for intent, texts in listed.items() for text in texts]
    examples += [Example(normalise(e.text), e.intent, e.answer) for e in knowledge.examples]
    predicted = cross_validated(examples, encoder)
    place = {entry.id: number for number, entry in enumerate(knowledge.entries)}
    asked = [
        number
        for number, example in enumerate(predicted.examples)
        if predicted.folds[number] >= 0 and (example.answer in place or example.intent == OUT_OF_SCOPE)
    ]
    features = np.zeros((len(asked), len(NAMES), len(knowledge.entries)), dtype=np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        for fold in sorted(set(predicted.folds[asked].tolist())):
            rows = [row for row, number in enumerate(asked) if predicted.folds[number] == fold]
            texts = [predicted.examples[asked[row]].text for row in rows]
            built = build_index(_without(knowledge, set(texts)), encoder, Path(temporary))
            index = KnowledgeIndex.load(built.folder)
            vectors = encoder.encode(texts)
            for row, text, vector in zip(rows, texts, vectors, strict=True):
                likely = zip(predicted.labels, predicted.probabilities[asked[row]].tolist(), strict=False)
                best = tuple(sorted(likely, key=lambda pair: -pair[1])[:ALTERNATIVES])
                query = Query(text, best, vector if encoder.dimensions else None)
                features[row] = _features(index, query)
    right = [place.get(predicted.examples[number].answer or "", -1) for number in asked]
    return Cases(features, np.array(right, dtype=np.intp))


def _without(knowledge: Knowledge, texts: set[str]) -> Knowledge:
    """The knowledge without some of its questions; an entry keeps at least one."""
    entries = [
        msgspec.structs.replace(
            entry,
            variants=tuple(variant for variant in entry.variants if normalise(variant) not in texts)
            or entry.variants[:1],
        )
        for entry in knowledge.entries
    ]
    return replace(knowledge, entries=tuple(entries))


def _features(index: KnowledgeIndex, query: Query) -> Floats:
    """(features, entries) in the order of NAMES."""
    lexical = index.lexical.scores([query.text])[0]
    is_spaced = not is_unspaced(query.text)
    rows = [lexical * is_spaced, lexical * (not is_spaced)]
    if index.vectors is None or query.embedding is None:
        rows += [np.zeros_like(lexical)] * 3
    else:
        similar = index.vectors.all(centred(query.embedding[None], index.vectors.centre))
        rows += [similar.best[0], similar.mean[0], similar.answer[0]]
    agreement = np.array(scoring.agreement(query.intents, index.intents), dtype=np.float32)
    return np.stack([*rows, agreement[index.intent_of]])


def fitted(flows: Sequence[Cases]) -> tuple[NDArray[np.float64], float]:
    """Weights in the order of NAMES, and the base."""

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = 0.0, np.zeros(len(weights))
        for flow in flows:
            inside = flow.right >= 0
            features, right = flow.features[inside], flow.right[inside]
            rows = np.arange(len(right))
            logits = np.einsum("nfe,f->ne", features, weights)
            logits -= logits.max(axis=1, keepdims=True)
            chances = np.exp(logits)
            chances /= chances.sum(axis=1, keepdims=True)
            value -= float(np.log(chances[rows, right]).mean())
            slope -= (features[rows, :, right] - np.einsum("nfe,ne->nf", features, chances)).mean(axis=0)
        return value + 1e-4 * float(weights @ weights), slope + 2e-4 * weights

    bounds = [(0, None)] * len(NAMES)
    proportions = minimize(loss, np.ones(len(NAMES)), jac=True, method="L-BFGS-B", bounds=bounds).x
    best, is_right, importance = [], [], []
    for flow in flows:
        logits = np.einsum("nfe,f->ne", flow.features, proportions)
        inside = flow.right >= 0
        hit = logits.argmax(axis=1) == flow.right
        print(f"{len(hit)} questions, right entry first for {hit[inside].mean():.3f}")
        best.append(logits.max(axis=1))
        is_right.append(hit & inside)
        importance.append(np.where(inside, 1 / inside.sum(), OUTSIDE / (~inside).sum()))
    scores, rights, shares = map(np.concatenate, (best, is_right, importance))

    def doubt(parameters: NDArray[np.float64]) -> float:
        logits = parameters[0] * scores + parameters[1]
        return float(shares @ np.logaddexp(0, np.where(rights, -logits, logits)))

    scale, base = minimize(doubt, np.array([0.3, -3.0]), method="Nelder-Mead").x
    return proportions * scale, float(base)


def main() -> None:
    """Fits both modes and prints them."""
    for name, encoder in (
        ("LIGHT", load_encoder("none")),
        ("HYBRID", CachingEncoder(load_encoder("universal"), 100_000)),
    ):
        weights, base = fitted([cases(flow, encoder) for flow in FLOWS])
        shown = ", ".join(f"{field}={weight:.2f}" for field, weight in zip(NAMES, weights, strict=True))
        print(f"{name} = Weights({shown}, base={base:.2f})", flush=True)


if __name__ == "__main__":
    main()
