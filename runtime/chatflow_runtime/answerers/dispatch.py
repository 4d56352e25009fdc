"""From a claimed message to an outcome: routes it, asks the answerers rung by rung, and makes the reply.

Called by `turn` once it owns the message; writes nothing itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import msgspec
import structlog
from chatflow_api.runtime_config import LanguageModelConfig, RuntimeConfig

from chatflow_runtime.answerers import handoff, knowledge
from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.answerers.cached import AnswerCache, CachedAnswer
from chatflow_runtime.answerers.models import ModelLadder
from chatflow_runtime.domain import routing
from chatflow_runtime.domain.concurrency import Priority
from chatflow_runtime.domain.conversation import Conversation, Event, Memory, Message, next_scene
from chatflow_runtime.domain.deliveries import Delivery
from chatflow_runtime.domain.ladder import RUNG_OF, priority_of
from chatflow_runtime.domain.personal_data import without_personal_data
from chatflow_runtime.domain.prompt import ChatMessage, build_prompt
from chatflow_runtime.domain.reply import Origin, Reply
from chatflow_runtime.domain.routing import Intent, Rules
from chatflow_runtime.domain.templates import fill
from chatflow_runtime.domain.texts import Texts
from chatflow_runtime.errors import ActionFailed, Shed
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import (
    ActionCaller,
    Classification,
    Clock,
    Outcome,
    Passage,
    Query,
    Record,
    RecordKind,
    Retriever,
)
from chatflow_runtime.sink import DeltaSink

log = structlog.get_logger()


class Question(msgspec.Struct, frozen=True):
    """A message that is ready to be answered: normalised and moderated."""

    uid: str
    message_id: str
    text: str
    revision: str | None
    """Of the models and the knowledge that answer it; the cache is scoped to it. None: the answer is not kept."""
    classification: Classification
    cached: CachedAnswer | None = None
    is_refused: bool = False

    @property
    def intent(self) -> Intent:
        """What routing sees of the classification."""
        if self.cached is not None:
            return self.cached.intent
        found = self.classification
        return Intent(found.intent, found.confidence, found.is_in_scope)


class _Step(msgspec.Struct, frozen=True):
    """What a route comes to."""

    event: Event
    memory: Memory
    answer: Answer
    slot: str | None = None
    asks_rating: bool = False
    records: tuple[Record, ...] = ()
    delivery: Delivery | None = None


@dataclass(frozen=True)
class Dispatcher:
    """Answers questions of one flow."""

    config: RuntimeConfig
    rules: Rules
    texts: Texts
    retriever: Retriever
    models: ModelLadder
    actions: ActionCaller
    cache: AnswerCache
    metrics: Metrics
    clock: Clock

    async def respond(
        self,
        question: Question,
        conversation: Conversation,
        sink: DeltaSink | None = None,
        history: Sequence[Message] | None = None,
    ) -> Outcome:
        """What to commit for a question. Falls down the rungs instead of raising, but for Shed: a new conversation is
        not begun by a busy reply."""
        step = await self._step(question, conversation, sink, history)
        intent = question.intent
        answer = step.answer
        self.metrics.answered(answer.origin)
        reply = Reply(
            message_id=question.message_id,
            text=answer.text,
            rung=RUNG_OF[answer.origin],
            origin=answer.origin,
            scene=next_scene(conversation.scene, step.event),
            intent=intent.name,
            confidence=None if intent.name is None else round(intent.confidence, 4),
            citations=answer.citations,
            slot=step.slot,
            rating_scale=self.config.dialogue.rating_scale if step.asks_rating else None,
            usage=answer.usage,
            model=answer.model,
            is_partial=answer.is_partial,
            retry_after_s=answer.retry_after_s,
            at_ms=self.clock.now_ms(),
        )
        return Outcome(step.event, step.memory, reply, step.records, step.delivery)

    async def _step(
        self,
        question: Question,
        conversation: Conversation,
        sink: DeltaSink | None,
        history: Sequence[Message] | None,
    ) -> _Step:
        memory, texts = conversation.memory, self.texts
        if question.is_refused:
            return _Step(Event.REFUSED, memory, _said(texts.refusal))
        # Nobody could answer later who sends the history along, and has no conversation here.
        rules = self.rules if history is None else self.rules.alone
        route = routing.route(question.text, conversation.scene, memory, question.intent, rules)
        match route:
            case routing.Greet():
                return _Step(Event.GREETED, memory, _said(texts.greeting))
            case routing.Cancel():
                return _Step(Event.CANCELLED, Memory(slots=memory.slots), _said(texts.cancelled))
            case routing.AskRating():
                return _Step(Event.SATISFIED, memory, _said(texts.rating_ask), asks_rating=True)
            case routing.Rate(score):
                return self._rated(question, memory, score)
            case routing.Collect():
                return self._collect(route, memory)
            case routing.Act():
                return await self._act(question, route)
            case routing.Answer():
                return await self._answer(question, conversation, route, sink, history)
            case routing.HandOver(reason=reason):
                self.metrics.handed_over(reason)
                told = handoff.requested(question.uid, self._said_by(question), conversation, reason)
                kept = Memory(slots=memory.slots)
                return _Step(Event.HANDED_OVER, kept, _said(texts.handed_over), delivery=told)
            case routing.Relay():
                told = handoff.relayed(question.uid, self._said_by(question), conversation.handoff)
                return _Step(Event.RELAYED, memory, Answer("", Origin.HANDOFF), delivery=told)
            case _:
                assert_never(route)

    def _said_by(self, question: Question) -> Message:
        return Message("user", question.text, self.clock.now_ms(), question.message_id)

    def _rated(self, question: Question, memory: Memory, score: int) -> _Step:
        record = Record(
            RecordKind.RATING,
            question.uid,
            self.clock.now_ms(),
            {"score": score, "scale": self.config.dialogue.rating_scale, "message_id": question.message_id},
        )
        return _Step(Event.RATED, memory, _said(self.texts.rated), records=(record,))

    def _collect(self, route: routing.Collect, memory: Memory) -> _Step:
        text = (route.slot.invalid or self.texts.slot_invalid) if route.is_repeated else route.slot.ask
        return _Step(Event.COLLECTED, _pending(route, memory), _said(text), slot=route.slot.name)

    async def _act(self, question: Question, route: routing.Act) -> _Step:
        action, slots = route.action, dict(route.slots)
        kept = slots
        try:
            result = await self.actions.call(action, slots, _effect_id(question))
            if result.is_found:
                text = fill(action.reply, slots, result.body)
            else:
                text = fill(action.not_found or action.failure or self.texts.action_not_found, slots, None)
                # An order number that led nowhere is forgotten, so that the next attempt asks again.
                kept = {name: value for name, value in slots.items() if name not in action.slots}
        except ActionFailed as error:
            self.metrics.action_error(action.name)
            log.warning("action_failed", action=action.name, reason=str(error))
            text = action.failure or self.texts.action_failed
        return _Step(Event.ANSWERED, Memory(slots=kept), Answer(text, Origin.ACTION))

    async def _answer(
        self,
        question: Question,
        conversation: Conversation,
        route: routing.Answer,
        sink: DeltaSink | None,
        history: Sequence[Message] | None,
    ) -> _Step:
        if question.cached is not None and route.is_known:
            answer = Answer(question.cached.answer.text, Origin.CACHE, citations=question.cached.answer.citations)
        else:
            answer = await self._from_knowledge_or_models(question, conversation, route, sink, history)
        # Where no model looked at the question, its label would not teach it anything.
        is_learnt_from = answer.origin not in (Origin.CACHE, Origin.KNOWLEDGE) and not question.classification.is_missed
        records = (self._labelling(question, answer),) if is_learnt_from else ()
        if route.resume is None:
            return _Step(Event.ANSWERED, conversation.memory, answer, records=records)
        return await self._resume(route.resume, conversation.memory, answer, records, sink)

    async def _from_knowledge_or_models(
        self,
        question: Question,
        conversation: Conversation,
        route: routing.Answer,
        sink: DeltaSink | None,
        history: Sequence[Message] | None,
    ) -> Answer:
        config = self.config.knowledge
        found = question.classification
        passages = await self.retriever.search(Query(question.text, found.alternatives, found.embedding), config.top_k)
        if route.is_known:
            known = knowledge.answer(passages, config.min_score)
            if known is not None:
                if question.revision is not None:
                    self.cache.put(question.revision, question.text, CachedAnswer(known, question.intent))
                return known
        # A message whose first attempt was interrupted stands in the stored history already.
        earlier = [message for message in conversation.history if message.message_id != question.message_id]
        prompts = self._prompts(question, history or earlier, passages)
        priority = priority_of(conversation, history)
        generated = await self.models.answer(prompts, sink, priority)
        if isinstance(generated, Answer):
            return _citing(generated, passages)
        if generated.is_overloaded and priority is Priority.NEW:
            raise Shed("the language models have too much to do; new conversations wait, try again in a few seconds")
        text = self.texts.busy if self.models.models else self.texts.no_answer
        return Answer(text, Origin.STATIC, retry_after_s=generated.retry_after_s)

    def _prompts(
        self, question: Question, history: Sequence[Message], passages: Sequence[Passage]
    ) -> Mapping[Origin, Sequence[ChatMessage]]:
        def prompt(model: LanguageModelConfig) -> Sequence[ChatMessage]:
            return build_prompt(
                model, self.config.dialogue.persona, self.config.locale, passages, history, question.text
            )

        configured = {Origin.LLM: self.config.llm, Origin.BACKUP: self.config.backup}
        return {origin: prompt(model) for origin, model in configured.items() if model is not None}

    async def _resume(
        self,
        waiting: routing.Collect,
        memory: Memory,
        answer: Answer,
        records: tuple[Record, ...],
        sink: DeltaSink | None,
    ) -> _Step:
        tail = f"\n\n{waiting.slot.ask}"
        if sink is not None and answer.origin in (Origin.LLM, Origin.BACKUP):
            await sink.delta(tail)
        return _Step(
            Event.COLLECTED,
            _pending(waiting, memory),
            msgspec.structs.replace(answer, text=answer.text + tail),
            slot=waiting.slot.name,
            records=records,
        )

    def _labelling(self, question: Question, answer: Answer) -> Record:
        intent = question.intent
        return Record(
            RecordKind.LABELLING,
            question.uid,
            self.clock.now_ms(),
            {
                "text": without_personal_data(question.text),
                "intent": intent.name,
                "confidence": round(intent.confidence, 4),
                "origin": answer.origin.value,
                "message_id": question.message_id,
            },
        )


def _effect_id(question: Question) -> str:
    """Names the message towards business APIs. Message ids are unique for one user only, and user ids stay inside."""
    return hashlib.blake2b(f"{question.uid}\0{question.message_id}".encode(), digest_size=16).hexdigest()


def _said(text: str) -> Answer:
    return Answer(text, Origin.DIALOGUE)


def _pending(route: routing.Collect, memory: Memory) -> Memory:
    is_same = memory.pending == route.slot.name
    return Memory(
        slots=dict(route.slots),
        action=route.action.name,
        pending=route.slot.name,
        asked=memory.asked + 1 if is_same else 1,
    )


def _citing(answer: Answer, passages: Sequence[Passage]) -> Answer:
    """The passages that the text refers to by their numbers, as the prompt asks the model to."""
    cited = tuple(
        msgspec.structs.replace(passage.citation(), number=number)
        for number, passage in enumerate(passages, start=1)
        if f"[{number}]" in answer.text
    )
    return Answer(answer.text, answer.origin, cited, answer.usage, answer.model, answer.is_partial)
