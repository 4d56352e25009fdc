"""The model that the intent server's tests serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from chatflow_models.intent import load_encoder
from chatflow_models.training import train
from tests_models.flow_examples import EXAMPLES


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model, with vectors."""
    folder = tmp_path_factory.mktemp("model") / "intent"
    train(EXAMPLES, load_encoder("universal"), folder)
    return folder


@pytest.fixture(scope="session")
def other_artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same flow with fewer examples, without vectors."""
    folder = tmp_path_factory.mktemp("other") / "intent"
    train(EXAMPLES[::2], load_encoder("none"), folder)
    return folder
