"""The corpus of a fit: the flow's examples and everyday questions, as features and classes. Used by `fit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from numpy.typing import NDArray
from scipy.sparse import csr_array

from chatflow_models.intent.encoders import Encoder
from chatflow_models.intent.features import BLOCKS, Featuriser, Float32
from chatflow_models.intent.neighbours import centred

from .background import background_questions
from .examples import CheckedExamples, Example
from .folds import Problem, Topics
from .solver import Design

VECTOR_WEIGHT = 0.06
"""Weight of a standardised dimension of the vector beside n-gram blocks of length 1. Like the other numbers here it was
chosen on the training splits of Banking77 and CLINC150 and on CLINC150's validation split."""
BACKGROUND_IMPORTANCE = 0.3
"""What an everyday question counts beside an example of the flow."""
RARE_MATTERS_BELOW = 2000
"""With fewer examples every n-gram is kept; with more, those that at least two examples hold."""
SAME_MEANING, SAME_GRAMS = 0.65, 0.5
"""Cosine to an in-scope example from which an everyday question is left out: of vectors; in light mode of n-grams."""
TOPIC_SIZE, MOST_TOPICS = 4, 300
"""Answers with fewer questions than this make no topic of their own, nor do the rarest beyond so many."""
COMMON = 100
"""Likeness by n-grams leaves out those that more examples hold: they cost the most and say the least."""
_ENCODE_AT_ONCE = 256
_SMALLEST_SPREAD = 1e-3


@dataclass(frozen=True, slots=True)
class Corpus:
    """Examples first, everyday questions after them; in-scope classes in the order of labels, out-of-scope last."""

    checked: CheckedExamples
    left_out: tuple[str, ...]
    """Everyday questions that resemble in-scope examples."""
    problem: Problem
    featuriser: Featuriser
    mean: Float32
    scale: Float32
    """A vector's features are (vector - mean) * scale, both (dimensions,)."""

    @property
    def example_count(self) -> int:
        """How many rows are examples of the flow."""
        return len(self.checked.examples)

    @property
    def background_count(self) -> int:
        """How many rows are everyday questions."""
        return len(self.problem.classes) - self.example_count


def build_corpus(
    checked: CheckedExamples, encoder: Encoder, on_encoded: Callable[[float], None], unseen: Sequence[Example] = ()
) -> Corpus:
    """Encodes and featurises checked examples; `on_encoded` is told the share that is done. Everyday questions that are
    among `unseen` stay out."""
    texts = [example.text for example in checked.examples]
    own = {*texts, *(example.text for example in unseen)}
    candidates = [question for question in background_questions(texts) if question not in own]
    vectors = _encode([*texts, *candidates], encoder, on_encoded)
    featuriser = Featuriser.fit(texts, 1 if len(texts) < RARE_MATTERS_BELOW else 2)
    sparse = sparse_rows(featuriser, [*texts, *candidates])
    inside = np.array([i for i, example in enumerate(checked.examples) if example.intent != OUT_OF_SCOPE])
    alike = _likeness(sparse, vectors, inside, len(texts)) > (SAME_MEANING if encoder.dimensions else SAME_GRAMS)
    kept = np.concatenate([np.arange(len(texts)), len(texts) + np.flatnonzero(~alike)])
    class_of = {label: i for i, label in enumerate(checked.labels)} | {OUT_OF_SCOPE: len(checked.labels)}
    classes = np.full(len(kept), len(checked.labels), dtype=np.intp)
    classes[: len(texts)] = [class_of[example.intent] for example in checked.examples]
    importance = np.full(len(kept), BACKGROUND_IMPORTANCE, dtype=np.float32)
    importance[: len(texts)] = 1
    mean, scale = _standard(vectors[kept], importance)
    dense = np.asarray((vectors[kept] - mean) * scale, dtype=np.float32)
    return Corpus(
        checked=checked,
        left_out=tuple(question for question, is_alike in zip(candidates, alike, strict=True) if is_alike),
        problem=Problem(
            Design(sparse[kept], dense),
            classes,
            importance,
            len(checked.labels) + 1,
            centred(vectors[kept], mean),
            _rare(sparse[kept]),
            _topics(checked.examples, classes),
        ),
        featuriser=featuriser,
        mean=mean,
        scale=scale,
    )


def _rare(sparse: csr_array) -> csr_array:
    """The rows without common n-grams."""
    counts = np.bincount(sparse.indices, minlength=sparse.shape[1])
    found = csr_array(sparse.multiply(counts <= COMMON))
    found.eliminate_zeros()
    return found


def _topics(examples: Sequence[Example], classes: NDArray[np.intp]) -> Topics | None:
    """The topics of all rows, of which the first are the examples; None where no intent has several."""
    counts = Counter(example.answer for example in examples if example.answer is not None)
    frequent = {answer for answer, count in counts.most_common(MOST_TOPICS) if count >= TOPIC_SIZE}
    answers = [example.answer if example.answer in frequent else "" for example in examples]
    answers += [""] * (len(classes) - len(examples))
    keys = list(zip(classes.tolist(), answers, strict=True))
    known = sorted(set(keys))
    starts = np.searchsorted([class_ for class_, _ in known], np.arange(classes.max() + 1))
    if len(known) == len(starts):
        return None
    place = {key: number for number, key in enumerate(known)}
    return Topics(np.array([place[key] for key in keys], dtype=np.intp), starts, len(known))


def sparse_rows(featuriser: Featuriser, texts: Sequence[str]) -> csr_array:
    """(n, n-grams) features of normalised texts: each block idf divided by its length, as `LinearScorer` scores it."""
    batch = featuriser.batch(texts)
    idf = np.append(featuriser.idf, np.float32(0))
    lengths = featuriser.lengths(batch, np.add.reduceat(idf[batch.ids] ** 2, batch.starts))
    ends = np.append(batch.starts[1:], len(batch.ids))
    values = idf[batch.ids] / np.repeat(lengths, ends - batch.starts)
    pointers = np.append(batch.starts[::BLOCKS], len(batch.ids))
    matrix = csr_array((values, batch.ids, pointers), shape=(len(texts), len(idf)), dtype=np.float32)
    return csr_array(matrix[:, :-1])


def _encode(texts: Sequence[str], encoder: Encoder, on_encoded: Callable[[float], None]) -> Float32:
    vectors = np.empty((len(texts), encoder.dimensions), dtype=np.float32)
    for start in range(0, len(texts), _ENCODE_AT_ONCE):
        chunk = texts[start : start + _ENCODE_AT_ONCE]
        vectors[start : start + len(chunk)] = encoder.encode(chunk)
        on_encoded((start + len(chunk)) / len(texts))
    return vectors


def _likeness(sparse: csr_array, vectors: Float32, inside: np.ndarray, first: int) -> Float32:
    """Highest cosine of each row from `first` on to the rows `inside`."""
    if first == sparse.shape[0]:
        return np.empty(0, dtype=np.float32)
    if vectors.shape[1]:
        return np.asarray((vectors[first:] @ vectors[inside].T).max(axis=1), dtype=np.float32)
    products = (sparse[first:] @ sparse[inside].T).toarray()
    return np.asarray(products.max(axis=1) / BLOCKS, dtype=np.float32)


def _standard(vectors: Float32, importance: Float32) -> tuple[Float32, Float32]:
    share = importance / importance.sum()
    mean = share @ vectors
    spread = np.sqrt(share @ (vectors - mean) ** 2)
    scale = VECTOR_WEIGHT / np.maximum(spread, _SMALLEST_SPREAD)
    return mean.astype(np.float32), scale.astype(np.float32)
