"""Bearer tokens, by joserfc: those that a flow gives to anonymous users, and those of an identity provider.

Both are JSON Web Tokens. Sessions are signed by HMAC with keys that only the flow's gateways have; a provider's tokens
by the asymmetric keys that it publishes, which `jwks` follows. `web.gate` asks both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chatflow_api.runtime_config import JwtConfig
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, OctKey
from joserfc.jwt import ClaimsOption

from chatflow_runtime.domain.access import ANONYMOUS, Known
from chatflow_runtime.errors import CredentialInvalid, StateUnavailable

SESSION_ALGORITHM = "HS256"
PROVIDER_ALGORITHMS = [f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)] + [
    "EdDSA",
    "Ed25519",
]
"""All asymmetric: who knows the published key could sign with any other."""
SKEW_S = 60
"""How far the provider's clock may be from ours."""


@dataclass(frozen=True, slots=True)
class Session:
    """A token for a user, and the Unix time in s until which it is good."""

    uid: str
    token: str
    until_s: int


class SessionTokens:
    """Gives and reads the tokens of a flow's anonymous users."""

    def __init__(self, flow: str, ttl_s: float, now_s: Callable[[], float]) -> None:
        self._issuer = f"chatflow:{flow}"
        self._ttl_s = ttl_s
        self._now_s = now_s
        self._keys: tuple[OctKey, ...] = ()

    def use(self, keys: Sequence[bytes]) -> None:
        """Sign with the first of these from now on, and accept all."""
        self._keys = tuple(map(OctKey.import_key, keys))

    def give(self, uid: str) -> Session:
        """A fresh token; StateUnavailable while there is no key."""
        until_s = int(self._now_s() + self._ttl_s)
        claims = {"iss": self._issuer, "sub": uid, "exp": until_s}
        return Session(uid, jwt.encode({"alg": SESSION_ALGORITHM}, claims, self._present()[0]), until_s)

    def read(self, token: str) -> Known:
        """Whose it is; CredentialInvalid unless it is one of ours."""
        failure: JoseError | None = None
        for key in self._present():
            try:
                claims = jwt.decode(token, key, algorithms=[SESSION_ALGORITHM]).claims
            except JoseError as error:
                failure = error
            else:
                return self._checked(claims)
        raise CredentialInvalid("the token is none of this flow's sessions") from failure

    def _checked(self, claims: dict[str, Any]) -> Known:
        if claims.get("iss") != self._issuer:
            raise CredentialInvalid("the session is of another flow; get one by POST /v1/sessions")
        if claims["exp"] <= self._now_s():
            raise CredentialInvalid("the session has expired; get a new one by POST /v1/sessions")
        return Known(claims["sub"], claims["exp"])

    def _present(self) -> tuple[OctKey, ...]:
        if not self._keys:
            raise StateUnavailable("the key that signs sessions has not been read yet; try again")
        return self._keys


class ProviderTokens:
    """Reads the tokens of an identity provider."""

    def __init__(self, config: JwtConfig, now_s: Callable[[], float]) -> None:
        self._uid_claim = config.uid_claim
        self._now_s = now_s
        self._keys = KeySet([])
        self.misses_key = asyncio.Event()
        """Set when a token names a key that is not known."""
        self._rules: dict[str, ClaimsOption] = {
            "iss": {"essential": True, "value": config.issuer},
            "aud": {"essential": True, "value": config.audience},
            "exp": {"essential": True},
            config.uid_claim: {"essential": True},
        }

    def use(self, keys: KeySet) -> None:
        """Accept what these keys sign, and nothing else, from now on."""
        self._keys = keys

    def read(self, token: str) -> Known:
        """Whose it is; CredentialInvalid unless the provider gave it to be used here."""
        try:
            claims = jwt.decode(token, self._keys, algorithms=PROVIDER_ALGORITHMS).claims
            registry = jwt.JWTClaimsRegistry(now=lambda: int(self._now_s()), leeway=SKEW_S, **self._rules)
            registry.validate(claims)
        except InvalidKeyIdError as error:
            self.misses_key.set()
            raise CredentialInvalid("the token names a key that its issuer does not publish; try again") from error
        except (JoseError, ValueError) as error:
            raise CredentialInvalid(f"the token cannot be used: {error}") from error
        uid = claims[self._uid_claim]
        if not isinstance(uid, str) or uid.startswith(ANONYMOUS):
            raise CredentialInvalid(f"the token's claim {self._uid_claim!r} names no user")
        return Known(uid, claims["exp"] + SKEW_S)
