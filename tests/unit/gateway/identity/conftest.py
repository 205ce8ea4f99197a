"""An issuer of tokens: its keys, its JWKS, and tokens that it signs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from autoglm.gateway.identity.rules import TokenRules

NOW = 1_800_000_000.0
_RSA = {bits: rsa.generate_private_key(65537, bits) for bits in (1024, 2048)}
_OTHER_RSA = rsa.generate_private_key(65537, 2048)
_EC = ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issuer:
    rsa: Any = field(default_factory=lambda: _RSA[2048])
    weak: Any = field(default_factory=lambda: _RSA[1024])
    other: Any = field(default_factory=lambda: _OTHER_RSA)
    ec: Any = field(default_factory=lambda: _EC)
    rules: TokenRules = TokenRules("https://issuer", ("autoglm",))

    @staticmethod
    def claims(**changes: Any) -> dict[str, Any]:
        claims = {
            "iss": "https://issuer",
            "aud": "autoglm",
            "sub": "alice",
            "exp": NOW + 600,
            "tenant": "acme",
        }
        return {k: v for k, v in (claims | changes).items() if v is not None}

    def token(
        self, key: Any = None, algorithm: str = "RS256", kid: str | None = "r1", **changes: Any
    ) -> str:
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**changes), key or self.rsa, algorithm, headers)

    def signed(
        self, payload: Any, key: Any = None, algorithm: str = "RS256", **headers: Any
    ) -> str:
        """Anything, signed: also what is no claims set (bytes are taken as they are)."""
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return PyJWS().encode(text, key or self.rsa, algorithm, {"kid": "r1"} | headers)

    def jwk(self, key: Any = None, **changes: Any) -> dict[str, Any]:
        key = key or self.rsa
        algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        entry = algorithm.to_jwk(key.public_key(), as_dict=True)
        return {k: v for k, v in (entry | {"kid": "r1"} | changes).items() if v is not None}

    def jwks(self, *entries: dict[str, Any]) -> bytes:
        return json.dumps({"keys": entries or [self.jwk(), self.jwk(self.ec, kid="e1")]}).encode()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()
