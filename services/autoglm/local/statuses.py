"""The status of a resource under `autoglm up`, and failures in the manifest's words. Pure.

The status has the form that the operator writes on a cluster, so that the gateway gives clients the
reason for which a model has no ready replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from autoglm.api import AutoGLMDeployment, Problem
from autoglm.api.engine_flags import in_words_of_a_resource
from autoglm.api.status import Phase
from autoglm.common.process import ExitCode
from autoglm.local.child import Failure
from autoglm.local.member import Member
from autoglm.local.planning import State

_FIELDS: Final = {
    ExitCode.MODEL_NOT_FOUND: "spec.model.uri",
    ExitCode.NOT_A_MODEL: "spec.model.uri",
    ExitCode.GATED_MODEL: "spec.model.uri",
    ExitCode.HUB_UNREACHABLE: "spec.model.uri",
    ExitCode.UNTRUSTED_CODE: "spec.model.uri",
    ExitCode.UNSUPPORTED_QUANTIZATION: "spec.model.quantization.method",
    ExitCode.CONTEXT_TOO_LONG: "spec.model.maxModelLen",
}


def explained(failure: Failure, resource: AutoGLMDeployment | None) -> Failure:
    """Return the failure with the resource's fields in place of flags, and the field's value."""
    if resource is None:
        return failure
    message = in_words_of_a_resource(failure.message)
    path = _FIELDS.get(ExitCode(failure.exit_code)) if failure.exit_code in set(ExitCode) else None
    value = _at(resource, path) if path else None
    if path and value is not None:
        message = str(Problem(path, message, value))
    return replace(failure, message=message)


def _at(resource: AutoGLMDeployment, path: str) -> Any:
    found: Any = resource.model_dump(mode="json", by_alias=True)
    for name in path.split("."):
        found = found[name]
    return found


def status_of(resource: AutoGLMDeployment, members: Iterable[Member]) -> dict[str, Any]:
    """Return the status of a resource whose replicas are among the members."""
    own = [member for member in members if member.replica.workload == resource.name]
    if any(member.is_ready for member in own):
        return {"phase": "Ready"}
    failed = next((m.last_failure for m in own if m.last_failure is not None), None)
    if not own and not resource.desired_replicas:
        return {"phase": f"{Phase.IDLE.value} (0 replicas)"}
    status: dict[str, Any] = {"phase": _phase(own)}
    if failed is not None:
        status["model"] = {"lastFailure": {"reason": failed.reason, "message": failed.message}}
    return status


def _phase(own: Iterable[Member]) -> str:
    own = list(own)
    stages = [member.stage for member in own if member.stage]
    if own and all(member.is_in(State.FAILED) for member in own):
        return "Failed"
    if any(member.is_in(State.EXITED) for member in own):
        return "Restarting"
    if stages:
        return f"Starting ({stages[0]})"
    return "Starting" if own else "Pending"
