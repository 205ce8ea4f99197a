"""Which installation of the operator runs a resource, where several see it. Pure.

The installation that creates a resource's ConfigMap writes its claim on it: the Lease by which its
operators elect a leader, and its class. The API server creates an object once, so of two that start
together one has the claim. Others of the same class leave the resource to it for as long as its
Lease is renewed; an operator of another class has no claim on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from autoglm.api.labels import OPERATOR_CLASS, OPERATOR_LEASE

POLLS: Final = 10
"""Polls of a Lease until its claims may lapse."""
_CONFIG_MAP = "ConfigMap"


class ClaimedByAnother(Exception):
    """Another installation has just claimed the resource."""

    def __init__(self, lease: str) -> None:
        super().__init__(f"the operator whose Lease is {lease} runs it")
        self.lease = lease


@dataclass(frozen=True, slots=True)
class Installation:
    """The operators that share a Lease. Without a Lease nothing is claimed."""

    lease: str = ""
    """Namespace and name of the Lease, as NAMESPACE/NAME."""
    operator_class: str = ""

    @property
    def annotations(self) -> dict[str, str]:
        """The claim, as it is written on the ConfigMap."""
        if not self.lease:
            return {}
        kind = {OPERATOR_CLASS: self.operator_class} if self.operator_class else {}
        return {OPERATOR_LEASE: self.lease} | kind

    def is_responsible(self, resource: Mapping[str, Any]) -> bool:
        """Whether the resource is of this installation's class."""
        wanted = (resource.get("spec") or {}).get("operatorClass") or ""
        return bool(wanted == self.operator_class)

    def rival(self, child: Mapping[str, Any]) -> str:
        """Return the Lease of another installation of this class that claims by this object; empty
        where none does."""
        found = child["metadata"].get("annotations") or {}
        lease = found.get(OPERATOR_LEASE, "")
        is_rival = found.get(OPERATOR_CLASS, "") == self.operator_class and lease != self.lease
        return str(lease) if self.lease and is_rival else ""

    def rival_of(self, name: str, children: Iterable[Mapping[str, Any]]) -> str:
        """Return the same, of the resource called `name`."""
        for child in children:
            if child["kind"] == _CONFIG_MAP and child["metadata"]["name"] == name:
                return self.rival(child)
        return ""


@dataclass(slots=True)
class Freshness:
    """Whether a Lease is still renewed, by our own clock: no two clocks are compared.

    A Lease that is released, or deleted, is one that is not renewed: operators that are updated
    release it and take it again.
    """

    timeout: float
    """Seconds without a renewal after which its claims no longer count."""
    since: float
    """When the last renewal was seen; at first, when it was first polled."""
    polled: float = -math.inf
    version: str = ""
    why_unknown: str = ""

    def seen(self, version: str, now: float) -> None:
        """The Lease has this resourceVersion; empty where there is none."""
        self.why_unknown, self.polled = "", now
        if version != self.version:
            self.version, self.since = version, now

    def unknown(self, why: str, now: float) -> None:
        """The Lease cannot be read: its holder may be unable to renew it for the same reason."""
        self.why_unknown, self.since = why, now

    def is_stale(self, now: float) -> bool:
        """Whether its claims no longer count. An old poll says nothing: it may be renewed again."""
        is_recent = now - self.polled <= self.timeout / POLLS
        return is_recent and now - self.since >= self.timeout


def left_alone(mine: Installation, rival: str, key: str, timeout: float) -> str:
    """Say why this operator does nothing, and the way out."""
    name = key.partition("/")[2]
    return (
        f"the operator whose Lease is {rival} runs this resource, and the one whose Lease is "
        f"{mine.lease} leaves it to that one. Give installations different namespaces or classes "
        f"(spec.operatorClass). If the first is gone, this one takes over {timeout:g} s after its "
        f"Lease was renewed last, or after `kubectl annotate configmap {name} {OPERATOR_LEASE}-`"
    )
