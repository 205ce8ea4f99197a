"""Forged JSON Web Tokens, one a row: each is rejected, whatever it claims."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from autoglm.gateway.identity.authenticate import Authenticator, Known, Outcome
from autoglm.gateway.identity.jwks import key_set_of_jwks
from autoglm.gateway.identity.keys import ApiKeys

NOW = 1_800_000_000.0
ATTACKERS = rsa.generate_private_key(65537, 2048)
P384 = ec.generate_private_key(ec.SECP384R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: Any) -> str:
    return b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def unsigned(issuer: Any, signature: str = "", **header: Any) -> str:
    return f"{part({'alg': 'none', 'kid': 'r1'} | header)}.{part(issuer.claims())}.{signature}"


def hs(issuer: Any, secret: bytes, digest: Any = hashlib.sha256, **header: Any) -> str:
    signed = f"{part({'alg': 'HS256', 'kid': 'r1'} | header)}.{part(issuer.claims())}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), digest))}"


def public(issuer: Any, encoding: Encoding) -> bytes:
    found: bytes = issuer.rsa.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return found


def theirs(issuer: Any, **headers: Any) -> str:
    """By the attacker's key, with a header that would lead to it."""
    return jwt.encode(issuer.claims(), ATTACKERS, "RS256", {"kid": "r1"} | headers)


def cut(token: str, *, head: int = 0, body: int = 0, mac: int = 0) -> str:
    parts = token.split(".")
    return ".".join(p[: len(p) - n] for p, n in zip(parts, (head, body, mac), strict=True))


def swapped(issuer: Any) -> str:
    """The claims of one token with the signature of another."""
    one, other = issuer.token(tenant="globex"), issuer.token()
    return ".".join((*one.split(".")[:2], other.split(".")[2]))


def claims_twice(issuer: Any, first: str, second: str) -> bytes:
    text = json.dumps(issuer.claims(tenant=None))
    return f'{{"tenant": "{first}", "tenant": "{second}", {text[1:]}'.encode()


Forge = Callable[[Any], str]
FORGED: dict[str, Forge] = {
    # No signature, or one that anyone can make.
    "alg none": lambda i: unsigned(i),
    "alg None": lambda i: unsigned(i, alg="None"),
    "alg NONE": lambda i: unsigned(i, alg="NONE"),
    "alg nOnE": lambda i: unsigned(i, alg="nOnE"),
    "alg none with a space": lambda i: unsigned(i, alg="none "),
    "alg empty": lambda i: unsigned(i, alg=""),
    "alg null": lambda i: unsigned(i, alg=None),
    "alg a list": lambda i: unsigned(i, alg=["RS256"]),
    "alg an object": lambda i: unsigned(i, alg={"RS256": True}),
    "alg a number": lambda i: unsigned(i, alg=256),
    "alg absent": lambda i: f"{part({'kid': 'r1'})}.{part(i.claims())}.{b64(b'x')}",
    "alg none with a signature": lambda i: unsigned(i, i.token().split(".")[2]),
    "alg none without kid": lambda i: unsigned(i, kid=""),
    "RS256 without a signature": lambda i: unsigned(i, alg="RS256"),
    "RS256 with zeros": lambda i: unsigned(i, b64(bytes(256)), alg="RS256"),
    "ES256 with zeros": lambda i: unsigned(i, b64(bytes(64)), alg="ES256", kid="e1"),
    "ES256 with an empty signature": lambda i: unsigned(i, alg="ES256", kid="e1"),
    "alg in lower case": lambda i: unsigned(i, i.token().split(".")[2], alg="rs256"),
    # One algorithm taken for another.
    "HS256 with the public key": lambda i: hs(i, public(i, Encoding.PEM)),
    "HS256 with the public key, no kid": lambda i: hs(i, public(i, Encoding.PEM), kid=""),
    "HS256 with the public key in DER": lambda i: hs(i, public(i, Encoding.DER)),
    "HS256 with the public key, stripped": lambda i: hs(i, public(i, Encoding.PEM).strip()),
    "HS256 with the JWKS": lambda i: hs(i, i.jwks()),
    "HS256 with the modulus": lambda i: hs(i, i.jwk()["n"].encode()),
    "HS256 with an empty secret": lambda i: hs(i, b""),
    "HS256 with a short secret": lambda i: hs(i, b"secret"),
    "HS384 with the public key": lambda i: hs(
        i, public(i, Encoding.PEM), hashlib.sha384, alg="HS384"
    ),
    "HS512 with the public key": lambda i: hs(
        i, public(i, Encoding.PEM), hashlib.sha512, alg="HS512"
    ),
    "RS384 with the right key": lambda i: i.token(algorithm="RS384"),
    "RS512 with the right key": lambda i: i.token(algorithm="RS512"),
    "PS256 with the right key": lambda i: i.token(algorithm="PS256"),
    "ES384": lambda i: i.token(P384, "ES384", "e1"),
    "ES256 by the EC key under the RSA key's id": lambda i: i.token(i.ec, "ES256", "r1"),
    "RS256 under the EC key's id": lambda i: i.token(kid="e1"),
    # Another key, and ways to have it taken for the issuer's.
    "another key": lambda i: i.token(i.other),
    "another key, no kid": lambda i: i.token(i.other, kid=None),
    "an unknown kid": lambda i: i.token(kid="r9"),
    "a kid that is a path": lambda i: i.token(kid="../../../../dev/null"),
    "a kid that is SQL": lambda i: i.token(i.other, kid="r1' OR '1'='1"),
    "a kid with a NUL": lambda i: i.token(i.other, kid="r1\0"),
    "a kid with a space": lambda i: i.token(i.other, kid="r1 "),
    "a kid that is a URL": lambda i: theirs(i, kid="https://evil.example/key.pem"),
    "jwk in the header": lambda i: theirs(i, jwk=i.jwk(ATTACKERS)),
    "jku in the header": lambda i: theirs(i, jku="https://evil.example/jwks"),
    "x5u in the header": lambda i: theirs(i, x5u="https://evil.example/chain.pem"),
    "x5c in the header": lambda i: theirs(i, x5c=["MIIB"]),
    "x5t in the header": lambda i: theirs(i, x5t="AAAA"),
    "iss in the header": lambda i: theirs(i, iss="https://issuer"),
    "crit that is unknown": lambda i: i.signed(i.claims(), crit=["exp2"], exp2=1),
    "crit that names b64": lambda i: i.signed(i.claims(), crit=["b64"], b64=True),
    "crit that is empty": lambda i: i.signed(i.claims(), crit=[]),
    "crit that is no list": lambda i: i.signed(i.claims(), crit="exp"),
    # A good token, changed.
    "a cut signature": lambda i: cut(i.token(), mac=1),
    "no signature": lambda i: cut(i.token(), mac=400),
    "cut claims": lambda i: cut(i.token(), body=2),
    "cut header": lambda i: cut(i.token(), head=2),
    "the signature of another token": swapped,
    "another case": lambda i: i.token().swapcase(),
    "a changed tenant": lambda i: i.token().replace(
        i.token().split(".")[1], part(i.claims(tenant="globex"))
    ),
    "unicode digits in it": lambda i: i.token()[:-1] + "٣",
    "a signature of lone surrogates": lambda i: cut(i.token(), mac=400) + "\ud800",
    "a dot too many": lambda i: i.token() + ".",
    "a part too few": lambda i: i.token().rpartition(".")[0],
    "JSON serialization": lambda i: part({"protected": "x"}) + "..",
    "an encrypted token": lambda i: ".".join([part({"alg": "dir", "enc": "A256GCM"}), *"abcd"]),
    "only dots": lambda i: "..",
    "a nested token": lambda i: i.signed(i.token().encode(), cty="JWT"),
    # Signed by the issuer, but for another place, another time or no audience.
    "another audience": lambda i: i.token(aud="elsewhere"),
    "a longer audience": lambda i: i.token(aud="autoglm.evil"),
    "a list of other audiences": lambda i: i.token(aud=["a", "b"]),
    "no audience": lambda i: i.token(aud=None),
    "another issuer": lambda i: i.token(iss="https://evil"),
    "an issuer with a slash": lambda i: i.token(iss="https://issuer/"),
    "an issuer in capitals": lambda i: i.token(iss="HTTPS://ISSUER"),
    "no issuer": lambda i: i.token(iss=None),
    "no expiry": lambda i: i.token(exp=None),
    "expired": lambda i: i.token(exp=NOW - 31),
    "expiry as text": lambda i: i.token(exp=str(NOW + 600)),
    "expiry infinite": lambda i: i.signed(json.dumps(i.claims() | {"exp": float("inf")}).encode()),
    "expiry of 400 digits": lambda i: i.token(exp=10**400),
    "expiry negative": lambda i: i.token(exp=-1),
    "not valid yet": lambda i: i.token(nbf=NOW + 31),
    "no tenant": lambda i: i.token(tenant=None),
    "tenant as a list": lambda i: i.token(tenant=["acme"]),
    "claims that are a list": lambda i: i.signed([i.claims()]),
    "claims that are null": lambda i: i.signed(None),
    "claims that are no JSON": lambda i: i.signed(b"tenant=acme"),
    "claims nested too deep": lambda i: i.signed(b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
    "a token of 20,000 bytes": lambda i: i.token(pad="x" * 20_000),
}


def judged(issuer: Any, token: str) -> Any:
    known = Known(False, ApiKeys(), issuer.rules, key_set_of_jwks(issuer.jwks()))
    return Authenticator(known).judge((("authorization", f"Bearer {token}"),), "p", 0, NOW)


def test_what_the_forgeries_are_made_of_is_good(issuer: Any) -> None:
    for token in (
        issuer.token(),
        issuer.token(issuer.ec, "ES256", "e1"),
        issuer.signed(issuer.claims()),
    ):
        assert judged(issuer, token).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_rejected(issuer: Any, name: str) -> None:
    token = FORGED[name](issuer)
    verdict = judged(issuer, token)
    assert verdict.principal is None
    assert verdict.outcome not in (Outcome.ACCEPTED, Outcome.ANONYMOUS)
    assert "globex" not in verdict.why and "evil" not in verdict.why


def test_of_a_claim_given_twice_the_last_counts_as_rfc_7519_allows(issuer: Any) -> None:
    """The issuer has signed both: neither is forged, and which counts does not vary."""
    found = judged(issuer, issuer.signed(claims_twice(issuer, "globex", "acme"))).principal
    assert found is not None and found.tenant == "acme"


def test_header_given_twice_leads_to_no_other_algorithm(issuer: Any) -> None:
    for header in (
        b'{"alg":"RS256","kid":"r1","alg":"none"}',
        b'{"alg":"none","kid":"r1","alg":"RS256"}',
        b'{"alg":"HS256","alg":"RS256","kid":"r9","kid":"r1"}',
    ):
        for signature in ("", issuer.token().split(".")[2]):
            verdict = judged(issuer, f"{part(header)}.{part(issuer.claims())}.{signature}")
            assert verdict.principal is None
