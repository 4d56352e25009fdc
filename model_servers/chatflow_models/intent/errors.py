"""The errors of the intent model: one tree, raised by `intent` and `training`, handled by whoever calls them."""

from __future__ import annotations

from typing import ClassVar


class IntentError(Exception):
    """Root of what training, loading or scoring an intent model may raise."""

    code: ClassVar[str] = "intent"
    is_retryable: ClassVar[bool] = False


class ArtefactError(IntentError):
    """An artefact folder is incomplete, damaged, or of a schema that this version does not read."""

    code: ClassVar[str] = "intent_artefact"


class EncoderError(IntentError):
    """A sentence encoder is unknown, not installed, cannot be read, or is not the one a model was trained with."""

    code: ClassVar[str] = "intent_encoder"


class TrainingDataError(IntentError):
    """Examples from which no model can be trained."""

    code: ClassVar[str] = "intent_training_data"
