"""Computes the state of a resource's loader, and whether pods may be created. Pure.

The finished Job is the record that the weights are there. A failed one stays for a while, with the
pods that say why, and is then replaced; a finished one counts for the claim that it filled, and not
for one that was created after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from autoglm.api.labels import WEIGHTS
from autoglm.operator.children.loader import CLAIM, JOB, claim_name, job, needs_job
from autoglm.operator.children.metadata import Body, Context, identity
from autoglm.operator.children.weights import key_of
from autoglm.operator.status.pods import Failure, Pod, creation_failure, failures, warned
from autoglm.operator.types import ObservedObjects, Progress, Raw
from autoglm.operator.writes.diff import with_hash

RETRY_AFTER: Final = timedelta(minutes=5)
"""How long a failed Job stays until another attempt."""


class LoadState(StrEnum):
    """State of the weights in the cache."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    FAILED = "Failed"
    LOADED = "Loaded"


@dataclass(frozen=True, slots=True)
class Loading:
    """The loader of a resource."""

    state: LoadState
    name: str
    """Name of its Job."""
    job: Body | None
    """The Job that should exist; None while an earlier one is being replaced, or if suspended."""
    failure: Failure | None = None
    """Why it does not progress; while a Job retries, why its last pod failed."""
    progress: Progress | None = None

    @property
    def holds_pods(self) -> bool:
        """Return whether pods of a new revision wait."""
        return self.state is not LoadState.LOADED


def loading_of(
    context: Context,
    template: Body,
    observed: ObservedObjects,
    now: datetime,
) -> Loading | None:
    """Return the state of the loader; None where no Job fills the cache."""
    if not needs_job(context.spec):
        return None
    children = {identity(child): child for child in observed.children}
    warnings, progress = observed.warnings, observed.progress
    live = _jobs(context, children)
    if done := next((each for each in live if _condition(each, "Complete")), None):
        return Loading(LoadState.LOADED, done["metadata"]["name"], dict(done))
    wanted = with_hash(job(context, template))
    name = wanted["metadata"]["name"]
    is_stale = (JOB, name) in children and not any(j["metadata"]["name"] == name for j in live)
    if context.spec.suspend or is_stale:
        return Loading(LoadState.PENDING, name, None)
    known = next((each for each in live if each["metadata"]["name"] == name), None)
    of_claim = _claim_failure(context, children, warnings)
    if known is None:
        return Loading(LoadState.PENDING, name, wanted, of_claim)
    own = _pods_of(known, observed.loaders)
    failed = _condition(known, "Failed")
    is_running = bool(own) and own[-1].get("status", {}).get("phase") == "Running"
    # What ended an earlier pod does not matter while another one downloads.
    relevant = own[-1:] if is_running else own
    of_creation = creation_failure(warnings, name, "", JOB)
    failure = _pod_failure(relevant, warnings) or next(of_creation, None)
    if failed:
        failure = failure or Failure("LoaderFailed", f"the Job {name} failed: {_text(failed)}")
        is_due = now - _time(failed.get("lastTransitionTime"), now) >= RETRY_AFTER
        return Loading(LoadState.FAILED, name, None if is_due else dict(known), failure)
    state = LoadState.DOWNLOADING if is_running else LoadState.PENDING
    # The scheduler only knows that the claim is not bound.
    return Loading(state, name, wanted, of_claim or failure, progress)


def _jobs(context: Context, children: Mapping[tuple[str, str], Raw]) -> list[Raw]:
    """Return the Jobs for the current downloads, as far as they filled the current claim."""
    key = key_of(context.spec)
    claim = children.get((CLAIM, claim_name(context)))
    since = claim["metadata"].get("creationTimestamp", "") if claim else ""
    return [
        child
        for (kind, _), child in sorted(children.items())
        if kind == JOB
        and (child["metadata"].get("labels") or {}).get(WEIGHTS) == key
        and "deletionTimestamp" not in child["metadata"]
        and child["metadata"].get("creationTimestamp", "") >= since
    ]


def _pods_of(job: Raw, pods: Iterable[Raw]) -> list[Raw]:
    """Return the pods of a Job, the oldest first."""
    uid = job["metadata"]["uid"]
    own = (p for p in pods if _owner(p) == uid)
    return sorted(own, key=lambda pod: pod["metadata"].get("creationTimestamp", ""))


def _owner(pod: Raw) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((o["uid"] for o in owners if o.get("controller")), "")


def _pod_failure(pods: Sequence[Raw], warnings: Sequence[Raw]) -> Failure | None:
    """Return why the last pod that says so did not succeed."""
    for raw in reversed(pods):
        pod = Pod(raw, raw["metadata"]["name"], "", False, False, False)
        if found := failures([pod], warnings):
            return found[0]
    return None


def _claim_failure(
    context: Context, children: Mapping[tuple[str, str], Raw], warnings: Sequence[Raw]
) -> Failure | None:
    """Return why the operator's claim gets no volume."""
    claim = children.get((CLAIM, claim_name(context)))
    if claim is None or claim.get("status", {}).get("phase") == "Bound":
        return None
    return next(warned(warnings, claim_name(context), CLAIM), None)


def _condition(job: Raw, kind: str) -> Mapping[str, Any]:
    """Return a condition of a Job that holds; empty for none."""
    conditions = job.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), {})


def _text(condition: Mapping[str, Any]) -> str:
    return str(condition.get("message") or condition.get("reason") or "without a message")


def _time(text: Any, otherwise: datetime) -> datetime:
    return datetime.fromisoformat(text) if isinstance(text, str) else otherwise
