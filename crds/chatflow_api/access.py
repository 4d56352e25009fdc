"""The parts of the spec that say who may use the gateways. Part of `v1alpha1`; the gateways act on them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from chatflow_api.spec_types import Duration, Finding, RuleBroken, SecretKeyRef, Spec, Within

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\x00-\x20/?#]+(/[^\x00-\x20#]*)?$", max_length=1000)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Claim = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_:/.-]+$", max_length=200)]
ClaimValue = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Jwt(Spec):
    """Tokens of an identity provider (JWT, RFC 7519), signed with RSA, elliptic curves or Ed25519."""

    issuer: ClaimValue
    """The `iss` that a token must have."""
    audience: ClaimValue
    """The `aud` that a token must have, or one of several."""
    jwks_url: Annotated[Url, Field(alias="jwksURL")]
    """Where the provider publishes its keys (RFC 7517). Read at the start, every five minutes, and when a token names a
    key that is not known yet."""
    uid_claim: Claim = "sub"
    """The claim that holds the user: 1 to 128 visible characters."""


class Auth(Spec):
    """Who may speak, and as whom. A credential comes as `Authorization: Bearer`, or for event streams and WebSockets as
    the query parameter access_token."""

    required: bool = True
    """Whether a request needs a credential. Without, whoever reaches the gateways may name any uid and read its
    conversation: for gateways that only a backend of your own reaches."""
    anonymous: bool = True
    """Whether POST /v1/sessions gives anyone a token for a conversation of their own."""
    session_ttl: Annotated[Duration, Within("1m", "720h")] = "24h"
    """How long such a token is good for; it can be exchanged for a fresh one until then."""
    session_key_secret_ref: SecretKeyRef | None = None
    """Secret key with the keys that sign these tokens, one a line, of 32 characters at least: the first signs, all are
    accepted. Without it the gateways agree on a random one, kept in the state server."""
    api_keys_secret_ref: SecretKeyRef | None = None
    """Secret key with API keys, one a line, of 16 characters at least, for backends: whoever has one may name any
    uid."""
    jwt: Jwt | None = None
    """Users of an identity provider."""

    @model_validator(mode="after")
    def _lets_someone_in(self) -> Self:
        if self.required and not self.anonymous and self.api_keys_secret_ref is None and self.jwt is None:
            message = "nobody could get in; set anonymous to true, apiKeysSecretRef or jwt, or required to false"
            raise RuleBroken(Finding((), message))
        return self

    cel: ClassVar = [
        (
            "!self.required || self.anonymous || has(self.apiKeysSecretRef) || has(self.jwt)",
            "nobody could get in: set anonymous, apiKeysSecretRef or jwt, or required to false",
        )
    ]


class Rate(Spec):
    """How often something may come."""

    messages: Count = 60
    """So many in the time of `per`; 0 sets no limit."""
    per: Annotated[Duration, Within("1s", "24h")] = "60s"
    """The time."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 30
    """So many at once, before they have to keep to the rate."""


class RateLimit(Spec):
    """How many messages are taken; further ones are refused with 429 and Retry-After."""

    per_user: Rate = Rate()
    """Messages of one user, on all channels together."""
    per_address: Rate = Rate(messages=0)
    """Messages and new sessions of one client address (of IPv6, of one network of 64 bits). Behind proxies they all
    have the same address, unless trustedProxies says how many those are."""
    trusted_proxies: Annotated[int, Field(ge=0, le=10)] = 0
    """Proxies of yours in front of the gateways, each of which adds to X-Forwarded-For whom it heard."""
