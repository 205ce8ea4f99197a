"""Reads pods: which revision they have, whether they serve, and why one fails. Pure.

Sources of failures: states of containers, the engine's diagnosis in the termination message, the
scheduler's condition, and Warning events of controllers that could not create a pod. Messages omit
what changes by itself (back-off times, counters), so that a repeated failure does not change the
status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from autoglm.api.labels import LOADER, REVISION
from autoglm.api.own_images import pull_remedy
from autoglm.operator.children.loader import ENGINE
from autoglm.operator.status.causes import creation_remedy, is_over_quota, placement_remedy
from autoglm.operator.types import Raw

_SHOWN = 1024
_DIAGNOSIS = re.compile(r"(?P<reason>[A-Z][A-Za-z]{2,63}): (?P<message>.+)", re.DOTALL)
_IMAGE = (
    "check spec.engine.image (or the operator's image settings), and name a pull secret in "
    "spec.template.spec.imagePullSecrets if the registry requires one"
)
_CLASS = (
    "check spec.model.cache: storageClassName must exist, and offer accessMode (ReadWriteMany if "
    "absent)"
)
_VOLUME = "check the claims, secrets and volumes that spec.model.cache and spec.template name"
_OOM = (
    "raise spec.resources.limits.memory, or lower spec.model.maxModelLen or spec.engine.maxNumSeqs"
)
_EXITED = "kubectl logs --previous shows more, and docs/exit-codes.md explains the exit codes"
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
_NODE = "the network or container runtime of the node fails; check the node"
# Reasons of events, each with the remedy for a message.
_WARNINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "FailedCreate": creation_remedy,
    "ReplicaSetCreateError": creation_remedy,
    "FailedMount": lambda _: _VOLUME,
    "FailedAttachVolume": lambda _: _VOLUME,
    "FailedCreatePodSandBox": lambda _: _NODE,
    "ProvisioningFailed": lambda _: _CLASS,
}


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, with the values that `rollout` and `failures` read."""

    raw: Raw
    name: str
    revision: str
    is_ready: bool
    is_ending: bool
    is_serving: bool
    """Ready, and in the pool of every gateway; ready is enough where no gateway responds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `is_own`: caused by the revision itself, not by a lack of resources."""

    reason: str
    message: str
    pod: str = ""
    revision: str = ""
    exit_code: int | None = None
    is_own: bool = True


def present(raws: Iterable[Raw], routable: frozenset[str] | None, now: datetime) -> list[Pod]:
    """Return the pods that occupy resources: neither completed ones nor those past their
    termination, since the pod of a lost node may stay for ever."""
    pods = []
    for raw in raws:
        metadata, name = raw["metadata"], raw["metadata"]["name"]
        deadline = metadata.get("deletionTimestamp")
        is_completed = raw.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if is_completed or (deadline is not None and datetime.fromisoformat(deadline) < now):
            continue
        revision = str(metadata.get("labels", {}).get(REVISION, ""))
        is_ready = condition(raw, "Ready").get("status") == "True" and deadline is None
        is_serving = is_ready and (routable is None or name in routable)
        pods.append(Pod(raw, name, revision, is_ready, deadline is not None, is_serving))
    return pods


def condition(raw: Raw, kind: str) -> Mapping[str, Any]:
    """Return a condition of any object; empty if it has none of that type."""
    conditions = raw.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == kind), {})


def containers(raw: Raw) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of all containers, in the order in which they start."""
    status = raw.get("status", {})
    for field in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(field) or ()


def failures(pods: Sequence[Pod], warnings: Iterable[Raw]) -> list[Failure]:
    """Return at most one failure of every pod that is not ready: those that the pod itself shows,
    sorted by pod, then those that a Warning event explains."""
    waiting = [pod for pod in pods if not pod.is_ready and not pod.is_ending]
    shown: list[Failure] = []
    explained: list[Failure] = []
    events = list(warnings)
    for pod in sorted(waiting, key=lambda pod: pod.name):
        if own := _cannot_start(pod.raw) or _exited(pod.raw) or _unschedulable(pod.raw):
            shown.append(replace(own, pod=pod.name, revision=pod.revision))
        elif warning := next(warned(events, pod.name, "Pod"), None):
            explained.append(replace(warning, pod=pod.name, revision=pod.revision))
    return [*shown, *explained]


def creation_failure(
    warnings: Sequence[Raw], name: str, revision: str, *kinds: str
) -> Iterator[Failure]:
    """Yield at most one cause why a Deployment, or an object of other kinds, has fewer pods than it
    should. Call it only then."""
    for kind in kinds or ("ReplicaSet", "Deployment"):
        for failure in warned(warnings, name, kind):
            yield replace(failure, revision=revision)
            return


def _cannot_start(raw: Raw) -> Failure | None:
    for container in containers(raw):
        waiting = container.get("state", {}).get("waiting") or {}
        if known := _WAITING.get(waiting.get("reason", "")):
            reason, advice = known
            # The same message while kubelet pulls and while it backs off.
            message = re.sub(
                r'^Back-off pulling image "[^"]*": (ErrImagePull: )?',
                "",
                waiting.get("message", ""),
            )
            message = re.sub(r"^Back-off pulling image", "cannot pull image", message)
            image = container.get("image", "")
            if reason == "ImagePullBackOff":
                advice = pull_remedy(image) or advice
            return Failure(reason, _sentence(message or f"image {image}", advice))
    return None


def _exited(raw: Raw) -> Failure | None:
    """Return the failure of the first container that has exited with an error."""
    found = (
        (container["name"], end)
        for container in containers(raw)
        for state in ("state", "lastState")
        if (end := container.get(state, {}).get("terminated"))
        and end.get("exitCode")
        and not container.get("ready")
    )
    first = next(found, None)
    if first is None:
        return None
    name, end = first
    code = end["exitCode"]
    if end.get("reason") == "OOMKilled":
        specs = (c for c in raw.get("spec", {}).get("containers", []) if c["name"] == name)
        spec: Mapping[str, Any] = next(specs, {})
        limit = spec.get("resources", {}).get("limits", {}).get("memory", "")
        message = f"{name} was killed at its memory limit{f' of {limit}' if limit else ''}"
        return Failure("OOMKilled", _sentence(message, _OOM), exit_code=code)
    text = (end.get("message") or "").strip()
    # Without a diagnosis the text is the end of the log.
    if name in (ENGINE, LOADER) and (match := _DIAGNOSIS.match(text)):
        return Failure(match["reason"], _short(match["message"]), exit_code=code)
    message = f"{name} ended with exit code {code}"
    message += f": {text.splitlines()[-1]}" if text else ""
    own = {ENGINE: "ContainerFailed", LOADER: "LoaderFailed"}
    reason = own.get(name, "SidecarFailed")
    return Failure(reason, _sentence(message, _EXITED), exit_code=code)


def _unschedulable(raw: Raw) -> Failure | None:
    scheduled = condition(raw, "PodScheduled")
    if scheduled.get("status") != "False" or scheduled.get("reason") != "Unschedulable":
        return None
    message = scheduled.get("message", "")
    return Failure("Unschedulable", _sentence(message, placement_remedy(message)), is_own=False)


def warned(warnings: Iterable[Raw], name: str, kind: str) -> Iterator[Failure]:
    """Yield the failures that events report of an object, or of the ReplicaSets of a Deployment."""
    for event in warnings:
        about, reason = event.get("involvedObject") or event.get("regarding") or {}, event["reason"]
        named = about.get("name", "")
        # The name of a ReplicaSet begins with that of its Deployment.
        owner = named.rpartition("-")[0] if kind == "ReplicaSet" else named
        if about.get("kind") == kind and owner == name and reason in _WARNINGS:
            message = event.get("message") or event.get("note") or ""
            # The names of pods differ in each attempt to create them.
            general = re.sub(r'pods "[^"]*"', "pods", message)
            sentence = _sentence(general, _WARNINGS[reason](message))
            yield Failure(reason, sentence, is_own=not is_over_quota(message))


def _sentence(message: str, advice: str) -> str:
    return f"{_short(message).rstrip('.; ')}; {advice}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else f"{flat[: _SHOWN - 1]}…"
