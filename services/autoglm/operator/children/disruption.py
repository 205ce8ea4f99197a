"""PodDisruptionBudget: limits node drains and other planned evictions. Pure."""

from __future__ import annotations

from autoglm.operator.children.metadata import Body, Context, child, selector


def disruption_budget(context: Context) -> Body:
    least = context.spec.disruption.min_available
    limit = {"maxUnavailable": 1} if least is None else {"minAvailable": least}
    spec = {
        **limit,
        "selector": {"matchLabels": selector(context.name)},
        # A replica that is not ready does not serve and must not block a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return child(context, "policy/v1", "PodDisruptionBudget") | {"spec": spec}
