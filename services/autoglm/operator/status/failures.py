"""Finds the failures of a resource's pods, each with reason, message and remedy. Pure.

Sources: states of containers, the engine's diagnosis in the termination message, the scheduler's
condition, and Warning events of controllers that could not create a pod. Messages omit what changes
by itself (back-off times, counters), so that a repeated failure does not change the status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from autoglm.operator.children.deployment import ENGINE
from autoglm.operator.observed import Raw
from autoglm.operator.status.pods import Pod, condition, containers

_SHOWN = 1024
_DIAGNOSIS = re.compile(r"(?P<reason>[A-Z][A-Za-z]{2,63}): (?P<message>.+)", re.DOTALL)
_CODES = "docs/exit-codes.md explains the exit codes"
_IMAGE = (
    "check spec.engine.image (or the operator's image settings), and name a pull secret in "
    "spec.template.spec.imagePullSecrets if the registry requires one"
)
_QUOTA = "raise the quota, or correct what the message names"
_VOLUME = "check the claims, secrets and volumes that spec.model.cache and spec.template name"
# Reasons of waiting containers, with the reported reason and the remedy.
_WAITING: Final = {
    "ErrImagePull": ("ImagePullBackOff", _IMAGE),
    "ImagePullBackOff": ("ImagePullBackOff", _IMAGE),
    "ErrImageNeverPull": ("ImagePullBackOff", _IMAGE),
    "InvalidImageName": ("InvalidImageName", _IMAGE),
    "ImageInspectError": ("ImagePullBackOff", _IMAGE),
    "CreateContainerConfigError": (
        "CreateContainerConfigError",
        "check the secrets and config maps that spec.engine.env and spec.template name",
    ),
    "CreateContainerError": ("CreateContainerError", "check spec.template"),
    "RunContainerError": ("RunContainerError", "check the image and spec.template"),
}
_WARNINGS: Final = {
    "FailedCreate": _QUOTA,
    "ReplicaSetCreateError": _QUOTA,
    "FailedMount": _VOLUME,
    "FailedAttachVolume": _VOLUME,
    "FailedCreatePodSandBox": "the network or container runtime of the node fails; check the node",
}
_OOM = (
    "raise spec.resources.limits.memory, or lower spec.model.maxModelLen or spec.engine.maxNumSeqs"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `is_own`: caused by the revision itself, not by a lack of resources."""

    reason: str
    message: str
    pod: str = ""
    revision: str = ""
    exit_code: int | None = None
    is_own: bool = True


def failures(pods: Sequence[Pod], warnings: Iterable[Raw]) -> list[Failure]:
    """Return at most one failure of every pod that is not ready, sorted by pod."""
    waiting = [pod for pod in pods if not pod.is_ready and not pod.is_ending]
    named = [(pod, _of_pod(pod.raw)) for pod in sorted(waiting, key=lambda pod: pod.name)]
    found = [_at(pod, failure) for pod, failure in named if failure]
    explained = {failure.pod for failure in found}
    events = list(warnings)
    for pod in waiting:
        if pod.name not in explained:
            found += [_at(pod, f) for f in _warned(events, pod.name, "Pod")][:1]
    return found


def creation_failure(warnings: Sequence[Raw], deployment: str, revision: str) -> Iterator[Failure]:
    """Yield at most one cause why a Deployment has fewer pods than replicas. Call it only then."""
    for kind in ("ReplicaSet", "Deployment"):
        for failure in _warned(warnings, deployment, kind):
            yield replace(failure, revision=revision)
            return


def _at(pod: Pod, failure: Failure) -> Failure:
    return replace(failure, pod=pod.name, revision=pod.revision)


def _of_pod(raw: Raw) -> Failure | None:
    return next((f for check in _CHECKS if (f := check(raw))), None)


def _unschedulable(raw: Raw) -> Failure | None:
    scheduled = condition(raw, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    advice = (
        "add nodes, free some, or change spec.resources and the node selectors and tolerations of "
        "spec.template"
    )
    return Failure("Unschedulable", _sentence(scheduled.get("message", ""), advice), is_own=False)


def _cannot_start(raw: Raw) -> Failure | None:
    for container in containers(raw):
        waiting = container.get("state", {}).get("waiting") or {}
        if known := _WAITING.get(waiting.get("reason", "")):
            reason, advice = known
            image = container.get("image", "")
            message = _without_back_off(waiting.get("message", "")) or f"image {image}"
            return Failure(reason, _sentence(message, advice))
    return None


def _ended(raw: Raw) -> Failure | None:
    for container in containers(raw):
        for state in ("state", "lastState"):
            terminated = container.get(state, {}).get("terminated")
            if terminated and terminated.get("exitCode") and not container.get("ready"):
                return _termination(raw, container, terminated)
    return None


def _termination(raw: Raw, container: Mapping[str, Any], end: Mapping[str, Any]) -> Failure:
    code, name = end["exitCode"], container["name"]
    if end.get("reason") == "OOMKilled":
        limit = _memory_limit(raw, name)
        message = f"{name} was killed at its memory limit{f' of {limit}' if limit else ''}"
        return Failure("OOMKilled", _sentence(message, _OOM), exit_code=code)
    text = (end.get("message") or "").strip()
    # Without a diagnosis the text is the end of the log.
    if name == ENGINE and (match := _DIAGNOSIS.match(text)):
        return Failure(match["reason"], _short(match["message"]), exit_code=code)
    message = f"{name} ended with exit code {code}"
    last = text.splitlines()[-1] if text else ""
    advice = f"kubectl logs --previous shows more, and {_CODES}"
    reason = "ContainerFailed" if name == ENGINE else "SidecarFailed"
    message += f": {last}" if last else ""
    return Failure(reason, _sentence(message, advice), exit_code=code)


def _memory_limit(raw: Raw, container: str) -> str:
    for spec in raw.get("spec", {}).get("containers", []):
        if spec["name"] == container:
            return str(spec.get("resources", {}).get("limits", {}).get("memory", ""))
    return ""


_CHECKS: tuple[Callable[[Raw], Failure | None], ...] = (_cannot_start, _ended, _unschedulable)


def _warned(warnings: Iterable[Raw], name: str, kind: str) -> Iterator[Failure]:
    for event in warnings:
        about, reason = event.get("involvedObject") or event.get("regarding") or {}, event["reason"]
        named = about.get("name", "")
        # The name of a ReplicaSet begins with that of its Deployment.
        owner = named.rpartition("-")[0] if kind == "ReplicaSet" else named
        if about.get("kind") == kind and owner == name and reason in _WARNINGS:
            message = event.get("message") or event.get("note") or ""
            yield Failure(
                reason,
                _sentence(_without_names(message), _WARNINGS[reason]),
                is_own="quota" not in message,
            )


def _without_back_off(message: str) -> str:
    """Return a message that is the same while kubelet pulls and while it backs off."""
    why = re.sub(r'^Back-off pulling image "[^"]*": (ErrImagePull: )?', "", message)
    return re.sub(r"^Back-off pulling image", "cannot pull image", why)


def _without_names(message: str) -> str:
    """Return a message without the names of pods, which differ in each attempt to create them."""
    return re.sub(r'pods "[^"]*"', "pods", message)


def _sentence(message: str, advice: str) -> str:
    return f"{_short(message).rstrip('.; ')}; {advice}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
