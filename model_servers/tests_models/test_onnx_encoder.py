"""The ONNX encoder, on a real model file of three tokens written here byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import EncoderError, load_encoder

pytest.importorskip("onnxruntime", reason="install chatflow[onnx] to test ONNX encoders")
tokenizers = pytest.importorskip("tokenizers")

TABLE = np.array([[0, 0], [3, 0], [0, 4]], dtype=np.float32)
"""Vectors of the tokens [PAD], refund and parcel."""
_FLOAT, _INT64 = 1, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _value_info(name: str, kind: int, *axes: str) -> bytes:
    shape = b"".join(_field(1, _field(2, axis)) for axis in axes)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


def _model() -> bytes:
    """ModelProto of onnx.proto3, opset 13: one Gather of the token table by input_ids."""
    node = _field(1, "table") + _field(1, "input_ids") + _field(2, "states") + _field(4, "Gather")
    table = _field(1, 3) + _field(1, 2) + _field(2, _FLOAT) + _field(8, "table") + _field(9, TABLE.tobytes())
    graph = (
        _field(1, node)
        + _field(2, "encoder")
        + _field(5, table)
        + _field(11, _value_info("input_ids", _INT64, "batch", "tokens"))
        + _field(12, _value_info("states", _FLOAT, "batch", "tokens", "width"))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(_model())
    vocabulary = {"[PAD]": 0, "refund": 1, "parcel": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[PAD]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_vectors_are_means_over_the_tokens_that_are_no_padding(folder: Path) -> None:
    encoder = load_encoder("onnx", folder)
    assert (encoder.name, encoder.path, encoder.dimensions) == ("onnx", folder, 2)
    found = encoder.encode(["refund", "refund parcel", "parcel parcel parcel"])
    assert found.dtype == np.float32
    wanted = np.array([[1, 0], [0.6, 0.8], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert encoder.encode([]).shape == (0, 2)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"model\.onnx is missing"):
        load_encoder("onnx", tmp_path)
    with pytest.raises(EncoderError, match="needs encoderPath"):
        load_encoder("onnx")


def test_a_damaged_model_is_named(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(EncoderError, match="cannot be read"):
        load_encoder("onnx", folder)
