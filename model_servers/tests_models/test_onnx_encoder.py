"""The ONNX encoder, and the artefacts that bring it along."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import ArtefactError, EncoderError, IntentModel, load_encoder
from chatflow_models.training import train
from tests_models.flow_examples import EXAMPLES
from tests_models.onnx_files import write_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder")


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


def test_an_artefact_brings_its_encoder_along(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "artefacts/first", tmp_path / "artefacts/second"
    train(EXAMPLES, load_encoder("onnx", folder), first)
    train(EXAMPLES[::2], load_encoder("onnx", folder), second)
    texts = ["refund of my parcel", "我要退款"]
    wanted = IntentModel.load(first, load_encoder("onnx", folder)).predict(texts)
    shutil.rmtree(folder)

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(first, elsewhere)
    found = IntentModel.load(elsewhere).predict(texts)
    assert [one.alternatives for one in found] == [one.alternatives for one in wanted]
    files = [artefact / "encoder/model.onnx" for artefact in (first, second)]
    assert files[0].samefile(files[1]), "the same encoder takes its room once"

    (elsewhere / "encoder/model.onnx").write_bytes(b"another")
    with pytest.raises(ArtefactError, match=r"encoder/model\.onnx is damaged"):
        IntentModel.load(elsewhere)


def test_an_artefact_without_its_encoder_asks_for_the_folder_that_it_was_trained_with(
    folder: Path, tmp_path: Path
) -> None:
    artefact = tmp_path / "artefact"
    train(EXAMPLES, load_encoder("onnx", folder), artefact)
    manifest = (artefact / "manifest.json").read_text(encoding="utf-8")
    # As artefacts were before they brought encoders along.
    lines = [line for line in manifest.splitlines() if '"encoder/' not in line]
    text = "\n".join(lines).replace('",\n  },', '"\n  },')
    (artefact / "manifest.json").write_text(text, encoding="utf-8")
    shutil.rmtree(artefact / "encoder")
    assert IntentModel.load(artefact).predict(["refund"])
    shutil.rmtree(folder)
    with pytest.raises(EncoderError, match=r"model\.onnx is missing"):
        IntentModel.load(artefact)
