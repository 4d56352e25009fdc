"""A real ONNX encoder of three tokens, written here byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

TABLE = np.array([[0.1, 0.1], [3, 0], [0, 4]], dtype=np.float32)
"""Vectors of the tokens [UNK], refund and parcel."""
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


def write_encoder(folder: Path) -> Path:
    """The encoder, into a folder that is made; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(_model())
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "refund": 1, "parcel": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
