"""The ChatFlow custom resource, `chatflow.dev/v1alpha1`: its spec, every field described, bounded and defaulted.

Read by `chatflow validate` and `chatflow up`, by `crdgen` (which turns it into the CustomResourceDefinition),
and by the operator. A field stands here only once something acts on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from chatflow_api.access import Auth as Auth
from chatflow_api.access import Jwt as Jwt
from chatflow_api.access import Rate as Rate
from chatflow_api.access import RateLimit as RateLimit
from chatflow_api.placement import AccessMode as AccessMode
from chatflow_api.placement import Autoscaler as Autoscaler
from chatflow_api.placement import (
    Autoscaling,
    GatewayReplicas,
    Observability,
)
from chatflow_api.placement import IntentServer as IntentServer
from chatflow_api.placement import KServeModel as KServeModel
from chatflow_api.placement import ManagedRedis as ManagedRedis
from chatflow_api.placement import ModelAutoscaling as ModelAutoscaling
from chatflow_api.placement import ModelFormat as ModelFormat
from chatflow_api.placement import ModelReplicas as ModelReplicas
from chatflow_api.placement import ModelRole as ModelRole
from chatflow_api.placement import Prometheus as Prometheus
from chatflow_api.placement import Reclaim as Reclaim
from chatflow_api.placement import RedisReplicas as RedisReplicas
from chatflow_api.placement import Replicas as Replicas
from chatflow_api.placement import Resources as Resources
from chatflow_api.placement import Route as Route
from chatflow_api.placement import Storage as Storage
from chatflow_api.placement import Volume as Volume
from chatflow_api.placement import WarmUp as WarmUp
from chatflow_api.spec_types import ConfigMapKeyRef as ConfigMapKeyRef
from chatflow_api.spec_types import DataKey as DataKey
from chatflow_api.spec_types import Duration as Duration
from chatflow_api.spec_types import Finding as Finding
from chatflow_api.spec_types import LongText as LongText
from chatflow_api.spec_types import Name as Name
from chatflow_api.spec_types import ObjectName as ObjectName
from chatflow_api.spec_types import Question as Question
from chatflow_api.spec_types import RuleBroken as RuleBroken
from chatflow_api.spec_types import SecretKeyRef as SecretKeyRef
from chatflow_api.spec_types import Spec as Spec
from chatflow_api.spec_types import Text as Text
from chatflow_api.spec_types import Within as Within
from chatflow_api.spec_types import duration_s as duration_s
from chatflow_api.spec_types import exactly_one
from chatflow_api.spec_types import secret_refs as secret_refs

GROUP = "chatflow.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ChatFlow"

OUT_OF_SCOPE = "out_of_scope"
"""The reserved intent name under which questions that the bot must not answer are listed."""


class Locale(StrEnum):
    """Language of the built-in replies and of text normalisation."""

    ZH_CN = "zh-CN"
    EN = "en"


class ConfigMapSource(Spec):
    """Files held by a ConfigMap: each key is a file, its ending tells the format."""

    name: ObjectName
    """Name of the ConfigMap."""
    keys: Annotated[list[DataKey], Field(max_length=200)] = []
    """Keys to read; all of them when empty."""


class VolumeSource(Spec):
    """Files on a PersistentVolumeClaim, for content above a ConfigMap's limit of 1 MiB."""

    claim_name: ObjectName
    """Name of the claim. `chatflow up` takes a folder for it: `--volume CLAIM=FOLDER`."""
    path: Annotated[str, StringConstraints(pattern=r"^[^/].*$", max_length=1000)] = "."
    """Folder or file inside the volume."""

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if ".." in self.path.split("/"):
            raise RuleBroken(Finding(("path",), f"{self.path!r} leaves the volume; write it without '..'"))
        return self

    cel: ClassVar = [("!self.path.matches('(^|/)[.][.](/|$)')", "path must stay inside the volume")]


class Source(Spec):
    """Where files come from; set exactly one kind."""

    config_map: ConfigMapSource | None = None
    """Files in a ConfigMap."""
    persistent_volume_claim: VolumeSource | None = None
    """Files on a volume."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        exactly_one(self, "config_map", "persistent_volume_claim")
        return self

    cel: ClassVar = [
        (
            "has(self.configMap) != has(self.persistentVolumeClaim)",
            "set exactly one of configMap or persistentVolumeClaim",
        )
    ]


Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[A-Za-z0-9.*-]+(:[0-9]{1,5})?)$", max_length=300)]


class Webhook(Spec):
    """An address of yours that is told by POST, signed as Standard Webhooks have it, until it takes what it is told."""

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://[^\x00-\x20/?#@]+([/?][^\x00-\x20#]*)?$", max_length=1000)
    ]
    """Where to; redirects are not followed."""
    secret_ref: SecretKeyRef
    """What deliveries are signed with: whsec_ and base64, or plain text. Several, one a line, sign each delivery
    side by side, so that a new one can be brought in before the old one goes."""
    timeout: Annotated[Duration, Within("100ms", "30s")] = "10s"
    """Longest wait for the answer to one delivery. One that is late, or not answered with 2xx, is sent again after
    growing pauses, for a day."""


class Messages(Spec):
    """Messages that are answered later, by `POST /v1/messages`."""

    webhook: Webhook | None = None
    """Is told of their replies, and of those that get none. The replies stand in the outbox as well."""


class Gateway(Spec):
    """The HTTP and WebSocket front of the flow."""

    replicas: GatewayReplicas = GatewayReplicas()
    """How many gateways run; an autoscaler chooses between the two."""
    autoscaling: Autoscaling = Autoscaling()
    """When gateways are added."""
    resources: Resources = Resources(requests={"cpu": "500m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    """What each gateway asks of its node. One gateway uses one core at most."""
    route: Route | None = None
    """How users reach the gateways from outside the cluster; without it, by the Service alone."""
    auth: Auth = Auth()
    """Who may speak, and as whom."""
    rate_limit: RateLimit = RateLimit()
    """How many messages are taken."""
    allowed_origins: Annotated[list[Origin], Field(max_length=100)] = []
    """Web origins whose pages may embed the widget (CORS, and the Origin check of WebSockets). The gateway's own
    origin is always allowed; `*` allows every page."""
    max_text_length: Annotated[int, Field(ge=1, le=20000)] = 2000
    """Longest message a user may send, in characters; a longer one is refused with 413."""
    messages: Messages = Messages()
    """Messages that are answered later."""


class ExternalRedis(Spec):
    """A Redis or Valkey that exists already."""

    url_secret_ref: SecretKeyRef
    """Secret key that holds the URL: redis://:password@host:6379/0, rediss:// with TLS,
    redis+sentinel://:password@host:26379,host:26379/name/0, or redis+cluster://:password@host:6379,host:6379."""


class Replication(Spec):
    """What has to be on replicas before it counts as done: replies, messages accepted to be answered later, and words
    of people at the agent desk. A primary that is lost takes along what no replica had."""

    replicas: Annotated[int, Field(ge=0, le=5)] | None = None
    """So many replicas have to confirm it. Unset: 1 with a managed server that has replicas, else none."""
    timeout: Annotated[Duration, Within("1ms", "1s")] = "50ms"
    """How long they are waited for; without them the reply goes out all the same, and nothing is waited for during the
    next second."""


class Redis(Spec):
    """Where conversation state is kept: in a server of the flow's own, or in one that exists."""

    managed: ManagedRedis | None = None
    """A server of the flow's own; this one, with its defaults, when neither is set. `chatflow up` starts a single
    one."""
    external: ExternalRedis | None = None
    """Use this server."""
    replication: Replication = Replication()
    """What has to be on replicas."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.managed is not None and self.external is not None:
            raise RuleBroken(Finding((), "managed and external are both set; keep the one that is meant"))
        return self

    cel: ClassVar = [("!(has(self.managed) && has(self.external))", "set managed or external, not both")]


class State(Spec):
    """Conversation state: how long it lives and where."""

    ttl: Annotated[Duration, Within("10s", "168h")] = "600s"
    """A conversation with no message for this long ends."""
    closing_notice: Annotated[Duration, Within("0s", "1h")] = "30s"
    """The user is told this long before the end; 0s sends no notice."""
    history_messages: Annotated[int, Field(ge=2, le=200)] = 20
    """How many messages of a conversation are kept and offered to the language model."""
    redis: Redis = Redis()
    """The state server."""

    @model_validator(mode="after")
    def _notice_before_end(self) -> Self:
        if duration_s(self.closing_notice) >= duration_s(self.ttl):
            message = f"{self.closing_notice} is not shorter than ttl {self.ttl}; lower it, or raise ttl"
            raise RuleBroken(Finding(("closingNotice",), message))
        return self

    cel: ClassVar = [("duration(self.closingNotice) < duration(self.ttl)", "closingNotice must be shorter than ttl")]


class Slot(Spec):
    """One piece of information the bot collects before an action."""

    name: Name
    """Name, used as {name} in the action's URL, body and reply."""
    ask: Text
    """Question that asks the user for it."""
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    """Regular expression that finds the value in the user's text; the first group, or the whole match, is the value."""
    invalid: Text | None = None
    """Answer when the text holds no such value; the question is asked again without it."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            message = f"{self.pattern} is no regular expression: {error}; correct it, or escape the sign with \\"
            raise RuleBroken(Finding(("pattern",), message)) from error
        if compiled.search("") is not None:
            message = (
                f"{self.pattern} matches a text of no length, so any text would do; ask for one character at least"
            )
            raise RuleBroken(Finding(("pattern",), message))
        return self


class HttpMethod(StrEnum):
    """HTTP methods an action may use; GET, PUT and DELETE are idempotent and retried once."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"


class HttpCall(Spec):
    """A call to a business API."""

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://[^{}\x00-\x20/?#]+([/?][^\x00-\x20#]*)?$", max_length=1000)
    ]
    """URL with {slot} placeholders in path and query, never in the host; values are percent-encoded."""
    method: HttpMethod = HttpMethod.GET
    """HTTP method. POST, PUT and PATCH send the slots as a JSON object."""
    secret_ref: SecretKeyRef | None = None
    """Token sent as `Authorization: Bearer`."""
    timeout: Annotated[Duration, Within("50ms", "30s")] = "2s"
    """Deadline of the whole call, a retry included."""


class Action(Spec):
    """A business call: once the intent is recognised and its slots are there, the API is asked and the answer told."""

    name: Name
    """Name of the action."""
    intent: Name
    """Intent that starts it."""
    slots: Annotated[list[Name], Field(max_length=10)] = []
    """Slots to collect first, in this order."""
    http: HttpCall
    """The call."""
    reply: Text
    """Answer on success, with {slot} and {response.field} placeholders (dots lead into nested objects)."""
    not_found: Text | None = None
    """Answer when the API says 404; failure's text without it."""
    failure: Text | None = None
    """Answer when the API fails or is late; a built-in text without it."""


class Rating(Spec):
    """The rating at the end of a conversation."""

    ask: Text | None = None
    """Question that asks for a rating; a built-in text without it."""
    scale: Annotated[int, Field(ge=2, le=10)] = 5
    """Highest rating; the lowest is 1."""


class WhileBusy(StrEnum):
    """What happens to a message that arrives while the same user's last one is being answered."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"


_PLACEHOLDER = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*(?:\.[^{}.\s]+)*)\}")
"""What takes a value in the reply of an action; other braces are text."""


class WhileBusyPolicies(Spec):
    """What happens, scene by scene, to a message that arrives while the last one is being answered: enqueue answers it
    afterwards, reject refuses it with 409, interrupt ends the answer under way."""

    greeting: WhileBusy = WhileBusy.ENQUEUE
    """At the start of a conversation."""
    collect: WhileBusy = WhileBusy.ENQUEUE
    """While slots are collected."""
    answer: WhileBusy = WhileBusy.ENQUEUE
    """While questions are answered."""
    evaluate: WhileBusy = WhileBusy.ENQUEUE
    """While a rating is asked."""


class Handoff(Spec):
    """Handing a conversation over to a person: whom to tell, how they answer, and what leads there. While it lasts the
    bot is silent."""

    webhook: Webhook
    """Your agent desk: is told of conversations to take over, of what their users say meanwhile, and of the end."""
    agent_secret_ref: SecretKeyRef
    """Keys with which the desk answers on /v1/handoffs, as bearer tokens of 16 characters at least. Several, one a
    line, are good side by side."""
    intent: Name | None = None
    """Intent that leads to a person as well."""
    phrases: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=40)]], Field(max_length=200)] = []
    """Whole messages that lead to a person, beside the built-in ones ("转人工", "talk to a human" and the like)."""
    announce: Text | None = None
    """Reply to a message that asks for a person."""
    returned: Text | None = None
    """Notice that the bot answers again."""


class Dialogue(Spec):
    """What the bot says and asks of its own accord. Texts without a value are built in, in the flow's locale."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=80)] | None = None
    """Name shown above the chat; the flow's name without it."""
    persona: LongText | None = None
    """Who the bot is and how it speaks; leads the language model's prompt."""
    greeting: Text | None = None
    """First words of a conversation."""
    slots: Annotated[list[Slot], Field(max_length=50)] = []
    """Information that actions need."""
    actions: Annotated[list[Action], Field(max_length=50)] = []
    """Business calls."""
    allowed_hosts: Annotated[
        list[
            Annotated[
                str,
                StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$", max_length=260),
            ]
        ],
        Field(max_length=100),
    ] = []
    """Hosts that actions may call, as host or host:port; when empty, the hosts of the actions' own URLs. Redirects to
    others are never followed."""
    rating: Rating = Rating()
    """The rating."""
    closing: Text | None = None
    """Notice sent before a silent conversation ends; {seconds} is the time left."""
    ended: Text | None = None
    """Last words when a conversation ends."""
    busy: Text | None = None
    """Static reply when no model answers in time."""
    refusal: Text | None = None
    """Reply to a message that moderation refuses."""
    while_busy: WhileBusyPolicies = WhileBusyPolicies()
    """What happens to a message that arrives while the last one is being answered."""
    handoff: Handoff | None = None
    """Handing a conversation over to a person. Without it the bot answers everything."""

    @model_validator(mode="after")
    def _references(self) -> Self:
        findings = [*self._doubles(), *self._unknown_names()]
        if findings:
            raise RuleBroken(*findings)
        return self

    def _doubles(self) -> Iterator[Finding]:
        for kind, where, field in (
            ("slot", "slots", "name"),
            ("action", "actions", "name"),
            ("intent of an action", "actions", "intent"),
        ):
            names = [getattr(part, field) for part in getattr(self, where)]
            for index, name in enumerate(names):
                if name in names[:index]:
                    yield Finding((where, index, field), f"{kind} {name!r} is given twice; each may stand once")
        if self.handoff is not None and self.handoff.intent in [action.intent for action in self.actions]:
            message = f"intent {self.handoff.intent!r} starts an action already; name another one, or leave it out"
            yield Finding(("handoff", "intent"), message)

    def _unknown_names(self) -> Iterator[Finding]:
        known = sorted(slot.name for slot in self.slots)
        for index, action in enumerate(self.actions):
            for number, name in enumerate(action.slots):
                if name not in known:
                    message = (
                        f"action {action.name!r} needs slot {name!r}, which dialogue.slots does not define;"
                        f" define it there, or use one of: {', '.join(known) or 'none yet'}"
                    )
                    yield Finding(("actions", index, "slots", number), message)
            url = ("actions", index, "http", "url")
            for name in sorted(set(re.findall(r"\{([^{}]*)\}", action.http.url)) - set(action.slots)):
                message = f"the url uses {{{name}}}, which is not among the action's slots; add it to slots"
                yield Finding(url, message)
            yield from self._unknown_placeholders(index, action)
            host = re.split(r"[/?]", action.http.url.split("://", 1)[1], maxsplit=1)[0]
            if self.allowed_hosts and host not in self.allowed_hosts:
                message = f"action {action.name!r} calls {host!r}, which allowedHosts does not list; add it there"
                yield Finding(url, message)

    def _unknown_placeholders(self, index: int, action: Action) -> Iterator[Finding]:
        """Found here and not when a customer reads the reply: by then the business API has acted."""
        usable = ", ".join(f"{{{name}}}" for name in action.slots) or "none"
        for field, text in (("reply", action.reply), ("notFound", action.not_found)):
            for name in sorted(set(_PLACEHOLDER.findall(text or ""))):
                if name in action.slots or (field == "reply" and re.match(r"response(\.|$)", name)):
                    continue
                message = f"{field} uses {{{name}}}; the action's slots are {usable}"
                message += ", and fields of the answer {response.field}" if field == "reply" else ""
                yield Finding(("actions", index, field), f"{message}; use one of these")

    cel: ClassVar = [
        (
            "self.actions.all(a, a.slots.all(s, self.slots.exists(d, d.name == s)))",
            "every slot of an action must be defined in dialogue.slots",
        ),
        (
            "self.actions.all(a, self.actions.exists_one(b, b.intent == a.intent))",
            "an intent may start one action only",
        ),
        (
            "!has(self.handoff) || !has(self.handoff.intent) || self.actions.all(a, a.intent != self.handoff.intent)",
            "the intent of handoff may start no action",
        ),
        (
            "self.allowedHosts.size() == 0"
            " || self.actions.all(a, a.http.url.split('?')[0].split('/')[2] in self.allowedHosts)",
            "actions may call hosts of allowedHosts only",
        ),
    ]


class AnswerCache(Spec):
    """Answers kept for questions asked again; personal answers are never kept."""

    entries: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """How many answers each gateway keeps; 0 turns the cache off."""
    shared: bool = True
    """Whether gateways also share what they keep, in the state server: a new one answers common questions as fast."""
    ttl: Annotated[Duration, Within("1s", "24h")] = "300s"
    """How long an answer is kept."""


class Knowledge(Spec):
    """What the bot knows: question-answer pairs and documents."""

    sources: Annotated[list[Source], Field(max_length=100)] = []
    """Files to read: question-answer pairs (.yaml .jsonl .csv) and documents (.md .html .txt .pdf)."""
    top_k: Annotated[int, Field(ge=1, le=20)] = 5
    """How many passages are found for a question and shown to the language model."""
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.35
    """Lowest score, 0 to 1, at which the best passage is given as the answer."""
    cache: AnswerCache = AnswerCache()
    """The answer cache."""


class Encoder(StrEnum):
    """Sentence encoder joined with character n-grams for intent and retrieval."""

    UNIVERSAL = "universal"
    NONE = "none"
    ONNX = "onnx"


class IntentModel(Spec):
    """The classifier that recognises what a user wants; trained from examples."""

    examples: Annotated[
        dict[Name, Annotated[list[Question], Field(min_length=1, max_length=2000)]], Field(max_length=500)
    ] = {}
    """Example questions by intent. The intent `out_of_scope` lists questions that the bot must not answer."""
    example_sources: Annotated[list[Source], Field(max_length=100)] = []
    """Files with more examples: YAML (intent: [texts]), or JSONL and CSV with the columns text and intent, or text and
    label."""
    encoder: Encoder = Encoder.UNIVERSAL
    """Sentence encoder: universal (multilingual, some 2 ms a text), none (light mode: character n-grams alone), or
    onnx."""
    encoder_path: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = None
    """Folder with model.onnx and tokenizer.json; for encoder onnx."""
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.85
    """Calibrated probability above which an intent is acted on."""
    kserve: IntentServer | None = None
    """Serve the classifier by KServe. Gateways then ask that server; without it they classify in their own process, as
    `chatflow up` always does."""
    deadline: Annotated[Duration, Within("5ms", "5s")] = "60ms"
    """Longest wait for that server, from when a turn asks. A question that it does not classify by then goes by
    retrieval alone: by its words, without actions. The server takes some 5 ms; much below 20ms a busy moment already
    costs answers, much above 200ms users notice."""

    @model_validator(mode="after")
    def _onnx_has_a_path(self) -> Self:
        if (self.encoder is Encoder.ONNX) != (self.encoder_path is not None):
            message = "encoderPath goes with encoder onnx; set both or neither"
            raise RuleBroken(Finding(("encoderPath",), message))
        return self

    cel: ClassVar = [
        (
            "(self.encoder == 'onnx') == has(self.encoderPath)",
            "encoderPath goes with encoder onnx: set both or neither",
        )
    ]


class OpenAIEndpoint(Spec):
    """A service that speaks the OpenAI chat-completions protocol: vLLM, Ollama, a hosted model."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\x00-\x20]+$", max_length=1000)] = Field(
        alias="baseURL"
    )
    """Address up to and including the version, for example http://vllm:8000/v1."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    """Name of the model there."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Secret key that holds the API key."""


class WhileWaking(StrEnum):
    """What becomes of a turn while no server of its language model runs."""

    DEGRADE = "degrade"
    HOLD = "hold"


class LanguageModel(Spec):
    """A language model for what the knowledge base does not answer: one that is served already, or one that KServe
    serves in the flow's namespace."""

    open_ai: OpenAIEndpoint | None = Field(default=None, alias="openAI")
    """Where it is served."""
    kserve: KServeModel | None = None
    """What KServe serves; on one machine name a server with `--llm` instead."""
    first_token_deadline: Annotated[Duration, Within("50ms", "120s")] = "800ms"
    """No first token by then: the next rung takes over."""
    token_gap_deadline: Annotated[Duration, Within("50ms", "120s")] = "5s"
    """Longest silence between tokens; the answer then ends with a notice."""
    answer_deadline: Annotated[Duration, Within("1s", "15m")] = "60s"
    """Longest time for a whole answer; it then ends with a notice. A gateway that leaves waits this long for its last
    answers."""
    while_waking: WhileWaking = WhileWaking.DEGRADE
    """What becomes of a turn while no server of the model runs, as when it wakes from zero replicas: degrade has the
    next rung answer at once; hold keeps the turn waiting for the model, 100 turns a gateway at most."""
    waking_deadline: Annotated[Duration, Within("1s", "5m")] = "60s"
    """How long hold keeps a turn waiting; the next rung answers then. A model of 8 billion parameters takes one to
    three minutes to start."""
    max_tokens: Annotated[int, Field(ge=1, le=32768)] = 512
    """Longest answer, in tokens."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.3
    """Sampling temperature."""
    context_tokens: Annotated[int, Field(ge=256, le=1_000_000)] = 4096
    """Budget for prompt and answer together, in tokens (estimated); older history is left out first."""
    prompt: LongText | None = None
    """Template of the system prompt, with {persona}, {passages} and {locale}; a built-in one without it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        exactly_one(self, "open_ai", "kserve")
        return self

    @model_validator(mode="after")
    def _answer_fits(self) -> Self:
        if self.max_tokens >= self.context_tokens:
            message = (
                f"{self.max_tokens} is not below contextTokens {self.context_tokens}; lower it, or raise contextTokens"
            )
            raise RuleBroken(Finding(("maxTokens",), message))
        return self

    cel: ClassVar = [
        ("has(self.openAI) != has(self.kserve)", "set exactly one of openAI or kserve"),
        ("self.maxTokens < self.contextTokens", "maxTokens must be below contextTokens"),
    ]


class Models(Spec):
    """The models a flow uses."""

    intent: IntentModel = IntentModel()
    """Recognises what the user wants."""
    llm: LanguageModel | None = None
    """Answers the long tail. Without it the flow serves knowledge, actions and the static reply."""
    backup: LanguageModel | None = None
    """Takes over when llm gives no first token in time."""

    @model_validator(mode="after")
    def _backup_of_something(self) -> Self:
        if self.backup is not None and self.llm is None:
            raise RuleBroken(Finding(("backup",), "backup is set but llm is not; name the first model as llm"))
        return self

    cel: ClassVar = [("!has(self.backup) || has(self.llm)", "backup needs llm")]


class ModerationAction(StrEnum):
    """What happens to a text with a listed word."""

    REJECT = "reject"
    MASK = "mask"


class Moderation(Spec):
    """Words that must not pass, in questions and in answers."""

    word_lists: Annotated[list[ConfigMapKeyRef], Field(max_length=50)] = []
    """Word lists, one word or phrase a line, `#` starts a comment."""
    action: ModerationAction = ModerationAction.REJECT
    """reject answers with dialogue.refusal; mask replaces the words by `*`."""
    allow: Annotated[list[Question], Field(max_length=1000)] = []
    """Phrases that pass although they hold a listed word."""


class Breaker(Spec):
    """When a model that fails or is slow is no longer asked, so that turns are with the next rung at once."""

    failure_rate: Annotated[float, Field(ge=0.05, le=1)] = 0.4
    """Share of the last calls that failed or were slow, from which on the model is left alone."""
    calls: Annotated[int, Field(ge=5, le=1000)] = 30
    """How many last calls are looked at."""
    window: Annotated[Duration, Within("1s", "1h")] = "60s"
    """How old they may be."""
    minimum_calls: Annotated[int, Field(ge=1, le=1000)] = 20
    """With fewer than these nothing is concluded."""
    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Also leave the model alone when so many calls in a row failed or were slow."""
    slow_after: Annotated[Duration, Within("10ms", "120s")] | None = None
    """A first token later than this counts as a failure, though its answer is used. Unset: firstTokenDeadline alone."""
    open_for: Annotated[Duration, Within("100ms", "5m")] = "500ms"
    """How long the model is left alone before a few calls try it again; each time twice as long."""
    max_open_for: Annotated[Duration, Within("100ms", "1h")] = "4s"
    """The longest of those times, so the longest that a model which is well again may go unnoticed."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.minimum_calls > self.calls:
            message = f"{self.minimum_calls} is more than the {self.calls} calls that are looked at; lower it"
            raise RuleBroken(Finding(("minimumCalls",), message))
        if duration_s(self.open_for) > duration_s(self.max_open_for):
            message = f"{self.open_for} is longer than maxOpenFor {self.max_open_for}; lower it, or raise maxOpenFor"
            raise RuleBroken(Finding(("openFor",), message))
        return self

    cel: ClassVar = [
        ("self.minimumCalls <= self.calls", "minimumCalls must be calls at most"),
        ("duration(self.openFor) <= duration(self.maxOpenFor)", "openFor must be maxOpenFor at most"),
    ]


class Concurrency(Spec):
    """How many answers of one language model may be under way in one gateway process. Between the bounds the limit
    follows how long first tokens take: it grows while they come as fast as without a queue, and shrinks once answers
    wait for each other."""

    min: Annotated[int, Field(ge=1, le=100_000)] = 2
    """At least so many."""
    max: Annotated[int, Field(ge=1, le=100_000)] = 1024
    """At most so many."""
    initial: Annotated[int, Field(ge=1, le=100_000)] = 64
    """So many before anything is known."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min <= self.initial <= self.max:
            message = (
                f"initial {self.initial} does not lie between min {self.min} and max {self.max}; change one of them"
            )
            raise RuleBroken(Finding(("initial",), message))
        return self

    cel: ClassVar = [("self.min <= self.initial && self.initial <= self.max", "initial must lie between min and max")]


class Degradation(Spec):
    """How the flow gives way under load, rung by rung, instead of failing."""

    backlog_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    """Turns under way above which new conversations are shed."""
    shed_fraction: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of new conversations that is shed then, by stable hash of the user."""
    concurrency: Concurrency = Concurrency()
    """Limits of answers under way, one for each language model. Beyond it a conversation under way waits for a moment
    and then gets the next rung; a new one is turned away."""
    breaker: Breaker = Breaker()
    """Circuit breakers, one for each model and one for the intent server, in each gateway process."""


class ChatFlowSpec(Spec):
    """A customer-service chat."""

    locale: Locale = Locale.ZH_CN
    """Language of the built-in texts and of normalisation."""
    gateway: Gateway = Gateway()
    """The front."""
    state: State = State()
    """Conversation state."""
    dialogue: Dialogue = Dialogue()
    """What the bot says and asks."""
    knowledge: Knowledge = Knowledge()
    """What the bot knows."""
    models: Models = Models()
    """The models it uses."""
    moderation: Moderation = Moderation()
    """Words that must not pass."""
    degradation: Degradation = Degradation()
    """Behaviour under load."""
    storage: Storage = Storage()
    """The volume for trained models, the knowledge index and records."""
    observability: Observability = Observability()
    """What monitoring is set up."""


class Metadata(BaseModel):
    """The part of Kubernetes' ObjectMeta that ChatFlow reads."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True, alias_generator=to_camel)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,44}[a-z0-9])?$", max_length=46)]
    namespace: ObjectName = "default"
    uid: str = ""


class ChatFlow(BaseModel):
    """The whole object."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, alias_generator=to_camel)

    api_version: Literal["chatflow.dev/v1alpha1"]
    kind: Literal["ChatFlow"]
    metadata: Metadata
    spec: ChatFlowSpec = ChatFlowSpec()
    status: dict[str, Any] | None = None
