"""Errors of requests to the Kubernetes API. Types only.

Transports translate the exceptions of their libraries into these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Unreachable(Exception):
    """No response: the connection was refused or broken, or the timeout has passed."""


class TimedOut(Unreachable):
    """No response within the timeout; the API server may still carry out the request."""


class Refused(Exception):
    """The API server responded with an error status."""

    def __init__(self, status: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes: tuple[Mapping[str, str], ...] = tuple(more.get("causes", ()))
        self.retry_after: float | None = more.get("retry_after")

    @property
    def is_transient(self) -> bool:
        return self.status == 429 or self.status >= 500
