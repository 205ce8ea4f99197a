"""Salts that keep the KV cache of one tenant apart from those of others. Pure but for the key file.

A salt is an HMAC of the tenant's name, so that it says nothing about the tenant and cannot be
guessed by who reaches a pod past the gateways. All gateways of an installation need the same key:
with different ones a tenant's cached prompts are found only through the gateway they came by.
"""

from __future__ import annotations

import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Literal

PrefixCache = Literal["Isolated", "Shared"]
_DIGITS = 32
_LEAST_KEY_BYTES = 16
_VARIABLE = "AUTOGLM_GENERATED_PREFIX_CACHE_KEY"


class CacheSalts:
    """`default` holds for models whose AutoGLMDeployment does not say."""

    def __init__(self, key: bytes, default: PrefixCache = "Isolated") -> None:
        self._default = default
        self._salt = lru_cache(maxsize=4096)(
            lambda tenant: hmac.new(key, tenant.encode(), "sha256").hexdigest()[:_DIGITS]
        )

    def of(self, tenant: str, mode: PrefixCache | None) -> str:
        """The salt of a tenant's requests; empty where tenants share the model's cache."""
        return self._salt(tenant) if (mode or self._default) == "Isolated" else ""


def read_key(path: str) -> bytes:
    """The key in a file; without a path one that this process and its children share.

    Raises OSError and ValueError.
    """
    if not path:
        return os.environ.setdefault(_VARIABLE, secrets.token_hex(_DIGITS)).encode()
    key = Path(path).read_bytes().strip()
    if len(key) < _LEAST_KEY_BYTES:
        raise ValueError(
            f"prefix_cache_key_file {path} has {len(key)} bytes; give {_LEAST_KEY_BYTES} at least"
        )
    return key
