"""The keys that verify tokens: a shared secret, or a JSON Web Key Set (RFC 7517). Pure.

The algorithm belongs to the key and is never taken from a token alone: an RSA key verifies RS256,
a P-256 key ES256, a secret HS256, and nothing else. So a public key is never used as a secret, and
no key matches the algorithm `none`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

SECRET_BYTES = 32
# Shorter RSA keys are insecure (NIST SP 800-131A). Longer ones take over a millisecond to verify,
# and verifications run on the event loop between other requests' chunks.
_RSA_BITS = range(2048, 8193)
_ALGORITHMS = {"RSA": "RS256", "EC P-256": "ES256"}
_MOST_KEYS = 100
# The least time between two fetches of a key set that are caused by tokens.
FETCH_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and the one algorithm it verifies."""

    algorithm: str
    material: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by id and algorithm. `unnamed` verify tokens without a key id."""

    by_id: Mapping[tuple[str, str], VerificationKey] = field(default_factory=dict)
    unnamed: Mapping[str, VerificationKey] = field(default_factory=dict)

    @property
    def has_keys(self) -> bool:
        return bool(self.by_id or self.unnamed)

    def find(self, key_id: str, algorithm: str) -> VerificationKey | None:
        """Return the key for a token's `kid`, which may be empty, and `alg`; None if unknown."""
        if key_id and self.by_id:
            return self.by_id.get((key_id, algorithm))
        return self.unnamed.get(algorithm)


def key_set_of_secret(text: bytes) -> KeySet:
    """Return the key set of an HS256 secret without trailing line breaks. Raises ValueError."""
    secret = text.rstrip(b"\r\n")
    if len(secret) < SECRET_BYTES:
        raise ValueError(
            f"the secret has {len(secret)} bytes; HS256 needs {SECRET_BYTES} (RFC 7518)"
        )
    return KeySet(unnamed=MappingProxyType({"HS256": VerificationKey("HS256", secret)}))


def key_set_of_jwks(text: bytes) -> KeySet:
    """Return the keys of a JWKS for RS256 and ES256; skips others. Raises ValueError."""
    try:
        entries = msgspec.json.decode(text, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f'it is not JSON of the form {{"keys": [...]}}: {error}') from error
    if not isinstance(entries, list) or len(entries) > _MOST_KEYS:
        raise ValueError(f'it is not {{"keys": [...]}} of at most {_MOST_KEYS} keys')
    found = [(e.get("kid"), key) for e in entries if isinstance(e, dict) and (key := _key(e))]
    if not found:
        raise ValueError("it has no key for RS256 (RSA of 2048 to 8192 bits) or ES256 (P-256)")
    by_algorithm: dict[str, list[VerificationKey]] = {}
    for _, key in found:
        by_algorithm.setdefault(key.algorithm, []).append(key)
    return KeySet(
        MappingProxyType(
            {(name, key.algorithm): key for name, key in found if name and isinstance(name, str)}
        ),
        # A token without a key id is unambiguous only if one key has its algorithm.
        MappingProxyType({name: keys[0] for name, keys in by_algorithm.items() if len(keys) == 1}),
    )


def _key(entry: dict[str, Any]) -> VerificationKey | None:
    kind = f"EC {entry.get('crv')}" if entry.get("kty") == "EC" else str(entry.get("kty"))
    algorithm = _ALGORITHMS.get(kind)
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use") == "enc":
        return None
    try:
        material = PyJWK(entry, algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    # Private keys that a set publishes by mistake are not used.
    if isinstance(material, RSAPublicKey):
        return VerificationKey(algorithm, material) if material.key_size in _RSA_BITS else None
    is_public = isinstance(material, EllipticCurvePublicKey)
    return VerificationKey(algorithm, material) if is_public else None
