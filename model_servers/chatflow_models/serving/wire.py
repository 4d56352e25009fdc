"""KServe's two protocols for texts in, intents out: a request's bytes to texts, predictions to an answer's bytes. Pure.

Tensors and fields are listed in `chatflow_api.inference`. `fast_path` uses all of it; for what only the SDK speaks
(gRPC, binary inputs) `model` uses the tensors alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from chatflow_api.inference import (
    ALTERNATIVE_CONFIDENCES,
    ALTERNATIVE_INTENTS,
    ALTERNATIVES,
    CONFIDENCE,
    EMBEDDING,
    INTENT,
    OUT_OF_SCOPE,
    OUTPUTS,
    TEXT,
    Tensor,
)

from chatflow_models.intent import Prediction

MAX_TEXTS = 1024
"""In one request."""
MAX_TEXT_LENGTH = 20_000
"""Characters of one text; the model reads only the gist of long ones."""


class RequestInvalid(Exception):
    """A request that cannot be served; the message says what is wrong and what to send."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants."""

    texts: list[str]
    outputs: tuple[Tensor, ...]
    binary: frozenset[str] = frozenset()
    """Names of the outputs that are wanted as bytes behind the JSON (V2's binary extension)."""
    id: str | None = None


class _Instance(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _Parameters(msgspec.Struct, frozen=True):
    embedding: bool = False


class _V1Request(msgspec.Struct):
    instances: list[str | _Instance]
    parameters: _Parameters = _Parameters()


class _V2Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class _V2Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _V2Request(msgspec.Struct):
    inputs: list[_V2Input]
    id: str | None = None
    outputs: list[_V2Output] = []


_v1 = msgspec.json.Decoder(_V1Request)
_v2 = msgspec.json.Decoder(_V2Request)
_encode = msgspec.json.encode
# What is no UTF-8, and what is nested too deep, raises Python's own.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_END = MAX_TEXT_LENGTH // 2
_KNOWN = {tensor.name: tensor for tensor in (*OUTPUTS, EMBEDDING)}


def read_v1(body: bytes) -> Ask:
    """A `:predict` request. RequestInvalid names what is wrong."""
    try:
        request = _v1.decode(body)
    except _UNREADABLE as error:
        raise RequestInvalid(f'{error}; send {{"instances": ["text", ...]}}') from error
    texts = [one if type(one) is str else one.text for one in request.instances]  # type: ignore[union-attr]
    return Ask(checked(texts), (*OUTPUTS, EMBEDDING) if request.parameters.embedding else OUTPUTS)


def read_v2(body: bytes) -> Ask:
    """An `infer` request whose input is JSON. RequestInvalid names what is wrong."""
    try:
        request = _v2.decode(body)
    except _UNREADABLE as error:
        raise RequestInvalid(f"{error}; send one input {TEXT.name!r} of datatype BYTES") from error
    if len(request.inputs) != 1 or request.inputs[0].name != TEXT.name:
        names = ", ".join(repr(each.name) for each in request.inputs) or "none"
        raise RequestInvalid(f"the inputs are {names}; send one, {TEXT.name!r}")
    (given,) = request.inputs
    if given.datatype != TEXT.datatype:
        raise RequestInvalid(f"input {TEXT.name!r} is of datatype {given.datatype}; send {TEXT.datatype}")
    texts = given.data or []
    if given.shape not in ([len(texts)], [len(texts), 1]):
        raise RequestInvalid(f"input {TEXT.name!r} has shape {given.shape} and {len(texts)} texts; send [{len(texts)}]")
    wanted = [named(output.name) for output in request.outputs]
    if len(set(wanted)) != len(wanted):
        raise RequestInvalid("an output is asked for twice; name each once")
    binary = frozenset(output.name for output in request.outputs if output.parameters.get("binary_data"))
    if unfit := sorted(name for name in binary if _KNOWN[name].datatype != CONFIDENCE.datatype):
        raise RequestInvalid(f"output {unfit[0]!r} is text, which is not given as binary data; leave binary_data out")
    return Ask(checked(texts), tuple(wanted) or OUTPUTS, binary, request.id)


def named(output: str) -> Tensor:
    """The output of that name; RequestInvalid when there is none."""
    if output not in _KNOWN:
        raise RequestInvalid(f"output {output!r} is unknown; there are {', '.join(_KNOWN)}")
    return _KNOWN[output]


def checked(texts: Sequence[Any]) -> list[str]:
    """Texts that can be classified; RequestInvalid names the first that cannot. A very long one loses its middle, which
    no model reads: others' questions may share the request."""
    if not 0 < len(texts) <= MAX_TEXTS:
        raise RequestInvalid(f"{len(texts)} texts in one request; send 1 to {MAX_TEXTS}")
    for number, text in enumerate(texts):
        if type(text) is not str:
            raise RequestInvalid(f"text {number} is {type(text).__name__}; send a string")
    return [text if len(text) <= MAX_TEXT_LENGTH else f"{text[:_END]} {text[-_END:]}" for text in texts]


def answer_v1(ask: Ask, predictions: Sequence[Prediction], version: str) -> bytes:
    """The answer to a `:predict` request."""
    rows = rows_v1(predictions, has_embedding=EMBEDDING in ask.outputs)
    return _encode({"predictions": rows, "model_version": version})


def rows_v1(predictions: Sequence[Prediction], *, has_embedding: bool) -> list[dict[str, Any]]:
    """Predictions as V1 writes them."""
    return [_row(prediction, has_embedding) for prediction in predictions]


def _row(prediction: Prediction, has_embedding: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "intent": prediction.intent,
        "confidence": prediction.confidence,
        "out_of_scope": prediction.out_of_scope,
        "in_scope": prediction.is_in_scope,
        "alternatives": [{"intent": name, "confidence": share} for name, share in prediction.alternatives],
    }
    if has_embedding:
        row["embedding"] = [] if prediction.embedding is None else prediction.embedding.tolist()
    return row


def answer_v2(ask: Ask, predictions: Sequence[Prediction], model: str, version: str) -> tuple[bytes, int | None]:
    """The answer to an `infer` request, and the length of its JSON where bytes follow it."""
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for tensor in ask.outputs:
        shape, values = values_of(tensor, predictions)
        described = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        if tensor.name in ask.binary:
            raw = np.asarray(values, dtype="<f4").tobytes()
            behind.append(raw)
            outputs.append({**described, "parameters": {"binary_data_size": len(raw)}})
        else:
            outputs.append({**described, "data": values.tolist() if isinstance(values, np.ndarray) else values})
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if ask.id is not None:
        answer["id"] = ask.id
    text = _encode(answer)
    return (text, None) if not behind else (text + b"".join(behind), len(text))


def values_of(tensor: Tensor, predictions: Sequence[Prediction]) -> tuple[list[int], Any]:
    """A tensor's shape and its values, row by row in one list or array."""
    count = len(predictions)
    if tensor is INTENT:
        return [count], [prediction.intent for prediction in predictions]
    if tensor is CONFIDENCE:
        return [count], [prediction.confidence for prediction in predictions]
    if tensor is OUT_OF_SCOPE:
        return [count], [prediction.out_of_scope for prediction in predictions]
    if tensor is ALTERNATIVE_INTENTS:
        return [count, ALTERNATIVES], list(_padded(predictions, 0, ""))
    if tensor is ALTERNATIVE_CONFIDENCES:
        return [count, ALTERNATIVES], list(_padded(predictions, 1, 0.0))
    vectors = [prediction.embedding for prediction in predictions if prediction.embedding is not None]
    rows = np.stack(vectors) if vectors else np.empty((count, 0), dtype=np.float32)
    return list(rows.shape), rows.reshape(-1)


def _padded(predictions: Sequence[Prediction], column: int, filler: str | float) -> Iterator[str | float]:
    for prediction in predictions:
        row = prediction.alternatives
        yield from (pair[column] for pair in row)
        yield from [filler] * (ALTERNATIVES - len(row))
