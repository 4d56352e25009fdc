"""Signatures by Standard Webhooks: the specification's own example, and a verification written apart from ours."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from chatflow_runtime.domain.signature import keys_of, signatures
from hypothesis import given
from hypothesis import strategies as st


def test_the_example_of_the_specification_comes_out() -> None:
    """From the reference libraries' documentation (Svix, "Verifying webhooks manually")."""
    keys = keys_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signatures(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=3), st.binary(max_size=200))
def test_each_of_several_secrets_signs(keys: list[bytes], body: bytes) -> None:
    secret = "\n".join(f" whsec_{base64.b64encode(key).decode()} " for key in keys) + "\r\n\n"
    assert keys_of(secret) == tuple(keys)
    parts = signatures(keys_of(secret), "a.1", 1_790_000_000, body).split(" ")
    expected = [hmac.new(key, b"a.1.1790000000." + body, hashlib.sha256).digest() for key in keys]
    assert [base64.b64decode(part.removeprefix("v1,")) for part in parts] == expected


def test_plain_text_is_a_secret_as_it_is() -> None:
    assert keys_of("correct horse\nwhsec_YWJj\nwhsec_YWI") == (b"correct horse", b"abc", b"ab")


@pytest.mark.parametrize(
    ("secret", "fault"), [("", "no secret"), (" \n", "no secret"), ("whsec_a$", "base64"), ("whsec_", "nothing")]
)
def test_what_is_no_secret_is_refused(secret: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        keys_of(secret)
