"""Parses the tenants file: each tenant's share, priority and rate limits. Pure.

    {"tenants": {"NAME": {"weight": 2, "priority": 0, "requestsPerMinute": 600,
                          "tokensPerMinute": 100000, "burstSeconds": 60}},
     "default": {"requestsPerMinute": 60}}

`default` applies to tenants that are not named, and to the fields that a named one omits; null
removes a rate that `default` sets. Rate limiting uses the rates, admission weight and priority.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Rate = Annotated[float, Meta(gt=0, le=1e12)]


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """One tenant's share, priority and rate limits."""

    weight: float = 1.0
    """The share of a contended model relative to other tenants: twice the weight, twice the share.
    """
    priority: int = 0
    """Lower is served first, as in requests; a request can only lower its own priority further."""
    requests_per_minute: float | None = None
    """Average requests a minute; None is no limit."""
    tokens_per_minute: float | None = None
    """Average prompt and completion tokens a minute; None is no limit."""
    burst_seconds: float = 60.0
    """How many seconds of its rates a tenant may use at once after a pause."""


@dataclass(frozen=True, slots=True)
class Tenants:
    """The policies of all tenants; `default` is that of tenants not named."""

    named: Mapping[str, TenantPolicy] = field(default_factory=lambda: MappingProxyType({}))
    default: TenantPolicy = TenantPolicy()

    def of(self, name: str) -> TenantPolicy:
        """Return the tenant's policy."""
        return self.named.get(name, self.default)


class _Policy(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    weight: Annotated[float, Meta(gt=0, le=1e6)] | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | UnsetType = UNSET
    requests_per_minute: _Rate | None | UnsetType = UNSET
    tokens_per_minute: _Rate | None | UnsetType = UNSET
    burst_seconds: Annotated[float, Meta(ge=1, le=86400)] | UnsetType = UNSET


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: dict[str, _Policy] = msgspec.field(default_factory=dict)
    default: _Policy = msgspec.field(default_factory=_Policy)


def tenants_of(text: bytes) -> Tenants:
    """Parse a tenants file. Raises ValueError naming the invalid field."""
    try:
        file = msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"the tenants file is invalid: {error}") from error
    default = TenantPolicy(**_given(file.default))
    named = {name: replace(default, **_given(policy)) for name, policy in file.tenants.items()}
    return Tenants(MappingProxyType(named), default)


def _given(policy: _Policy) -> dict[str, Any]:
    return {
        name: value
        for name in policy.__struct_fields__
        if (value := getattr(policy, name)) is not UNSET
    }
