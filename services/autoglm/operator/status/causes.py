"""Chooses the remedy for a message of Kubernetes about a pod that is not created or placed. Pure.

An event's reason says only what failed, such as FailedCreate; what the user has to change is in its
text. A text of no known form gets a general remedy, and is itself passed on in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_Causes = Sequence[tuple[re.Pattern[str], str]]
_CREATION: Final[_Causes] = (
    (re.compile("exceeded quota"), "raise the quota, or lower spec.resources or spec.replicas"),
    (
        re.compile("failed quota"),
        "set the requests and limits that the namespace's quota demands in spec.resources",
    ),
    (
        re.compile("PriorityClass"),
        "create the PriorityClass, or name another one in spec.template.spec.priorityClassName",
    ),
    (
        re.compile(r"usage per (Container|Pod) is|limit to request ratio per"),
        "set spec.resources to what the namespace's LimitRange allows, or change the LimitRange",
    ),
    (
        re.compile("violates PodSecurity"),
        "change what the message names in spec.template or spec.model.cache, or the namespace's "
        "Pod Security Standard",
    ),
)
_CREATION_OTHERWISE: Final = "correct what the message names"
_CLAIMS: Final = re.compile(
    r"persistent ?volume ?claim|persistent volumes|volume node affinity|no available volume zone",
    re.IGNORECASE,
)
_CLAIM: Final = (
    "check the claim that spec.model.cache or spec.template names, by kubectl describe pvc: it "
    "must exist, and its volume must be where the nodes are"
)
_NODES: Final = (
    "add nodes, free some, or change spec.resources and the node selectors and tolerations of "
    "spec.template"
)
# Of a node that a pod without the claim would not fit on either.
_LACK: Final = re.compile(r"Insufficient |taint|didn't match")


def is_over_quota(message: str) -> bool:
    """Return whether the namespace's quota is used up, which is not the resource's own fault."""
    return "exceeded quota" in message


def creation_remedy(message: str) -> str:
    """Return the remedy where a controller could not create a pod or a ReplicaSet."""
    found = (remedy for pattern, remedy in _CREATION if pattern.search(message))
    return next(found, _CREATION_OTHERWISE)


def placement_remedy(message: str) -> str:
    """Return the remedy where the scheduler finds no node."""
    if not _CLAIMS.search(message):
        return _NODES
    return f"{_CLAIM}; {_NODES}" if _LACK.search(message) else _CLAIM
