"""A condition of a resource, and its form in the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from autoglm.api.status import ConditionType

_TEXT: Final = {True: "True", False: "False", None: "Unknown"}
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Condition:
    """Status, reason and message of a condition; `holds` is None for status Unknown."""

    holds: bool | None
    reason: str
    message: str

    @property
    def status(self) -> str:
        """Return the status as the API has it: True, False or Unknown."""
        return _TEXT[self.holds]


def api_conditions(
    conditions: Mapping[ConditionType, Condition],
    previous: Iterable[Mapping[str, Any]],
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return the conditions for the API; lastTransitionTime is kept while the status is."""
    before = {found.get("type"): found for found in previous}
    return [
        {
            "type": type_.value,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message[:_LONGEST],
            "lastTransitionTime": _since(condition, before.get(type_.value, {}), now),
            "observedGeneration": generation,
        }
        for type_, condition in conditions.items()
    ]


def _since(condition: Condition, before: Mapping[str, Any], now: datetime) -> str:
    if before.get("status") == condition.status and before.get("lastTransitionTime"):
        return str(before["lastTransitionTime"])
    return timestamp(now)


def timestamp(now: datetime) -> str:
    """Return a timestamp of the Kubernetes API, in seconds."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
