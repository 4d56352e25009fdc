"""A manifest whose language models are KServe's, on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from chatflow_cli.local.preparation import Options, prepare
from tests_cli.test_ask import QUESTION, chatflow

KSERVE = "    llm: {kserve: {storageUri: 'pvc://models/qwen'}}\n"
BACKUP = "    backup: {kserve: {storageUri: 'pvc://models/small'}}\n"


@pytest.fixture
def served(tiny: Path) -> Path:
    """The tiny flow with a model that KServe serves."""
    text = tiny.read_text(encoding="utf-8")
    tiny.write_text(text.replace("  models:\n", "  models:\n" + KSERVE + BACKUP), encoding="utf-8")
    return tiny


def test_models_of_kserve_are_left_out_and_that_is_told(served: Path) -> None:
    prepared = prepare(Options(file=served))
    assert prepared.config.llm is not None
    assert (prepared.served.llm, prepared.served.backup) == (None, None)
    assert prepared.urls() == []
    llm, backup = prepared.remarks
    assert ": spec.models.llm.kserve: " in llm
    assert llm.endswith(
        "KServe does not run on one machine, so this flow runs without that model;"
        " name a server that runs: --llm URL --llm-model NAME, or take --llm embedded"
    )
    assert ": spec.models.backup.kserve: " in backup


@pytest.mark.parametrize(
    ("options", "remarks"),
    [
        pytest.param({"llm": "http://127.0.0.1:8000/v1", "llm_model": "m"}, 1, id="a server instead of the llm"),
        pytest.param({"llm": "embedded"}, 0, id="the embedded model instead of both"),
    ],
)
def test_another_model_takes_its_place(served: Path, options: dict[str, str], remarks: int) -> None:
    prepared = prepare(Options(file=served, **options))  # type: ignore[arg-type]
    assert prepared.served.llm is not None
    assert prepared.served.llm.base_url.startswith("http://127.0.0.1:")
    assert len(prepared.remarks) == remarks


async def test_ask_tells_what_it_answers_without(served: Path, tmp_path: Path) -> None:
    status, output, errors = await chatflow("ask", str(served), QUESTION, folder=tmp_path)
    assert status == 0, errors
    assert "three working days" in output
    assert errors.count("spec.models.llm.kserve: ") == 1


async def test_evaluate_calls_no_model_and_leaves_none_out(served: Path, tmp_path: Path) -> None:
    status, output, errors = await chatflow("evaluate", str(served), folder=tmp_path)
    assert status == 0, errors
    assert "4 questions" in output
