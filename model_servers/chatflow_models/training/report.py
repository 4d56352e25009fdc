"""The training report: what was trained on what, how good it is, and what is wrong with the examples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from chatflow_models.intent.artefact import ReportSummary

from .evaluation import Confusion, Evaluation


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What `train` found out. All figures come from cross-validation: each question is predicted by a model that did
    not see it. Temperature, out-of-scope bias and a weight for each kind of evidence are fitted on the same
    predictions, five numbers at most."""

    version: str
    encoder: str
    threshold: float
    temperature: float
    out_of_scope_bias: float
    folds: int
    examples_per_intent: dict[str, int]
    """Examples by intent, out_of_scope among them."""
    evaluated: int
    """How many in-scope examples were held out once; the rest are the only ones of their intent."""
    evaluation: Evaluation
    background_questions: int
    """Everyday questions used as distant out-of-scope examples."""
    background_left_out: tuple[str, ...]
    """Everyday questions that resemble the flow's own examples."""
    background_leak: float | None
    """Share of the everyday questions, held out, whose confidence is above the threshold."""
    confusions: tuple[Confusion, ...]
    matrix_labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    """Rows are the actual intents, columns the predicted ones, both in the order of matrix_labels."""
    warnings: tuple[str, ...]
    training_s: float

    def summary(self, out_of_scope_label: str) -> ReportSummary:
        """The figures that travel with the model."""
        outside = self.examples_per_intent.get(out_of_scope_label, 0)
        return ReportSummary(
            examples=sum(self.examples_per_intent.values()),
            intents=len(self.examples_per_intent.keys() - {out_of_scope_label}),
            out_of_scope_examples=outside,
            accuracy=self.evaluation.accuracy,
            calibration_error=self.evaluation.calibration_error,
            coverage=self.evaluation.coverage,
            precision=self.evaluation.precision,
            out_of_scope_leak=self.evaluation.out_of_scope_leak,
            training_s=self.training_s,
            warnings=self.warnings,
        )

    def as_json(self) -> dict[str, Any]:
        """The whole report, for report.json."""
        return asdict(self)

    def as_markdown(self) -> str:
        """The report for readers; the matrix is in report.json alone."""
        found = self.evaluation
        lines = [
            f"# Intent model {self.version}",
            "",
            f"{sum(self.examples_per_intent.values())} examples, encoder {self.encoder}, {self.folds} folds,"
            f" {self.training_s:.1f} s. All figures are cross-validated.",
            "",
            "| figure | value |",
            "|---|---|",
            f"| accuracy | {found.accuracy:.3f} |",
            f"| calibration error | {found.calibration_error:.3f} |",
            f"| coverage above {self.threshold:g} | {found.coverage:.3f} |",
            f"| precision above {self.threshold:g} | {found.precision:.3f} |",
            f"| out-of-scope examples above {self.threshold:g} | {_figure(found.out_of_scope_leak)} |",
            f"| everyday questions above {self.threshold:g} | {_figure(self.background_leak)} |",
            *_section("Warnings", self.warnings),
            *_section("Everyday questions left out, since they resemble the examples", self.background_left_out),
            *_section("Mistaken most often", [f"{c.actual} for {c.predicted}: {c.count}" for c in self.confusions]),
            *_section("Examples", [f"{name}: {count}" for name, count in self.examples_per_intent.items()]),
        ]
        return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "none given" if value is None else f"{value:.3f}"


def _section(title: str, items: tuple[str, ...] | list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {item}" for item in items)] if items else []
