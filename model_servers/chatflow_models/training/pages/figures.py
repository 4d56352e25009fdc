"""The figures of a rehearsal as plain data, for report.json. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from chatflow_models.training.judgement import Judged
from chatflow_models.training.rehearsal import HeldOutTest, Rehearsed, Rival

from . import wording


def figures(rehearsed: Rehearsed) -> dict[str, Any]:
    """What TrainingReport says, with all warnings, and `held_out`: None where nothing could be held out."""
    report = rehearsed.fitted.report.as_json()
    report["warnings"] = list(rehearsed.warnings)
    report["verdict"] = wording.verdict(rehearsed)
    report["held_out"] = None if rehearsed.test is None else _test(rehearsed.test, rehearsed)
    return report


def _test(test: HeldOutTest, rehearsed: Rehearsed) -> dict[str, Any]:
    settings = rehearsed.settings
    return {
        "seed": settings.seed,
        "share": settings.held_out,
        "learned": test.learned,
        "questions": len(test.judged.questions),
        "groups": test.groups,
        "evaluation": asdict(test.judged.evaluation(settings.threshold)),
        "intents": _intents(test.judged),
        "mistakes": [
            {"text": example.text, "intent": example.intent, "predicted": predicted, "confidence": round(confidence, 4)}
            for example, predicted, confidence in wording.mistakes(test.judged, settings.threshold)
        ],
        "current": None if test.rival is None else _rival(test.rival, settings.threshold),
    }


def _rival(rival: Rival, threshold: float) -> dict[str, Any]:
    return {
        "version": rival.version,
        "basis": rival.basis.value,
        "seen": rival.seen,
        "known_share": rival.known_share,
        "evaluation": asdict(rival.judged.evaluation(threshold)),
        "verdict": rival.compared.verdict.value,
        "won": rival.compared.won,
        "lost": rival.compared.lost,
        "p_value": rival.compared.p_value,
        "differences": {name: asdict(change) for name, change in rival.compared.differences.items()},
    }


def _intents(judged: Judged) -> dict[str, dict[str, int]]:
    counts = Counter(question.intent for question in judged.questions)
    right = Counter(
        question.intent for question, is_right in zip(judged.questions, judged.is_right, strict=True) if is_right
    )
    return {intent: {"questions": counts[intent], "right": right[intent]} for intent in sorted(counts)}
