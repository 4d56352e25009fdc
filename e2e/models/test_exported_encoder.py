"""A transformers encoder through ONNX: exported as a user would, trained with, and served without its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import IntentModel, load_encoder
from chatflow_models.training import train
from tests_models.flow_examples import EXAMPLES

from e2e.cluster.layout import REPOSITORY
from e2e.models import vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]
MAKER = Path(__file__).with_name("tiny_encoder.py")
TEXTS = ["where is my parcel", "我要退款", "a"]
OWN_VECTORS = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
model, tokenizer = AutoModel.from_pretrained(sys.argv[1]).eval(), AutoTokenizer.from_pretrained(sys.argv[1])
rows = []
with torch.no_grad():
    for text in json.load(sys.stdin):
        mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        rows.append((mean / mean.norm()).tolist())
json.dump(rows, sys.stdout)
"""


@pytest.fixture(scope="module")
def python() -> str:
    return str(vllm.installed(os.environ).python)


@pytest.fixture(scope="module")
def encoder(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one with random weights, as transformers keeps it."""
    folder = tmp_path_factory.mktemp("encoder") / "transformers"
    run(python, str(MAKER), str(folder))
    return folder


def tried(python: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """A command in vLLM's environment, with ChatFlow's code beside it."""
    paths = os.pathsep.join(str(REPOSITORY / part) for part in ("model_servers", "crds"))
    environment = {**os.environ, **vllm.OFFLINE, "PYTHONPATH": paths}
    return subprocess.run([python, *arguments], input=given, capture_output=True, text=True, env=environment)


def run(python: str, *arguments: str, given: str = "") -> str:
    """What one says that succeeds."""
    ran = tried(python, *arguments, given=given)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


@pytest.mark.parametrize(("options", "least"), [((), 0.9999), (("--int8",), 0.97)], ids=["exact", "int8"])
def test_an_exported_encoder_gives_the_models_own_vectors_and_is_served_with_the_artefact(
    python: str, encoder: Path, tmp_path: Path, options: tuple[str, ...], least: float
) -> None:
    exported = tmp_path / "exported"
    said = run(python, "-m", "chatflow_models.export", str(encoder), str(exported), *options)
    assert "vectors of 64 dimensions" in said
    found = load_encoder("onnx", exported)
    own = np.array(json.loads(run(python, "-c", OWN_VECTORS, str(encoder), given=json.dumps(TEXTS))))
    assert (found.encode(TEXTS) * own).sum(axis=1).min() >= least

    train(EXAMPLES, found, tmp_path / "artefact")
    shutil.rmtree(exported)
    model = IntentModel.load(tmp_path / "artefact")
    assert [one.intent for one in model.predict(["怎么申请退款", "how do i get a refund"])] == ["refund", "refund"]


def test_what_is_no_encoder_is_told_of(python: str, tmp_path: Path) -> None:
    refused = tried(python, "-m", "chatflow_models.export", str(tmp_path), str(tmp_path / "out"))
    assert refused.returncode == 1
    assert str(tmp_path) in refused.stderr
    assert "Traceback" not in refused.stderr
