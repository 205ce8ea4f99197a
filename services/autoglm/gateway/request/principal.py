"""The caller of a request: tenant, roles and allowed models. No I/O.

A principal comes from a verified credential or is ANONYMOUS; it is never taken from a header that a
client can set. Fairness, rate limits and the prefix hashes of routing are per tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Role(StrEnum):
    """Which methods a caller may use."""

    USER = "User"
    ADMIN = "Admin"
    AUDITOR = "Auditor"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `subject` is the key's name or the token's, for logs; no secret."""

    tenant: str
    subject: str
    roles: frozenset[Role] = frozenset((Role.USER,))
    models: tuple[str, ...] | None = None
    """Shell patterns of the model names it may use; None allows all."""

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use the model."""
        return self.models is None or any(fnmatchcase(model, p) for p in self.models)


ANONYMOUS = Principal("anonymous", "anonymous")
