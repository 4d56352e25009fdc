"""The runtime's one error tree. Adapters translate foreign errors into it; `web.problems` maps it to HTTP.

ChatFlowError
├── InvalidMessage            a request that can never succeed
│   └── MessageTooLong        the text is longer than the flow allows
├── CredentialMissing         the request does not say who sends it
├── CredentialInvalid         it says so, and cannot prove it
├── UserRefused               it is about another user than the one who sends it
├── SessionsRefused           the flow has no anonymous users
├── KeysUnavailable           an identity provider's keys cannot be read
├── RateLimited               more requests than the flow allows
├── ConversationBusy          the scene's policy refuses a second message, or too many wait
├── NotHandedOver             the bot answers this conversation, no person
├── InboxFull                 too many messages wait to be answered
├── ClaimLost                 the lease ran out and another attempt took the turn over
│   └── Overtaken             a newer message of the conversation did
├── LeaseLost                 another worker has the partition
├── Interrupted               a newer message ended this answer
├── StateError
│   ├── StateUnavailable      no answer from the state server
│   └── StateSchemaTooNew     the stored value is of a newer release
├── Shed                      too busy for a new conversation
├── ModelError
│   ├── ModelUnavailable      refused, broken, or an error status
│   │   ├── ModelAbsent       no server of it runs just now
│   │   ├── ModelOverloaded   as many of its answers are under way as it can bear
│   │   └── PromptRefused     it will not answer this very prompt
│   ├── FirstTokenLate        no first token before the deadline
│   ├── TokenGapTooLong       silence between two tokens
│   └── AnswerTooLong         the whole answer took too long
├── ClassifierUnavailable     the intent server does not answer
├── ActionFailed              a business API failed or was late
├── DeliveryFailed            a webhook did not take what it was told
│   └── WebhookGone           it never will
├── WordListInvalid           a moderation word list cannot be used
├── SourcesInvalid            files of the knowledge base cannot be read
└── ArtefactInvalid           a model or an index on disk cannot be used
"""

from __future__ import annotations

from typing import ClassVar


class ChatFlowError(Exception):
    """Root: `code` is stable and public, `is_retryable` tells whether the same request may succeed later."""

    code: ClassVar[str] = "internal"
    is_retryable: ClassVar[bool] = False
    retry_after_s: int | None = None
    """When it is worth trying again, where the error itself knows."""


class InvalidMessage(ChatFlowError):
    """A request that can never succeed as it is."""

    code = "invalid_message"


class MessageTooLong(InvalidMessage):
    """The text is longer than the flow allows."""

    code = "message_too_long"


class CredentialMissing(ChatFlowError):
    """The request does not say who sends it."""

    code = "credential_missing"


class CredentialInvalid(ChatFlowError):
    """The credential is none that this flow knows, or is no longer good."""

    code = "credential_invalid"


class UserRefused(ChatFlowError):
    """The request is about another user than the one who sends it."""

    code = "user_refused"


class SessionsRefused(ChatFlowError):
    """The flow has no anonymous users."""

    code = "sessions_refused"


class KeysUnavailable(ChatFlowError):
    """The keys of an identity provider cannot be read; told to operators alone."""

    code = "keys_unavailable"
    is_retryable = True


class RateLimited(ChatFlowError):
    """More requests than the flow allows: of this user, or of this client address."""

    code = "rate_limited"
    is_retryable = True

    def __init__(self, whose: str, retry_ms: int) -> None:
        self.retry_after_s = max(1, -(-retry_ms // 1000))
        super().__init__(f"too many requests of {whose}; send this one again in {self.retry_after_s} s")


class ConversationBusy(ChatFlowError):
    """The last message is still being answered, and the scene's policy refuses a second one."""

    code = "conversation_busy"
    is_retryable = True


class InboxFull(ChatFlowError):
    """Too many messages wait to be answered."""

    code = "inbox_full"
    is_retryable = True


class NotHandedOver(ChatFlowError):
    """The conversation is in no handoff, or in another one than `meant`: the bot answers it, or it has ended."""

    code = "not_handed_over"

    def __init__(self, scene: str, meant: str | None = None) -> None:
        super().__init__(
            f"the conversation is in scene {scene}; nobody has asked for a person"
            if meant is None or scene != "handoff"
            else f"handoff {meant!r} is over; the conversation is in another one"
        )


class LeaseLost(ChatFlowError):
    """Another worker has the partition by now."""

    code = "lease_lost"
    is_retryable = True


class ClaimLost(ChatFlowError):
    """Another owner holds the turn: the lease ran out, or a newer message interrupted it."""

    code = "claim_lost"
    is_retryable = True


class Overtaken(ClaimLost):
    """A newer message of the conversation has the turn, or had it."""

    code = "overtaken"


class Interrupted(ChatFlowError):
    """A newer message of the same conversation took over, as the scene's policy has it."""

    code = "interrupted"


class StateError(ChatFlowError):
    """Conversation state could not be read or written."""

    code = "state_error"


class StateUnavailable(StateError):
    """The state server does not answer."""

    code = "state_unavailable"
    is_retryable = True


class StateSchemaTooNew(StateError):
    """A stored value was written by a newer release; it is left as it is."""

    code = "state_schema_too_new"


class Shed(ChatFlowError):
    """The gateway is too busy to begin another conversation."""

    code = "shed"
    is_retryable = True


class ModelError(ChatFlowError):
    """A language model gave no answer."""

    code = "model_error"
    is_retryable = True


class ModelUnavailable(ModelError):
    """The model's server refused, broke off or answered with an error."""

    code = "model_unavailable"


class ModelAbsent(ModelUnavailable):
    """No server of the model runs just now: nobody takes connections, or a proxy says so."""

    code = "model_absent"


class PromptRefused(ModelUnavailable):
    """The model's server is well, and will not answer this very prompt: too long for it, most likely."""

    code = "prompt_refused"


class ModelOverloaded(ModelUnavailable):
    """As many answers of the model are under way as it can bear: it was not asked, or says so itself."""

    code = "model_overloaded"


class FirstTokenLate(ModelError):
    """No first token arrived before the deadline."""

    code = "first_token_late"


class TokenGapTooLong(ModelError):
    """The model fell silent in the middle of an answer."""

    code = "token_gap_too_long"


class AnswerTooLong(ModelError):
    """The model was still answering when the time for a whole answer was over."""

    code = "answer_too_long"


class ClassifierUnavailable(ChatFlowError):
    """The intent server does not answer, or not yet."""

    code = "classifier_unavailable"
    is_retryable = True


class ActionFailed(ChatFlowError):
    """A business API failed, was late, or is not on the allow-list."""

    code = "action_failed"
    is_retryable = True


class DeliveryFailed(ChatFlowError):
    """A webhook did not take what it was told: not reached, late, or not answered with 2xx."""

    code = "delivery_failed"
    is_retryable = True


class WebhookGone(DeliveryFailed):
    """A webhook says that it never takes this (410)."""

    code = "webhook_gone"
    is_retryable = False


class WordListInvalid(ChatFlowError):
    """A moderation word list holds a line that is no word."""

    code = "word_list_invalid"


class SourcesInvalid(ChatFlowError):
    """Files of the knowledge base cannot be read; `problems` lists all of them, one line each."""

    code = "knowledge_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"the knowledge sources have {count}:\n" + "\n".join(f"- {line}" for line in problems))


class ArtefactInvalid(ChatFlowError):
    """A model or an index on disk is incomplete, damaged or of a newer schema."""

    code = "artefact_invalid"
