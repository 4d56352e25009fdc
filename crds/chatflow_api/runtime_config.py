"""What the gateway and the worker read, derived from a ChatFlow by one pure function.

The operator writes it into a ConfigMap, `chatflow up` into a file. Secrets and file contents never stand in it: they
are named by their path below the folders in which Secrets, ConfigMaps and volumes are mounted.
"""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

from chatflow_api import v1alpha1 as api
from chatflow_api.names import inference_service, predictor_host

QUEUE_WAIT_S = 60.0
"""A message waits for earlier ones of its conversation this long."""
DRAIN_MARGIN_S = 15.0
"""Beyond the wait and the longest answer: for its commit, and for streams to be told."""


class Config(BaseModel):
    """Base: frozen, and strict about unknown fields so that a newer operator's file is refused, not misread."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FlowConfig(Config):
    """Which flow this is. `key` prefixes its Redis keys: the object's UID, or a hash of its name on one machine."""

    name: str
    namespace: str
    key: str


class JwtConfig(Config):
    """Tokens of an identity provider."""

    issuer: str
    audience: str
    jwks_url: str
    uid_claim: str


class AuthConfig(Config):
    """Who may speak. `session_key` and `api_keys` are paths below the Secrets folder."""

    required: bool
    anonymous: bool
    session_ttl_s: float
    session_key: str | None
    api_keys: str | None
    jwt: JwtConfig | None


class RateConfig(Config):
    """A rate: `burst` at once, then one every `interval_ms`; 0 sets no limit."""

    interval_ms: float
    burst: int


class RateLimitConfig(Config):
    """How many messages are taken."""

    per_user: RateConfig
    per_address: RateConfig
    trusted_proxies: int


class WebhookConfig(Config):
    """An address that is told. `secret` is a path below the Secrets folder."""

    url: str
    secret: str
    timeout_s: float


class GatewayConfig(Config):
    """The HTTP front."""

    auth: AuthConfig
    rate_limit: RateLimitConfig
    allowed_origins: tuple[str, ...]
    max_text_length: int
    queue_wait_s: float
    """How long a message waits for earlier ones of its conversation, at most."""
    drain_s: float
    """How long a gateway that leaves waits for its last answers."""
    messages_webhook: WebhookConfig | None
    """Is told of replies to messages that are answered later."""


class StateConfig(Config):
    """Conversation state."""

    ttl_s: float
    closing_notice_s: float
    history_messages: int
    replicas: int
    """How many of them have to have what must not be lost; 0 waits for none."""
    replicas_timeout_ms: int


class SlotConfig(Config):
    """One slot."""

    name: str
    ask: str
    pattern: str
    invalid: str | None


class ActionConfig(Config):
    """One business call. `secret` is a path below the Secrets folder."""

    name: str
    intent: str
    slots: tuple[str, ...]
    url: str
    method: api.HttpMethod
    secret: str | None
    timeout_s: float
    reply: str
    not_found: str | None
    failure: str | None


class HandoffConfig(Config):
    """Handing a conversation over to a person. `agent_keys` is a path below the Secrets folder."""

    webhook: WebhookConfig
    agent_keys: str
    intent: str | None
    phrases: tuple[str, ...]
    announce: str | None
    returned: str | None


class DialogueConfig(Config):
    """What the bot says; None means the built-in text of the locale."""

    title: str
    persona: str | None
    greeting: str | None
    slots: tuple[SlotConfig, ...]
    actions: tuple[ActionConfig, ...]
    allowed_hosts: tuple[str, ...]
    rating_ask: str | None
    rating_scale: int
    closing: str | None
    ended: str | None
    busy: str | None
    refusal: str | None
    while_busy: dict[str, api.WhileBusy]
    handoff: HandoffConfig | None


class KnowledgeConfig(Config):
    """Retrieval and the answer cache."""

    top_k: int
    min_score: float
    cache_entries: int
    cache_ttl_s: float
    cache_is_shared: bool


class IntentServerConfig(Config):
    """A server of the intent classifier, by the Open Inference Protocol."""

    base_url: str
    model: str
    deadline_s: float


class IntentConfig(Config):
    """The intent classifier."""

    encoder: api.Encoder
    encoder_path: str | None
    confidence: float
    server: IntentServerConfig | None
    """Whom to ask; None to classify in the gateway's own process."""


class LanguageModelConfig(Config):
    """One language model. `api_key` is a path below the Secrets folder."""

    base_url: str
    model: str
    api_key: str | None
    first_token_deadline_s: float
    token_gap_deadline_s: float
    answer_deadline_s: float
    hold_s: float
    """How long a turn waits while no server of the model runs; 0: not at all."""
    may_sleep: bool
    """Whether it is in order that no server runs while nobody asks."""
    max_tokens: int
    temperature: float
    context_tokens: int
    prompt: str | None


class ModerationConfig(Config):
    """Word lists, as paths below the ConfigMaps folder."""

    word_lists: tuple[str, ...]
    action: api.ModerationAction
    allow: tuple[str, ...]


class BreakerConfig(Config):
    """Circuit breakers."""

    failure_rate: float
    calls: int
    window_s: float
    minimum_calls: int
    consecutive_failures: int | None
    slow_after_s: float | None
    open_s: float
    most_open_s: float


class ConcurrencyConfig(Config):
    """Answers of one model under way in one process."""

    least: int
    most: int
    first: int


class DegradationConfig(Config):
    """Behaviour under load."""

    backlog_limit: int
    shed_fraction: float
    concurrency: ConcurrencyConfig
    breaker: BreakerConfig


class RuntimeConfig(Config):
    """Everything."""

    flow: FlowConfig
    locale: api.Locale
    gateway: GatewayConfig
    state: StateConfig
    dialogue: DialogueConfig
    knowledge: KnowledgeConfig
    intent: IntentConfig
    llm: LanguageModelConfig | None
    backup: LanguageModelConfig | None
    moderation: ModerationConfig
    degradation: DegradationConfig


def derive(flow: api.ChatFlow) -> RuntimeConfig:
    """The runtime's configuration of a validated flow."""
    spec = flow.spec
    return RuntimeConfig(
        flow=_identity(flow.metadata),
        locale=spec.locale,
        gateway=GatewayConfig(
            auth=_auth(spec.gateway.auth),
            rate_limit=RateLimitConfig(
                per_user=_rate(spec.gateway.rate_limit.per_user),
                per_address=_rate(spec.gateway.rate_limit.per_address),
                trusted_proxies=spec.gateway.rate_limit.trusted_proxies,
            ),
            allowed_origins=tuple(spec.gateway.allowed_origins),
            max_text_length=spec.gateway.max_text_length,
            queue_wait_s=QUEUE_WAIT_S,
            drain_s=QUEUE_WAIT_S + longest_answer_s(spec) + DRAIN_MARGIN_S,
            messages_webhook=None if (webhook := spec.gateway.messages.webhook) is None else _told(webhook),
        ),
        state=StateConfig(
            ttl_s=api.duration_s(spec.state.ttl),
            closing_notice_s=api.duration_s(spec.state.closing_notice),
            history_messages=spec.state.history_messages,
            replicas=_replicas(spec.state.redis),
            replicas_timeout_ms=round(api.duration_s(spec.state.redis.replication.timeout) * 1000),
        ),
        dialogue=_dialogue(spec.dialogue, title=spec.dialogue.title or flow.metadata.name),
        knowledge=KnowledgeConfig(
            top_k=spec.knowledge.top_k,
            min_score=spec.knowledge.min_score,
            cache_entries=spec.knowledge.cache.entries,
            cache_ttl_s=api.duration_s(spec.knowledge.cache.ttl),
            cache_is_shared=spec.knowledge.cache.shared and spec.knowledge.cache.entries > 0,
        ),
        intent=IntentConfig(
            encoder=spec.models.intent.encoder,
            encoder_path=spec.models.intent.encoder_path,
            confidence=spec.models.intent.confidence,
            server=_intent_server(spec.models.intent, flow.metadata),
        ),
        llm=_language_model(spec.models.llm, "llm", flow.metadata),
        backup=_language_model(spec.models.backup, "backup", flow.metadata),
        moderation=ModerationConfig(
            word_lists=tuple(f"{ref.name}/{ref.key}" for ref in spec.moderation.word_lists),
            action=spec.moderation.action,
            allow=tuple(spec.moderation.allow),
        ),
        degradation=DegradationConfig(
            backlog_limit=spec.degradation.backlog_limit,
            shed_fraction=spec.degradation.shed_fraction,
            concurrency=ConcurrencyConfig(
                least=spec.degradation.concurrency.min,
                most=spec.degradation.concurrency.max,
                first=spec.degradation.concurrency.initial,
            ),
            breaker=_breaker(spec.degradation.breaker),
        ),
    )


def _auth(auth: api.Auth) -> AuthConfig:
    return AuthConfig(
        required=auth.required,
        anonymous=auth.anonymous,
        session_ttl_s=api.duration_s(auth.session_ttl),
        session_key=_secret(auth.session_key_secret_ref),
        api_keys=_secret(auth.api_keys_secret_ref),
        jwt=None
        if auth.jwt is None
        else JwtConfig(
            issuer=auth.jwt.issuer,
            audience=auth.jwt.audience,
            jwks_url=auth.jwt.jwks_url,
            uid_claim=auth.jwt.uid_claim,
        ),
    )


def _replicas(redis: api.Redis) -> int:
    if redis.replication.replicas is not None:
        return redis.replication.replicas
    managed = None if redis.external is not None else redis.managed or api.ManagedRedis()
    return int(managed is not None and managed.replicas > 1)


def _rate(rate: api.Rate) -> RateConfig:
    interval_ms = api.duration_s(rate.per) * 1000 / rate.messages if rate.messages else 0.0
    return RateConfig(interval_ms=interval_ms, burst=rate.burst)


def _breaker(breaker: api.Breaker) -> BreakerConfig:
    return BreakerConfig(
        failure_rate=breaker.failure_rate,
        calls=breaker.calls,
        window_s=api.duration_s(breaker.window),
        minimum_calls=breaker.minimum_calls,
        consecutive_failures=breaker.consecutive_failures,
        slow_after_s=None if breaker.slow_after is None else api.duration_s(breaker.slow_after),
        open_s=api.duration_s(breaker.open_for),
        most_open_s=api.duration_s(breaker.max_open_for),
    )


def _identity(metadata: api.Metadata) -> FlowConfig:
    digest = hashlib.sha256(f"{metadata.namespace}/{metadata.name}".encode()).hexdigest()[:12]
    return FlowConfig(name=metadata.name, namespace=metadata.namespace, key=metadata.uid or digest)


def _secret(ref: api.SecretKeyRef | None) -> str | None:
    return None if ref is None else f"{ref.name}/{ref.key}"


def _handoff(handoff: api.Handoff | None) -> HandoffConfig | None:
    if handoff is None:
        return None
    ref = handoff.agent_secret_ref
    return HandoffConfig(
        webhook=_told(handoff.webhook),
        agent_keys=f"{ref.name}/{ref.key}",
        intent=handoff.intent,
        phrases=tuple(handoff.phrases),
        announce=handoff.announce,
        returned=handoff.returned,
    )


def _told(webhook: api.Webhook) -> WebhookConfig:
    ref = webhook.secret_ref
    return WebhookConfig(url=webhook.url, secret=f"{ref.name}/{ref.key}", timeout_s=api.duration_s(webhook.timeout))


def _dialogue(dialogue: api.Dialogue, title: str) -> DialogueConfig:
    return DialogueConfig(
        title=title,
        persona=dialogue.persona,
        greeting=dialogue.greeting,
        slots=tuple(
            SlotConfig(name=slot.name, ask=slot.ask, pattern=slot.pattern, invalid=slot.invalid)
            for slot in dialogue.slots
        ),
        actions=tuple(
            ActionConfig(
                name=action.name,
                intent=action.intent,
                slots=tuple(action.slots),
                url=action.http.url,
                method=action.http.method,
                secret=_secret(action.http.secret_ref),
                timeout_s=api.duration_s(action.http.timeout),
                reply=action.reply,
                not_found=action.not_found,
                failure=action.failure,
            )
            for action in dialogue.actions
        ),
        allowed_hosts=tuple(dialogue.allowed_hosts),
        rating_ask=dialogue.rating.ask,
        rating_scale=dialogue.rating.scale,
        closing=dialogue.closing,
        ended=dialogue.ended,
        busy=dialogue.busy,
        refusal=dialogue.refusal,
        handoff=_handoff(dialogue.handoff),
        while_busy={name: getattr(dialogue.while_busy, name) for name in api.WhileBusyPolicies.model_fields},
    )


def longest_answer_s(spec: api.ChatFlowSpec) -> float:
    """The longest that one answer may take: the wait for models that wake, the llm's silence and the backup's whole
    answer, or an action's call."""
    models = [model for model in (spec.models.llm, spec.models.backup) if model is not None]
    silence_s = sum(map(_hold_s, models)) + sum(api.duration_s(model.first_token_deadline) for model in models[:1])
    answers_s = [api.duration_s(model.answer_deadline) for model in models]
    calls_s = [api.duration_s(action.http.timeout) for action in spec.dialogue.actions]
    return max([silence_s + answer_s for answer_s in answers_s] + calls_s, default=0.0)


def _hold_s(model: api.LanguageModel) -> float:
    return api.duration_s(model.waking_deadline) if model.while_waking is api.WhileWaking.HOLD else 0.0


def _intent_server(intent: api.IntentModel, flow: api.Metadata) -> IntentServerConfig | None:
    if intent.kserve is None:
        return None
    return IntentServerConfig(
        base_url=f"http://{predictor_host(flow.name, flow.namespace, 'intent')}",
        model=inference_service(flow.name, "intent"),
        deadline_s=api.duration_s(intent.deadline),
    )


def _language_model(
    model: api.LanguageModel | None, role: api.ModelRole, flow: api.Metadata
) -> LanguageModelConfig | None:
    if model is None:
        return None
    if model.open_ai is not None:
        base_url, name = model.open_ai.base_url.rstrip("/"), model.open_ai.model
        api_key = _secret(model.open_ai.api_key_secret_ref)
    else:
        assert model.kserve is not None, "a language model has exactly one source"  # noqa: S101  The type guarantees it.
        name, api_key = model.kserve.adapter or inference_service(flow.name, role), None
        path = "/openai/v1" if model.kserve.format is api.ModelFormat.HUGGING_FACE else "/v1"
        base_url = f"http://{predictor_host(flow.name, flow.namespace, role)}{path}"
    return LanguageModelConfig(
        base_url=base_url,
        model=name,
        api_key=api_key,
        first_token_deadline_s=api.duration_s(model.first_token_deadline),
        token_gap_deadline_s=api.duration_s(model.token_gap_deadline),
        answer_deadline_s=api.duration_s(model.answer_deadline),
        hold_s=_hold_s(model),
        may_sleep=model.kserve is not None and model.kserve.replicas.min == 0,
        max_tokens=model.max_tokens,
        temperature=model.temperature,
        context_tokens=model.context_tokens,
        prompt=model.prompt,
    )
