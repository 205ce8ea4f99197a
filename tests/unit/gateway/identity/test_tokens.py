"""What a token must be to be believed, and every confusion by which it must not be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.identity.jwks import KeySet, key_set_of_jwks, key_set_of_secret
from autoglm.gateway.identity.rules import TokenRules
from autoglm.gateway.identity.tokens import (
    TokenExpired,
    TokenForbidden,
    TokenRejected,
    UnknownKey,
    principal_of,
)
from autoglm.gateway.request.principal import Principal, Role

NOW = 1_800_000_000.0
RULES = TokenRules("i", ("a",))
# Stands for a JSON null, as the issuer leaves claims out that are None.
NULL = object()
SECRET = b"0123456789abcdef0123456789abcdef"


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def look(issuer: Any, token: str, keys: KeySet | None = None, wall: float = NOW) -> Principal:
    keys = keys or key_set_of_jwks(issuer.jwks())
    return principal_of(token, keys, issuer.rules, wall)[0]


@pytest.mark.parametrize("name", ["rsa", "ec"])
def test_public_keys_verify_their_own_algorithm(issuer: Any, name: str) -> None:
    algorithm, kid = ("RS256", "r1") if name == "rsa" else ("ES256", "e1")
    token = issuer.token(getattr(issuer, name), algorithm, kid)
    assert look(issuer, token) == Principal("acme", "alice")


def test_a_shared_secret_verifies_hs256_whatever_the_key_is_called(issuer: Any) -> None:
    keys = key_set_of_secret(SECRET + b"\n")
    for kid in (None, "any"):
        assert look(issuer, issuer.token(SECRET, "HS256", kid), keys).tenant == "acme"


def test_claims_say_roles_and_models(issuer: Any) -> None:
    token = issuer.token(roles=["admin", "offline_access"], models="glm-* tiny")
    assert look(issuer, token) == Principal(
        "acme", "alice", frozenset((Role.ADMIN,)), ("glm-*", "tiny")
    )


def test_roles_of_other_systems_are_no_roles_here(issuer: Any) -> None:
    assert look(issuer, issuer.token(roles=["superuser"])).roles == frozenset()


def test_claims_may_have_other_names_and_lie_deep(issuer: Any) -> None:
    rules = replace(
        issuer.rules, tenant_claim="https://acme.example/org", roles_claim="realm_access.roles"
    )
    claims = {"https://acme.example/org": "deep", "realm_access": {"roles": ["Auditor"]}}
    token, keys = issuer.token(tenant=None, **claims), key_set_of_jwks(issuer.jwks())
    found, _ = principal_of(token, keys, rules, NOW)
    assert (found.tenant, found.roles) == ("deep", frozenset((Role.AUDITOR,)))


def test_none_is_no_algorithm(issuer: Any) -> None:
    for name in ("none", "None", "NONE", ""):
        token = f"{part({'alg': name, 'kid': 'r1'})}.{part(issuer.claims())}."
        with pytest.raises(TokenRejected):
            look(issuer, token)


@pytest.mark.parametrize("kid", ["r1", None])
def test_public_key_is_no_secret_for_hs256(issuer: Any, kid: str | None) -> None:
    public = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256"} | ({"kid": kid} if kid else {})
    signed = f"{part(header)}.{part(issuer.claims())}"
    mac = base64.urlsafe_b64encode(hmac.digest(public, signed.encode(), hashlib.sha256))
    with pytest.raises(TokenRejected):
        look(
            issuer,
            f"{signed}.{mac.rstrip(b'=').decode()}",
            key_set_of_jwks(issuer.jwks(issuer.jwk())),
        )


def test_key_of_one_type_is_not_used_for_another_algorithm(issuer: Any) -> None:
    token = issuer.token(issuer.ec, "ES256", "r1")
    with pytest.raises(UnknownKey):
        look(issuer, token)


def test_key_inside_the_token_counts_for_nothing(issuer: Any) -> None:
    headers = {"kid": "r1", "jwk": issuer.jwk(issuer.other), "jku": "https://evil.example/jwks"}
    token = jwt.encode(issuer.claims(), issuer.other, "RS256", headers)
    with pytest.raises(TokenRejected, match="signature"):
        look(issuer, token)


def test_token_without_a_key_name_needs_a_set_without_a_choice(issuer: Any) -> None:
    token = issuer.token(kid=None)
    assert look(issuer, token).tenant == "acme"
    two = key_set_of_jwks(issuer.jwks(issuer.jwk(), issuer.jwk(issuer.other, kid="r2")))
    with pytest.raises(UnknownKey):
        look(issuer, token, two)


def test_new_key_is_distinguished_from_a_wrong_signature(issuer: Any) -> None:
    with pytest.raises(UnknownKey):
        look(issuer, issuer.token(kid="r2"))
    with pytest.raises(TokenRejected, match="signature"):
        look(issuer, issuer.token(issuer.other))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"aud": "elsewhere"}, TokenRejected),
        ({"aud": None}, TokenRejected),
        ({"iss": "https://evil"}, TokenRejected),
        ({"iss": None}, TokenRejected),
        ({"exp": None}, TokenRejected),
        ({"exp": NOW - 31}, TokenExpired),
        ({"exp": "soon"}, TokenRejected),
        ({"exp": float("nan")}, TokenRejected),
        ({"exp": 10**400}, TokenRejected),
        ({"exp": True}, TokenRejected),
        ({"nbf": NOW + 31}, TokenExpired),
        ({"nbf": "later"}, TokenRejected),
        ({"tenant": None}, TokenForbidden),
        ({"tenant": 5}, TokenForbidden),
        ({"tenant": ""}, TokenForbidden),
        ({"tenant": "a\nb"}, TokenForbidden),
        ({"tenant": "x" * 129}, TokenForbidden),
        ({"tenant": NULL}, TokenForbidden),
        ({"tenant": ["acme"]}, TokenForbidden),
        ({"sub": NULL}, TokenForbidden),
        ({"sub": ""}, TokenForbidden),
        ({"sub": 0}, TokenForbidden),
        ({"sub": "a\nb"}, TokenForbidden),
        ({"models": {"glm": True}}, TokenForbidden),
        ({"models": True}, TokenForbidden),
        ({"models": 0}, TokenForbidden),
        ({"models": ["glm", None]}, TokenForbidden),
        ({"roles": [1]}, TokenForbidden),
        ({"roles": False}, TokenForbidden),
        ({"roles": {}}, TokenForbidden),
        ({"exp": NULL}, TokenRejected),
        ({"nbf": NULL}, TokenRejected),
        ({"iss": NULL}, TokenRejected),
        ({"iss": ["https://issuer"]}, TokenRejected),
        ({"aud": NULL}, TokenRejected),
        ({"aud": []}, TokenRejected),
        ({"aud": ""}, TokenRejected),
        ({"aud": ["elsewhere", "other"]}, TokenRejected),
        ({"aud": ["autoglm", 5]}, TokenRejected),
        ({"aud": {"autoglm": True}}, TokenRejected),
    ],
)
def test_claim_that_is_not_as_it_must_be_is_refused(
    issuer: Any, changes: dict[str, Any], refusal: type[TokenRejected]
) -> None:
    claims = issuer.claims(**changes)
    claims |= {name: None for name, value in changes.items() if value is NULL}
    with pytest.raises(refusal) as caught:
        look(issuer, issuer.signed(claims))
    assert type(caught.value) is refusal


def test_null_claims_allow_nothing_and_absent_ones_the_documented(issuer: Any) -> None:
    null = issuer.signed(issuer.claims() | {"roles": None, "models": None})
    assert look(issuer, null) == Principal("acme", "alice", frozenset(), ())
    absent = look(issuer, issuer.token())
    assert absent == Principal("acme", "alice", frozenset((Role.USER,)), None)
    assert look(issuer, issuer.token(sub=None)).subject == "unnamed"


@pytest.mark.parametrize("empty", ["", " ", [], [""]])
def test_empty_claims_allow_nothing(issuer: Any, empty: Any) -> None:
    found = look(issuer, issuer.token(roles=empty, models=empty))
    assert found.roles == frozenset() and not found.may_use("glm")


@pytest.mark.parametrize(
    ("access", "roles"),
    [
        ({}, frozenset((Role.USER,))),
        ({"role": ["Admin"]}, frozenset((Role.USER,))),
        ({"roles": ["Admin"]}, frozenset((Role.ADMIN,))),
        ({"roles": None}, frozenset()),
        (None, frozenset()),
        ("Admin", None),
        (["Admin"], None),
        ({"roles": {"Admin": True}}, None),
    ],
)
def test_claims_at_a_path_fail_closed_at_every_part(
    issuer: Any, access: Any, roles: frozenset[Role] | None
) -> None:
    rules = replace(issuer.rules, roles_claim="realm_access.roles")
    token = issuer.signed(issuer.claims() | {"realm_access": access})
    keys = key_set_of_jwks(issuer.jwks())
    if roles is None:
        with pytest.raises(TokenForbidden, match=r"realm_access\.roles"):
            principal_of(token, keys, rules, NOW)
    else:
        assert principal_of(token, keys, rules, NOW)[0].roles == roles


def test_clocks_may_differ_by_the_leeway_and_no_more(issuer: Any) -> None:
    keys = key_set_of_jwks(issuer.jwks())
    token = issuer.token(exp=NOW, nbf=NOW - 1)
    assert principal_of(token, keys, issuer.rules, NOW + 29)[1] == NOW + 30
    assert look(issuer, token, wall=NOW - 31).tenant == "acme"
    for wall in (NOW + 30, NOW - 32):
        with pytest.raises(TokenExpired):
            look(issuer, token, wall=wall)


def test_unknown_critical_header_is_refused(issuer: Any) -> None:
    headers = {"kid": "r1", "crit": ["x"], "x": 1}
    with pytest.raises(TokenRejected):
        look(issuer, jwt.encode(issuer.claims(), issuer.rsa, "RS256", headers))


def test_too_long_a_token_is_not_even_read(issuer: Any) -> None:
    with pytest.raises(TokenRejected, match="16384 bytes"):
        look(issuer, "x." + "y" * 20_000 + ".z")


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_noise_is_refused_and_never_an_accident(head: str, body: str, mac: str) -> None:
    with pytest.raises(TokenRejected):
        principal_of(f"{head}.{body}.{mac}", key_set_of_secret(SECRET), RULES, NOW)


@given(st.data())
def test_no_changed_byte_of_a_token_passes(data: st.DataObject) -> None:
    claims = {"iss": "i", "aud": "a", "sub": "s", "exp": NOW + 9, "tenant": "acme"}
    token = jwt.encode(claims, SECRET, "HS256")
    place = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.characters(codec="ascii", exclude_characters=token[place]))
    changed = token[:place] + letter + token[place + 1 :]
    with pytest.raises(TokenRejected):
        principal_of(changed, key_set_of_secret(SECRET), RULES, NOW)
