"""Takes labelled questions through a flow's real parts in this process. Called by `evaluate`.

The order is that of a turn: normalise, moderate, classify, route, retrieve. Only the language models and the business
APIs are not called, since what they say is no matter of the manifest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import assert_never

from chatflow_api.runtime_config import RuntimeConfig
from chatflow_api.v1alpha1 import OUT_OF_SCOPE
from chatflow_models.intent import IntentModel
from chatflow_runtime.adapters.artefacts import ArtefactFolder, Artefacts, Versions
from chatflow_runtime.adapters.classification import NoClassifier
from chatflow_runtime.adapters.knowledge import KnowledgeRetriever
from chatflow_runtime.answerers import knowledge
from chatflow_runtime.domain import routing
from chatflow_runtime.domain.conversation import Memory, Scene
from chatflow_runtime.domain.moderation import Moderator, parse_words
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.domain.reply import Origin, Rung
from chatflow_runtime.ports import UNKNOWN, Classification, Query

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.artefact_store import ArtefactStore, Pair
from chatflow_cli.local.build_request import BuildRequest
from chatflow_cli.local.data_folder import DataFolder
from chatflow_cli.local.preparation import Options, Prepared, prepare
from chatflow_cli.measures import Judged
from chatflow_cli.questions import QUESTIONS_FILE, Question, read_questions

_FOUND = 5


def run_trial(options: Options, file: Path | None, progress: Callable[[str], None]) -> list[Judged]:
    """What becomes of every question; ManifestUnusable when manifest or questions cannot be used."""
    prepared = prepare(options)
    questions = read_questions(file or prepared.files.folder / QUESTIONS_FILE)
    folder = DataFolder.below(options.data or Path(".chatflow"), prepared.flow.metadata).artefacts
    pair = _built(BuildRequest.of(prepared.config, prepared.content), folder, progress)
    artefacts = ArtefactFolder(folder).load(Versions(knowledge=pair.knowledge, intent=pair.intent))
    _check_labels(file or prepared.files.folder / QUESTIONS_FILE, questions, artefacts)
    trial = _Trial(
        prepared.config,
        routing.Rules.of(prepared.config),
        _moderator(prepared),
        artefacts.intent,
        KnowledgeRetriever(artefacts.index),
    )
    return asyncio.run(trial.judge(questions))


def _check_labels(path: Path, questions: Sequence[Question], artefacts: Artefacts) -> None:
    """ManifestUnusable for labels that nothing could match: they would count as the bot's mistakes."""
    intents = {OUT_OF_SCOPE, *(() if artefacts.intent is None else artefacts.intent.labels)}
    entries = {entry.id for entry in artefacts.index.entries}
    problems = [
        f"{path}:{question.line}: {kind} {value!r} is unknown{_did_you_mean(value, known)}"
        for question in questions
        for kind, value, known in (
            ("intent", question.intent, intents),
            *(("answer", answer, entries) for answer in question.answers),
        )
        if value not in known
    ]
    if problems:
        raise ManifestUnusable("\n".join(problems))


def _did_you_mean(value: str, known: Collection[str]) -> str:
    close = get_close_matches(value, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "; correct it, or add it to the flow"


def _built(request: BuildRequest, folder: Path, progress: Callable[[str], None]) -> Pair:
    pair = ArtefactStore(folder).built(request.fingerprint())
    if pair is not None:
        return pair
    # Training brings libraries that take seconds to load.
    from chatflow_cli.local.build import BuildFailed, build

    try:
        return build(request, folder, progress)
    except BuildFailed as error:
        raise ManifestUnusable(str(error)) from error


@dataclass(frozen=True)
class _Trial:
    """The parts, wired as `chatflow_runtime.bootstrap` wires them."""

    config: RuntimeConfig
    rules: routing.Rules
    moderator: Moderator
    model: IntentModel | None
    retriever: KnowledgeRetriever

    async def judge(self, questions: Sequence[Question]) -> list[Judged]:
        """All questions, in their order."""
        texts = [self.moderator.check(normalise(question.text)) for question in questions]
        classified = await self._classified([verdict.text for verdict in texts])
        return [
            await self._judged(question, verdict.text, verdict.is_refused, classification)
            for question, verdict, classification in zip(questions, texts, classified, strict=True)
        ]

    async def _classified(self, texts: Sequence[str]) -> list[Classification]:
        if self.model is None:
            return [await NoClassifier().classify(text) for text in texts]
        return [
            Classification(
                prediction.intent,
                prediction.confidence,
                prediction.is_in_scope,
                tuple(prediction.alternatives),
                prediction.embedding,
            )
            for prediction in self.model.predict(list(texts))
        ]

    async def _judged(
        self, question: Question, text: str, is_refused: bool, classification: Classification = UNKNOWN
    ) -> Judged:
        intent = routing.Intent(classification.intent, classification.confidence, classification.is_in_scope)
        is_acted_on = routing.acted_on(intent, self.rules)
        query = Query(text, classification.alternatives, classification.embedding)
        passages = await self.retriever.search(query, max(_FOUND, self.config.knowledge.top_k))
        answer = knowledge.answer(passages[: self.config.knowledge.top_k], self.config.knowledge.min_score)
        origin = Origin.DIALOGUE
        if not is_refused:
            route = routing.route(text, Scene.GREETING, Memory(), intent, self.rules)
            origin = self._origin(route, is_answered=answer is not None)
        return Judged(
            text=question.text,
            intent=question.intent,
            answers=question.answers,
            predicted=classification.intent,
            confidence=classification.confidence,
            is_acted_on=is_acted_on,
            found=tuple(passage.id for passage in passages[:_FOUND]),
            rung=_rung(origin).value,
            origin=origin.value,
        )

    def _origin(self, route: routing.Route, *, is_answered: bool) -> Origin:
        match route:
            case routing.Act() | routing.Collect():
                return Origin.ACTION
            case routing.Greet() | routing.Cancel() | routing.AskRating() | routing.Rate() | routing.HandOver():
                return Origin.DIALOGUE
            case routing.Relay():
                return Origin.HANDOFF
            case routing.Answer(is_known=is_known):
                if is_known and is_answered:
                    return Origin.KNOWLEDGE
                return Origin.STATIC if self.config.llm is None else Origin.LLM
            case _:
                assert_never(route)


def _rung(origin: Origin) -> Rung:
    return {Origin.LLM: Rung.L1, Origin.STATIC: Rung.L2}.get(origin, Rung.L0)


def _moderator(prepared: Prepared) -> Moderator:
    moderation = prepared.config.moderation
    words: list[str] = []
    for path in moderation.word_lists:
        name, key = path.split("/", 1)
        words += parse_words(prepared.files.objects.configmaps[name][key].decode("utf-8", "replace"), path)
    return Moderator.build(words, moderation.allow, moderation.action)
