"""Deployment: the replicas of one revision. Pure; `rollout` computes their number.

A revision's pod template never changes, so Kubernetes' own rolling update never starts; a rollout
replaces one Deployment by another.
"""

from __future__ import annotations

import copy

from autoglm.api.labels import REVISION
from autoglm.operator.children.metadata import Body, Context, child, selector
from autoglm.operator.children.pod import STARTUP_SECONDS
from autoglm.operator.observed import Raw

APPLIED = "autoglm.io/applied"


def deployment_name(resource: str, revision: str) -> str:
    return f"{resource}-{revision}"


def deployment(context: Context, template: Body, revision: str, replicas: int) -> Body:
    """Return the Deployment of a revision."""
    metadata = template["metadata"]
    labelled = metadata | {"labels": metadata["labels"] | {REVISION: revision}}
    body = child(context, "apps/v1", "Deployment", deployment_name(context.name, revision))
    body["metadata"]["labels"][REVISION] = revision
    body["spec"] = {
        "replicas": replicas,
        "selector": {"matchLabels": selector(context.name) | {REVISION: revision}},
        # If a user edits the template, no replica terminates before another is ready.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": STARTUP_SECONDS + 600,
        "template": template | {"metadata": labelled},
    }
    return body


def scaled(live: Raw, replicas: int) -> Body:
    """Return the Deployment of an earlier revision with another number of replicas.

    Its spec is not known any more, so the live object is used: omitting a field would remove it.
    """
    metadata = live["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences")}
    spec = copy.deepcopy(dict(live["spec"])) | {"replicas": replicas}
    spec["template"].get("metadata", {}).pop("creationTimestamp", None)
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": copy.deepcopy(kept),
        "spec": spec,
    }
