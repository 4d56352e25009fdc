"""`python -m chatflow_models.export MODEL OUT`: a transformers encoder (BERT, MacBERT, multilingual E5 …) as the folder
that `models.intent.encoderPath` names. Install `chatflow[export]` for it; nothing that serves needs torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime.quantization
import torch
import transformers

from chatflow_models.intent import EncoderError, OnnxEncoder
from chatflow_models.intent.artefact import ENCODER_FILES
from chatflow_models.intent.encoders import MAX_TOKENS, unit_rows
from chatflow_models.intent.features import Float32

OPSET = 17
SAMPLES = (
    "Where is my order?",
    "我的订单到哪里了",
    "I would like to send the shoes back that I bought last week; how long may I wait, and who pays the parcel?",
    "三十天内可以退货吗",
)
EXACT, QUANTISED = 0.999, 0.9
"""The least cosine of an exported vector with the model's own."""


class _States(torch.nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked.
    """The encoder with its inputs in a fixed order, and the vectors of the tokens as its only output."""

    def __init__(self, encoder: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._encoder, self._names = encoder, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """(texts, tokens, dimensions) of (texts, tokens) token ids, masks and the like."""
        states: torch.Tensor = self._encoder(**dict(zip(self._names, inputs, strict=True))).last_hidden_state
        return states


def export(model: str, out: Path, *, is_quantised: bool = False) -> OnnxEncoder:
    """Writes the encoder `model`, a folder or a name that transformers knows, into the folder `out`, and reads it back.

    `is_quantised`: weights of 8 bits, a quarter of the size. EncoderError where its vectors are not the model's own.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    if not tokenizer.is_fast:
        raise EncoderError(f"{model} has no tokenizer.json, and transformers cannot make one of its tokenizer")
    encoder = transformers.AutoModel.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).eval()
    given = dict(tokenizer(list(SAMPLES), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"))
    states = _States(encoder, list(given)).eval()
    out.mkdir(parents=True, exist_ok=True)
    model_file, tokenizer_file = (out / name for name in ENCODER_FILES)
    axes = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        states, tuple(given.values()), str(model_file), input_names=list(given), output_names=["states"],
        dynamic_axes=dict.fromkeys((*given, "states"), axes), opset_version=OPSET, dynamo=False,
    )  # fmt: skip
    if is_quantised:
        exact = model_file.with_suffix(".exact")
        model_file.rename(exact)
        onnxruntime.quantization.quantize_dynamic(exact, model_file)
        exact.unlink()
    tokenizer.backend_tokenizer.save(str(tokenizer_file))
    exported = OnnxEncoder(out)
    with torch.no_grad():
        weights = given["attention_mask"].unsqueeze(-1)
        own = ((states(*given.values()) * weights).sum(1) / weights.sum(1)).numpy()
    _compare(exported.encode(SAMPLES), unit_rows(own), QUANTISED if is_quantised else EXACT)
    return exported


def _compare(found: Float32, own: Float32, least: float) -> None:
    likeness = (found * own).sum(axis=1)
    worst = int(np.argmin(likeness))
    if likeness[worst] < least:
        raise EncoderError(
            f"the exported vector of {SAMPLES[worst]!r} has cosine {likeness[worst]:.3f} with the model's own;"
            f" at least {least} is wanted. {'Leave --int8 out.' if least == QUANTISED else 'The model cannot be used.'}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Export; 1 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m chatflow_models.export", description=__doc__)
    parser.add_argument("model", help="a folder with config.json, weights and tokenizer")
    parser.add_argument("out", type=Path, help="the folder to write model.onnx and tokenizer.json to")
    parser.add_argument(
        "--int8", action="store_true", help="weights of 8 bits: smaller and faster, a little less exact"
    )
    options = parser.parse_args(arguments)
    try:
        encoder = export(options.model, options.out, is_quantised=options.int8)
    # What transformers raises for folders that hold no model.
    except (EncoderError, OSError, ValueError) as error:
        sys.stderr.write(f"{options.model} cannot be exported: {error}\n")
        return 1
    size = sum((options.out / name).stat().st_size for name in ENCODER_FILES)
    sys.stdout.write(f"{options.out}: vectors of {encoder.dimensions} dimensions, {size / 1e6:.0f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
