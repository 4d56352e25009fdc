"""The bytes of KServe's two protocols, as `chatflow_api.inference` describes them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from chatflow_api.inference import EMBEDDING, OUTPUTS
from chatflow_models.intent import Prediction
from chatflow_models.serving import wire
from hypothesis import given
from hypothesis import strategies as st

VECTOR = np.array([0.6, 0.8], dtype=np.float32)
SURE = Prediction("refund", 0.9, 0.05, True, (("refund", 0.9), ("parcel", 0.05)), VECTOR)
UNSURE = Prediction("parcel", 0.3, 0.6, False, (("parcel", 0.3), ("refund", 0.1)), -VECTOR)


def v2(texts: list[Any], **more: Any) -> bytes:
    given_input = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return json.dumps({"inputs": [given_input], **more}).encode()


def test_v1_takes_texts_and_objects_and_gives_a_prediction_each() -> None:
    ask = wire.read_v1(json.dumps({"instances": ["a", {"text": "b"}]}).encode())
    assert (ask.texts, ask.outputs) == (["a", "b"], OUTPUTS)
    answer = json.loads(wire.answer_v1(ask, [SURE, UNSURE], "v7"))
    assert answer["model_version"] == "v7"
    assert answer["predictions"][1] == {
        "intent": "parcel",
        "confidence": 0.3,
        "out_of_scope": 0.6,
        "in_scope": False,
        "alternatives": [{"intent": "parcel", "confidence": 0.3}, {"intent": "refund", "confidence": 0.1}],
    }


def test_v1_gives_vectors_where_they_are_asked_for() -> None:
    ask = wire.read_v1(b'{"instances": ["a"], "parameters": {"embedding": true}}')
    (row,) = json.loads(wire.answer_v1(ask, [SURE], "v7"))["predictions"]
    assert row["embedding"] == pytest.approx([0.6, 0.8])


def test_v2_gives_a_tensor_for_each_output() -> None:
    ask = wire.read_v2(v2(["a", "b"], id="r1"))
    text, length = wire.answer_v2(ask, [SURE, UNSURE], "intent", "v7")
    answer = json.loads(text)
    assert (answer["id"], answer["model_name"], answer["model_version"], length) == ("r1", "intent", "v7", None)
    tensors = {tensor["name"]: tensor for tensor in answer["outputs"]}
    assert list(tensors) == [tensor.name for tensor in OUTPUTS]
    assert tensors["confidence"] == {"name": "confidence", "datatype": "FP32", "shape": [2], "data": [0.9, 0.3]}
    assert tensors["alternative_intents"]["shape"] == [2, 5]
    assert tensors["alternative_intents"]["data"][:6] == ["refund", "parcel", "", "", "", "parcel"]


def test_v2_gives_vectors_as_bytes_behind_the_json() -> None:
    wanted = [{"name": "intent"}, {"name": EMBEDDING.name, "parameters": {"binary_data": True}}]
    ask = wire.read_v2(v2(["a", "b"], outputs=wanted))
    answer, length = wire.answer_v2(ask, [SURE, UNSURE], "intent", "v7")
    described = json.loads(answer[:length])["outputs"][1]
    assert described == {
        "name": "embedding",
        "datatype": "FP32",
        "shape": [2, 2],
        "parameters": {"binary_data_size": 16},
    }
    assert np.frombuffer(answer[length:], dtype="<f4").tolist() == pytest.approx([0.6, 0.8, -0.6, -0.8])


def test_a_model_in_light_mode_has_empty_vectors() -> None:
    light = Prediction("refund", 0.9, 0.05, True, (("refund", 0.9),), None)
    assert wire.values_of(EMBEDDING, [light, light])[0] == [2, 0]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "send {"),
        (b"[]", "send {"),
        (b'{"instances": "text"}', "instances"),
        (b'{"instances": [1]}', "instances"),
        (b'{"instances": [{"txt": "a"}]}', "txt"),
        (b'{"instances": []}', "send 1 to 1024"),
        (b'{"instances": ["\xff"]}', "send {"),
    ],
)
def test_a_v1_request_that_cannot_be_served_is_told_why(body: bytes, complaint: str) -> None:
    with pytest.raises(wire.RequestInvalid, match=complaint):
        wire.read_v1(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{}", "inputs"),
        (b'{"inputs": []}', "the inputs are none; send one, 'text'"),
        (v2(["a"]).replace(b'"text"', b'"words"'), "'words'; send one, 'text'"),
        (v2(["a"]).replace(b"BYTES", b"FP32"), "datatype FP32"),
        (v2(["a"]).replace(b"[1]", b"[2]"), r"shape \[2\] and 1 texts"),
        (v2([1]), "text 0 is int"),
        (v2(["a"], outputs=[{"name": "mood"}]), "output 'mood' is unknown; there are intent"),
        (v2(["a"], outputs=[{"name": "intent", "parameters": {"binary_data": True}}]), "leave binary_data out"),
        (v2(["a"], outputs=[{"name": "embedding"}] * 2), "asked for twice"),
        (v2(["a"]).replace(b'["a"]', b"[" * 200_000), "send one input"),
        (v2(["a"]).replace(b'["a"]', b'["\xe4"]'), "send one input"),
    ],
)
def test_a_v2_request_that_cannot_be_served_is_told_why(body: bytes, complaint: str) -> None:
    with pytest.raises(wire.RequestInvalid, match=complaint):
        wire.read_v2(body)


def test_a_very_long_text_loses_its_middle_and_spoils_nobody_elses() -> None:
    first, other = wire.read_v1(
        json.dumps({"instances": ["begin" + "x" * 30_000 + "end", "where is it"]}).encode()
    ).texts
    assert len(first) <= 20_001
    assert (first[:5], first[-3:], other) == ("begin", "end", "where is it")


REQUESTS = st.lists(st.text(max_size=20), min_size=1, max_size=4).flatmap(
    lambda texts: st.sampled_from([json.dumps({"instances": texts}, ensure_ascii=False).encode(), v2(texts)])
)


@given(REQUESTS, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), max_size=2))
def test_whatever_comes_is_read_or_refused(body: bytes, harm: list[tuple[int, bytes]]) -> None:
    for place, put in harm:
        body = body[: place % len(body)] + put + body[place % len(body) + 1 :]
    read = 0
    for reader in (wire.read_v1, wire.read_v2):
        try:
            assert reader(body).texts
            read += 1
        except wire.RequestInvalid:
            continue
    assert harm or read == 1
