"""Creates, stores and verifies API keys. Pure.

A key is `agk_ID_SECRET` with 256 random bits of secret. The file holds its SHA-256, not a slow hash
with a salt: slow hashes protect low-entropy passwords, and a random secret cannot be guessed, so a
request costs a microsecond instead of a tenth of a second.

    {"keys": [{"id": "3f0c…", "sha256": "…64 hex digits…", "tenant": "acme", "name": "ci",
               "roles": ["User"], "models": ["glm-*"], "expires": "2027-01-01T00:00:00Z"}]}

`id`, `sha256` and `tenant` are required. Without `roles` a key has the role User, without `models`
it may use all models, without `expires` it is valid until it is removed from the file. A field that
is null makes the file invalid: null means neither "all" nor "never".
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from autoglm.gateway.identity.rules import name_of
from autoglm.gateway.request.principal import Principal, Role

PREFIX = "agk_"
_ID_BYTES = 8
_SECRET_BYTES = 32
_NO_DIGEST = bytes(32)


class KeyEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One entry of the keys file."""

    id: Annotated[str, Meta(pattern="^[0-9a-z]{4,64}$")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: str
    name: str = ""
    roles: tuple[Role, ...] = (Role.USER,)
    models: tuple[str, ...] | UnsetType = UNSET
    expires: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: tuple[KeyEntry, ...]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A configured key. `expires` is in seconds since 1970, None for never."""

    digest: bytes = field(repr=False)
    principal: Principal
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """All configured keys by id."""

    by_id: Mapping[str, ApiKey] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, key: str) -> ApiKey | None:
        """Return the configured key, or None. An unknown id takes as long as a wrong secret."""
        known = self.by_id.get(id_of(key))
        digest = hashlib.sha256(key.encode(errors="replace")).digest()
        is_right = hmac.compare_digest(digest, known.digest if known else _NO_DIGEST)
        return known if is_right else None


def id_of(key: str) -> str:
    """Return the id within a key; empty if the text is no key."""
    return key.removeprefix(PREFIX).partition("_")[0] if key.startswith(PREFIX) else ""


def keys_of(text: bytes) -> ApiKeys:
    """Parse a keys file. Raises ValueError, which quotes no key."""
    try:
        entries = msgspec.json.decode(text, type=_File).keys
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"the keys file is invalid: {error}") from error
    found: dict[str, ApiKey] = {}
    for entry in entries:
        if entry.id in found:
            raise ValueError(f"the keys file has id {entry.id!r} twice; ids are unique")
        found[entry.id] = _key(entry)
    return ApiKeys(MappingProxyType(found))


def _key(entry: KeyEntry) -> ApiKey:
    tenant = name_of(f"tenant of key {entry.id!r}", entry.tenant)
    subject = name_of(f"name of key {entry.id!r}", entry.name or entry.id)
    models = None if entry.models is UNSET else entry.models
    principal = Principal(tenant, subject, frozenset(entry.roles), models)
    expires = None if entry.expires is UNSET else entry.expires.timestamp()
    return ApiKey(bytes.fromhex(entry.sha256), principal, expires)


def new_key(
    tenant: str,
    name: str = "",
    roles: tuple[Role, ...] = (Role.USER,),
    models: tuple[str, ...] | None = None,
    expires: datetime | None = None,
) -> tuple[str, KeyEntry]:
    """Return a new key, to be shown once, and its entry in the file. Raises ValueError."""
    id_ = secrets.token_hex(_ID_BYTES)
    key = f"{PREFIX}{id_}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    entry = KeyEntry(
        id_,
        digest,
        tenant,
        name,
        roles,
        UNSET if models is None else models,
        UNSET if expires is None else expires,
    )
    _key(entry)
    return key, entry
