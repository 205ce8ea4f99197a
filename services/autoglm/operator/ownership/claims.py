"""Decides which installation reconciles a resource, where several watch it. Pure.

The installation that creates a resource's ConfigMap annotates it with its claim: the Lease by which
its operators elect a leader, and its class. The API server creates an object once, so of two that
start together one has the claim. Others of the same class do not reconcile the resource while that
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
        super().__init__(f"the operator whose Lease is {lease} reconciles it")
        self.lease = lease


@dataclass(frozen=True, slots=True)
class Installation:
    """The operators that share a Lease. Without a Lease no resource is claimed."""

    lease: str = ""
    """Namespace and name of the Lease, as NAMESPACE/NAME."""
    operator_class: str = ""

    @property
    def annotations(self) -> dict[str, str]:
        """Return the claim as annotations of the ConfigMap."""
        if not self.lease:
            return {}
        kind = {OPERATOR_CLASS: self.operator_class} if self.operator_class else {}
        return {OPERATOR_LEASE: self.lease} | kind

    def is_responsible(self, resource: Mapping[str, Any]) -> bool:
        """Return whether the resource has this installation's class."""
        wanted = (resource.get("spec") or {}).get("operatorClass") or ""
        return bool(wanted == self.operator_class)

    def other_claim(self, name: str, children: Iterable[Mapping[str, Any]]) -> str:
        """Return the Lease of another installation of this class that claims the resource `name`;
        empty for none."""
        for child in children:
            if child["kind"] == _CONFIG_MAP and child["metadata"]["name"] == name:
                found = child["metadata"].get("annotations") or {}
                lease = str(found.get(OPERATOR_LEASE, ""))
                is_same_class = found.get(OPERATOR_CLASS, "") == self.operator_class
                return lease if self.lease and is_same_class and lease != self.lease else ""
        return ""


@dataclass(slots=True)
class Freshness:
    """Judges whether a Lease is renewed, by the local clock only: no two clocks are compared.

    A Lease that is released or deleted counts as not renewed: operators that are updated release
    and acquire it again.
    """

    timeout: float
    """Seconds without a renewal after which its claims no longer count."""
    since: float
    """Time of the last observed renewal; at first, of the first poll."""
    polled: float = -math.inf
    version: str = ""
    why_unknown: str = ""

    def seen(self, version: str, now: float) -> None:
        """Record the resourceVersion of the Lease; empty if the Lease does not exist."""
        self.why_unknown, self.polled = "", now
        if version != self.version:
            self.version, self.since = version, now

    def unknown(self, why: str, now: float) -> None:
        """Record that the Lease cannot be read: its holder may fail to renew it as well."""
        self.why_unknown, self.since = why, now

    def is_stale(self, now: float) -> bool:
        """Return whether its claims have lapsed. Without a recent poll they have not: the Lease may
        have been renewed since."""
        is_recent = now - self.polled <= self.timeout / POLLS
        return is_recent and now - self.since >= self.timeout


def claimed_message(mine: Installation, lease: str, name: str, timeout: float) -> str:
    """Return the message for a resource `name` that another installation reconciles."""
    return (
        f"the operator with the Lease {lease} reconciles this resource, so the one with the Lease "
        f"{mine.lease} does not. Give installations different namespaces or classes "
        f"(spec.operatorClass). If the first is gone, this one takes over {timeout:g} s after the "
        f"last renewal of its Lease, or after `kubectl annotate configmap {name} {OPERATOR_LEASE}-`"
    )
