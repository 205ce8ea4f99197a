"""One statement about a resource: what conditions are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from autoglm.api.status import ConditionType

_TEXT: Final = {True: "True", False: "False", None: "Unknown"}
_LONGEST = 4096
# Where True is the bad news.
_BAD_WHEN_TRUE = frozenset({ConditionType.DEGRADED})


@dataclass(frozen=True, slots=True)
class Statement:
    """`holds` is None where nobody can tell."""

    holds: bool | None
    reason: str
    message: str

    @property
    def status(self) -> str:
        return _TEXT[self.holds]


def conditions(
    statements: Mapping[ConditionType, Statement],
    previous: Iterable[Mapping[str, Any]],
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """As the API has them; the time of a transition stays while the status does."""
    before = {condition.get("type"): condition for condition in previous}
    return [
        {
            "type": type_.value,
            "status": statement.status,
            "reason": statement.reason,
            "message": statement.message[:_LONGEST],
            "lastTransitionTime": _since(statement, before.get(type_.value, {}), now),
            "observedGeneration": generation,
        }
        for type_, statement in statements.items()
    ]


def _since(statement: Statement, before: Mapping[str, Any], now: datetime) -> str:
    if before.get("status") == statement.status and before.get("lastTransitionTime"):
        return str(before["lastTransitionTime"])
    return timestamp(now)


def timestamp(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
