"""Cache salts, which separate the cached prefixes of tenants. Pure except for reading the key file.

A salt is an HMAC of the tenant's name: it does not reveal the tenant, and a client that reaches a
pod without a gateway cannot guess it. All gateways of an installation need the same key; with
different keys a tenant's cached prefixes are found only through the gateway that sent them.
"""

from __future__ import annotations

import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from autoglm.api.spec.traffic import PrefixCache

_DIGITS = 32
_LEAST_KEY_BYTES = 16
_VARIABLE = "AUTOGLM_GENERATED_PREFIX_CACHE_KEY"


class CacheSalts:
    """Salts by tenant. `default` applies to models whose AutoGLMDeployment sets no mode."""

    def __init__(self, key: bytes, default: PrefixCache) -> None:
        self._default = default
        self._salt = lru_cache(maxsize=4096)(
            lambda tenant: hmac.new(key, tenant.encode(), "sha256").hexdigest()[:_DIGITS]
        )

    def of(self, tenant: str, mode: PrefixCache | None) -> str:
        """Return the salt of a tenant's requests; empty if tenants share the model's cache."""
        return self._salt(tenant) if (mode or self._default) == "Isolated" else ""


def read_key(path: str) -> bytes:
    """Return the key in a file; without a path a random one, shared with child processes.

    Raises OSError if the file cannot be read, ValueError if the key is too short.
    """
    if not path:
        return os.environ.setdefault(_VARIABLE, secrets.token_hex(_DIGITS)).encode()
    key = Path(path).read_bytes().strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise ValueError(
            f"prefix_cache_key_file {path} has {len(key)} bytes; give {_LEAST_KEY_BYTES} at least"
        )
    return key
