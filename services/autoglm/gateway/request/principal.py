"""Who asks: tenant, roles and allowed models, as the authenticate layer found them. No I/O.

A principal comes from a verified credential or it is ANONYMOUS; never from a header that anyone
can write. Admission is fair between tenants, limits and routing's prefix hashes are per tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Role(StrEnum):
    USER = "User"
    ADMIN = "Admin"
    AUDITOR = "Auditor"


@dataclass(frozen=True, slots=True)
class Principal:
    """`subject` names the key or the token's subject, for logs; it is no secret."""

    tenant: str
    subject: str
    roles: frozenset[Role] = frozenset((Role.USER,))
    models: tuple[str, ...] | None = None
    """Shell patterns of the model names it may use; None is all."""

    def may_use(self, model: str) -> bool:
        return self.models is None or any(fnmatchcase(model, p) for p in self.models)


ANONYMOUS = Principal("anonymous", "anonymous")
