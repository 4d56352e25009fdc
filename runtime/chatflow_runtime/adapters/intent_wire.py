"""The intent server's protocol as its client speaks it: texts to a request, an answer to classifications.

Pure, bytes on either side; `remote_classification` calls it. The protocol is KServe's Open Inference Protocol (V2),
with the tensors of `chatflow_api.inference`. The embedding comes as bytes behind the JSON: as text it would cost more
than the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from chatflow_api.inference import (
    ALTERNATIVE_CONFIDENCES,
    ALTERNATIVE_INTENTS,
    CONFIDENCE,
    EMBEDDING,
    INTENT,
    OUT_OF_SCOPE,
    OUTPUTS,
    TEXT,
)
from numpy.typing import NDArray

from chatflow_runtime.ports import Classification

BINARY_HEADER = "inference-header-content-length"
"""Of an answer with bytes behind it: the length of its JSON."""


class AnswerInvalid(Exception):
    """An answer that does not fit what was asked; the message says what is wrong."""


class Answer(msgspec.Struct, frozen=True):
    """One classification a text, in order, and what they rest on."""

    version: str
    """Of the model."""
    classifications: list[Classification]
    """Without their embeddings."""
    embeddings: NDArray[np.float32] | None
    """(n, d); None where none were asked for, or the model has no encoder."""


class _Tensor(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]
    model_version: str = "unknown"


class _Rows(msgspec.Struct, forbid_unknown_fields=True):
    """The tensors of an answer, checked."""

    intent: list[str]
    confidence: list[float]
    out_of_scope: list[float]
    alternative_intents: list[str]
    alternative_confidences: list[float]


_answer = msgspec.json.Decoder(_Answer)
_OUTPUTS = [{"name": tensor.name} for tensor in OUTPUTS]
_WITH_EMBEDDING = [*_OUTPUTS, {"name": EMBEDDING.name, "parameters": {"binary_data": True}}]


def request(texts: Sequence[str], *, has_embedding: bool) -> bytes:
    """The body of a request."""
    given = {"name": TEXT.name, "datatype": TEXT.datatype, "shape": [len(texts)], "data": texts}
    return msgspec.json.encode({"inputs": [given], "outputs": _WITH_EMBEDDING if has_embedding else _OUTPUTS})


def answer(body: bytes, json_length: int | None, count: int) -> Answer:
    """The answer to a request of `count` texts; AnswerInvalid when it is none. `json_length` is what BINARY_HEADER
    said."""
    length = len(body) if json_length is None else json_length
    try:
        found = _answer.decode(body[:length])
        tensors = {tensor.name: tensor for tensor in found.outputs}
        rows = msgspec.convert({tensor.name: tensors[tensor.name].data for tensor in OUTPUTS}, _Rows)
    except KeyError as error:
        raise AnswerInvalid(f"has no output {error.args[0]!r}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise AnswerInvalid(f"is not the protocol's: {error}") from error
    width = _width(tensors, rows, count)
    embedding = tensors.get(EMBEDDING.name)
    return Answer(
        version=found.model_version,
        classifications=list(_classifications(rows, width, found.model_version)),
        embeddings=None if embedding is None else _vectors(embedding, body[length:], count),
    )


def _width(tensors: dict[str, _Tensor], rows: _Rows, count: int) -> int:
    """Alternatives a text. AnswerInvalid unless every tensor has as many values as the texts want."""
    shape = tensors[ALTERNATIVE_INTENTS.name].shape
    width = shape[1] if len(shape) == 2 else 0
    sizes = {
        INTENT: (len(rows.intent), count),
        CONFIDENCE: (len(rows.confidence), count),
        OUT_OF_SCOPE: (len(rows.out_of_scope), count),
        ALTERNATIVE_INTENTS: (len(rows.alternative_intents), count * width),
        ALTERNATIVE_CONFIDENCES: (len(rows.alternative_confidences), count * width),
    }
    for tensor, (size, wanted) in sizes.items():
        if size != wanted:
            raise AnswerInvalid(f"has {size} values of {tensor.name!r} where {wanted} are wanted")
    return width


def _classifications(rows: _Rows, width: int, version: str) -> Iterator[Classification]:
    pairs = list(zip(rows.alternative_intents, rows.alternative_confidences, strict=True))
    for number, (intent, confidence) in enumerate(zip(rows.intent, rows.confidence, strict=True)):
        yield Classification(
            intent=intent,
            confidence=confidence,
            is_in_scope=confidence >= rows.out_of_scope[number],
            # A model that knows few intents pads the row with nameless ones.
            alternatives=tuple([pair for pair in pairs[number * width : (number + 1) * width] if pair[0]]),
            version=version,
        )


def _vectors(tensor: _Tensor, behind: bytes, count: int) -> NDArray[np.float32] | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None and tensor.data is None:
        raise AnswerInvalid(f"has no data of {EMBEDDING.name!r}")
    try:
        if tensor.data is None:
            values = np.frombuffer(behind[:size], dtype="<f4").astype(np.float32)
        else:
            values = np.array(tensor.data, dtype=np.float32)
    except ValueError as error:
        raise AnswerInvalid(f"has an {EMBEDDING.name!r} that is no list of numbers ({error})") from error
    if tensor.shape[:1] != [count] or len(tensor.shape) != 2 or values.size != count * tensor.shape[1]:
        raise AnswerInvalid(
            f"has {values.size} values of {EMBEDDING.name!r} in shape {tensor.shape}, for {count} texts"
        )
    return values.reshape(count, -1) if values.size else None
