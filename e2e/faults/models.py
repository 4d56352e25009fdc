"""The two language models of the scenarios: they answer by quoting the question, or fail as they are told."""

from __future__ import annotations

from enum import StrEnum

from tests_runtime.scripted_openai import Break, Pause, Request, Say, Script, ScriptedOpenAI, Send, fails

LARGE, SMALL = "large", "small"
ANSWER = "answer: "


class Mode(StrEnum):
    """How a model behaves."""

    WELL = "well"
    STALLED = "stalled"
    """Nothing comes."""
    DRIPPING = "dripping"
    """One piece a second."""
    FAILING = "failing"
    """Status 500."""
    GARBAGE = "garbage"
    """What comes is no event."""
    BREAKING = "breaking"
    """The connection is cut after the first piece."""


class Models:
    """Behind one scripted server; `modes` may be changed at any time."""

    def __init__(self, server: ScriptedOpenAI) -> None:
        self.modes = {LARGE: Mode.WELL, SMALL: Mode.WELL}
        self._server = server
        server.default = self._answer

    def heal(self) -> None:
        """Both answer well again."""
        self.modes = dict.fromkeys(self.modes, Mode.WELL)

    def _answer(self, request: Request) -> Script:
        self._server.requests.clear()  # They would fill the memory: nobody looks at them.
        text = request.question
        match self.modes[str(request.body["model"])]:
            case Mode.WELL:
                return Script((Say(ANSWER), Say(text)))
            case Mode.STALLED:
                return Script((Pause(60.0),), has_role=False)
            case Mode.DRIPPING:
                third = len(text) // 3 + 1
                return Script(
                    tuple(step for at in range(0, len(text), third) for step in (Say(text[at : at + third]), Pause(1)))
                )
            case Mode.FAILING:
                return fails(500)
            case Mode.GARBAGE:
                return Script((Send(b"data: {no json\n\n"),), has_role=False)
            case Mode.BREAKING:
                return Script((Say(ANSWER), Break()))
