"""Deployment: the replicas of one revision. Pure; `rollout` says how many.

A revision's pod template never changes, so Kubernetes' own rolling update never starts; what
replaces one revision by another is a second Deployment.
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
    metadata = template["metadata"]
    labelled = metadata | {"labels": metadata["labels"] | {REVISION: revision}}
    body = child(context, "apps/v1", "Deployment", deployment_name(context.name, revision))
    body["metadata"]["labels"][REVISION] = revision
    body["spec"] = {
        "replicas": replicas,
        "selector": {"matchLabels": selector(context.name) | {REVISION: revision}},
        # Should somebody edit the template, no replica goes before another has come.
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
    """An earlier revision's Deployment as it is, but for the replicas.

    Its spec is gone, so what is live stands in for it: leaving a field out would remove it.
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
