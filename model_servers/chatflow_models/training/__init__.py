"""Training of the intent model: data checks, fit, evaluation, report."""

from .evaluation import Confusion, Evaluation, evaluate
from .examples import Example, check_examples
from .fit import OnProgress, train
from .rehearsal import Rehearsed, Settings, rehearse
from .report import TrainingReport

__all__ = [
    "Confusion",
    "Evaluation",
    "Example",
    "OnProgress",
    "Rehearsed",
    "Settings",
    "TrainingReport",
    "check_examples",
    "evaluate",
    "rehearse",
    "train",
]
