import json
from typing import Any

import pytest

from autoglm.gateway.identity.jwks import key_set_of_jwks, key_set_of_secret


def test_set_knows_its_keys_by_name_and_algorithm(issuer: Any) -> None:
    found = key_set_of_jwks(issuer.jwks())
    assert set(found.by_id) == {("r1", "RS256"), ("e1", "ES256")}
    assert set(found.unnamed) == {"RS256", "ES256"}


@pytest.mark.parametrize(
    "changes",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "OKP", "crv": "Ed25519"},
        {"kty": ["RSA"]},
        {"alg": "RS512"},
        {"alg": "HS256"},
        {"use": "enc"},
        {"n": "!"},
        {"e": None},
    ],
)
def test_keys_of_other_kinds_are_left_out(issuer: Any, changes: dict[str, Any]) -> None:
    odd = issuer.jwk(kid="odd", **changes)
    found = key_set_of_jwks(issuer.jwks(odd, issuer.jwk()))
    assert set(found.by_id) == {("r1", "RS256")}


def test_weak_rsa_is_left_out(issuer: Any) -> None:
    with pytest.raises(ValueError, match="2048"):
        key_set_of_jwks(issuer.jwks(issuer.jwk(issuer.weak)))


def test_curve_that_is_not_es256_s_is_left_out(issuer: Any) -> None:
    found = key_set_of_jwks(issuer.jwks(issuer.jwk(issuer.ec, crv="P-384"), issuer.jwk()))
    assert set(found.by_id) == {("r1", "RS256")}


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": 5}', b'{"keys": [5]}', b'{"keys": []}', b"\xff"]
)
def test_nonsense_is_no_key_set(text: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        key_set_of_jwks(text)


def test_endless_set_is_refused(issuer: Any) -> None:
    text = json.dumps({"keys": [issuer.jwk()] * 101}).encode()
    with pytest.raises(ValueError, match="100"):
        key_set_of_jwks(text)


def test_short_secret_is_refused_without_being_quoted() -> None:
    with pytest.raises(ValueError, match="has 5 bytes; HS256 needs 32") as caught:
        key_set_of_secret(b"hush!\n")
    assert "hush" not in str(caught.value)


def test_material_is_in_no_repr() -> None:
    assert "0123456789" not in repr(key_set_of_secret(b"0123456789" * 4))
