"""The intent model itself: features, scoring, calibration, artefact. Needs numpy, no training library, no server."""

from .artefact import ReportSummary
from .encoders import CachingEncoder, Encoder, NoEncoder, OnnxEncoder, UniversalEncoder, load_encoder
from .errors import ArtefactError, EncoderError, IntentError, TrainingDataError
from .scoring import IntentModel, Prediction
from .text import normalise

__all__ = [
    "ArtefactError",
    "CachingEncoder",
    "Encoder",
    "EncoderError",
    "IntentError",
    "IntentModel",
    "NoEncoder",
    "OnnxEncoder",
    "Prediction",
    "ReportSummary",
    "TrainingDataError",
    "UniversalEncoder",
    "load_encoder",
    "normalise",
]
