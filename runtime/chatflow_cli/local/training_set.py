"""What a flow's intent model is trained from, and the version that its content gives it. Called by `build` and `train`,
which thereby find each other's models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
from chatflow_models.training import Example
from chatflow_runtime.adapters.knowledge.entries import Knowledge
from chatflow_runtime.domain.normalisation import normalise

from chatflow_cli.local.build_request import BuildRequest, digest


@dataclass(frozen=True)
class TrainingSet:
    """The flow's examples and the questions of its knowledge, spelt as the gateway spells what users write."""

    examples: Sequence[Example]
    version: str
    """The name of the artefact in the folder of artefacts."""

    @classmethod
    def of(cls, request: BuildRequest, knowledge: Knowledge) -> Self:
        """Those of a request, whose knowledge has been read."""
        places = {entry.id: f"{entry.source}, entry {entry.id}" for entry in knowledge.entries}
        examples = [Example(normalise(text), intent, source=source) for text, intent, source in request.examples]
        examples += [
            Example(normalise(each.text), each.intent, each.answer, places[each.answer]) for each in knowledge.examples
        ]
        rows = msgspec.json.encode([(example.text, example.intent, example.answer) for example in examples])
        return cls(examples, digest(rows, request.settings, repr(request.confidence).encode()))
