"""Reconciles one resource: observe, plan, apply. Called by the dispatcher.

Between reconciles of a resource it keeps only what the API server does not: what was rejected, and
how many consecutive reconciles wrote something. All other state is observed each time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

from opentelemetry import trace

from autoglm.common.pacing import Backoff
from autoglm.common.telemetry import tracer
from autoglm.kube.kinds import RESOURCE, Key
from autoglm.kube.transport import Refused
from autoglm.kube.verbs import Kube
from autoglm.operator.children.metadata import identity
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import ApplyFailures, Caches, observe
from autoglm.operator.ownership.claims import ClaimedByAnother, claimed_message
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.ownership.model_names import claim_of
from autoglm.operator.progress import ProgressPages
from autoglm.operator.types import Event, ObservedObjects, Plan, Raw
from autoglm.operator.writes.apply import Applier
from autoglm.operator.writes.conflicts import Reverts
from autoglm.operator.writes.events import EventRecorder

# A reconcile that wrote is followed by another, later each time: a plan that never converges must
# not loop at full speed.
_AFTER_WRITE = Backoff(first=0.2, most=60.0)
# A resource that a watch delivered within so many seconds exists.
_FRESH_SECONDS = 30.0
_BUSY_SECONDS = 60.0
_log = logging.getLogger("autoglm.operator")


class Gone(Exception):
    """The resource was deleted, and the watch has not delivered that yet."""


class ChildrenRejected(Exception):
    """The API server rejected children; the next reconcile observes them as `rejected`."""


@dataclass(slots=True)
class History:
    """State of one resource between two reconciles."""

    failures: ApplyFailures = ApplyFailures()
    writes: int = 0
    phase: str = ""
    is_busy: bool = False
    reverts: Reverts = field(default_factory=Reverts)
    claimed_by: str = ""
    """Lease of the other installation that reconciles the resource."""


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """Outcome of a reconcile, and the seconds until the next one unless a change triggers it."""

    result: str
    requeue_after: float | None = None


class Reconciler:
    """Reconciles resources by key.

    `decide` computes plans, `routable` reads gateways' pools, and `operator` is the identity with
    which events are written. `status_changed` is called when the status of a resource was written,
    and `progress` polls loaders and starting replicas.
    """

    def __init__(
        self,
        caches: Caches,
        kube: Kube,
        metrics: Metrics,
        routable: Callable[[Key], frozenset[str] | None],
        decide: Callable[[ObservedObjects, datetime], Plan],
        operator: str,
        rng: Random,
        installations: Installations,
        status_changed: Callable[[Key], None] = lambda _: None,
        progress: ProgressPages | None = None,
    ) -> None:
        self._progress = progress or ProgressPages(lambda _: None)
        self._caches = caches
        self._kube = kube
        self._metrics = metrics
        self._routable = routable
        self._decide = decide
        self._rng = rng
        self._histories: dict[Key, History] = {}
        self._seen: dict[Key, float] = {}
        self._events = EventRecorder(kube, operator, time.time)
        self._installations = installations
        self._status_changed = status_changed
        self._apply = Applier(
            kube, caches, self._events, self._confirm_exists, self._installations.mine
        )

    def mark_seen(self, key: Key) -> None:
        """Record that the API server has just delivered this resource."""
        self._seen[key] = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Return whether any resource is changing."""
        return any(history.is_busy for history in self._histories.values())

    async def __call__(self, key: Key) -> ReconcileResult:
        """Reconcile one resource, measured and traced. Raises what ends an attempt: Refused,
        Unreachable, NotLeading, ChildrenRejected."""
        with tracer.start_as_current_span("reconcile") as span, self._metrics.duration.time():
            span.set_attribute("k8s.namespace.name", key.namespace)
            span.set_attribute("autoglm.deployment", key.name)
            ended = await self._reconcile(key, span)
            span.set_attribute("autoglm.result", ended.result)
            return ended

    async def _reconcile(self, key: Key, span: trace.Span) -> ReconcileResult:
        now = asyncio.get_running_loop().time()
        history = self._histories.setdefault(key, History())
        observed = observe(self._caches, key, self._routable, history.failures, self._progress)
        if observed is None:
            self._forget(key)
            return ReconcileResult("gone")
        mine = self._installations.mine
        if "deletionTimestamp" in observed.resource["metadata"]:
            return await self._end(key, observed)
        if not mine.is_responsible(observed.resource):
            self._forget(key)
            return ReconcileResult("other_class")
        lease = mine.other_claim(key.name, observed.children)
        if lease and not self._installations.is_stale(lease, now):
            return await self._skip_claimed(key, observed.resource, lease)
        self._set_claim(history, "")

        self._progress.track(key, observed)
        observed = replace(observed, reverted=history.reverts.conflicts(now))
        plan = self._decide(observed, datetime.now(UTC))
        has_status = observed.resource.get("status") or observed.rejected or history.writes
        if plan.apply and not has_status:
            # The first status would be outdated at once, and delay children of other resources.
            plan = replace(plan, status=None, events=())
        if (due := history.reverts.next_due(now)) is not None:
            # Children that other controllers keep reverting are not applied during a pause.
            apply = tuple(body for body in plan.apply if history.reverts.may_apply(body, now))
            after = due if plan.requeue_after is None else min(due, plan.requeue_after)
            plan = replace(plan, apply=apply, requeue_after=after)
        span.set_attribute("autoglm.plan.apply", len(plan.apply))
        span.set_attribute("autoglm.plan.delete", len(plan.delete))

        try:
            applied = await self._apply(observed.resource, plan, observed.conflicts)
        except ClaimedByAnother as error:
            return await self._skip_claimed(key, observed.resource, error.lease)
        except Gone:
            self._forget(key)
            # The watch will not deliver a new resource of the same name that was stored here.
            return ReconcileResult("gone", 0.0 if self._caches.resources.version(key) else None)

        if plan.status is not None:
            self._status_changed(key)
        status = plan.status if plan.status is not None else observed.resource.get("status")
        self._set_phase(history, str((status or {}).get("phase", "Pending")))
        if applied.bodies:
            before = {identity(child): child for child in observed.children}
            for body in applied.bodies:
                history.reverts.applied(body, before.get(identity(body)), now, self._rng)
        changed = applied.failures != history.failures
        history.failures = applied.failures
        if changed:
            failures = (h.failures for h in self._histories.values())
            self._metrics.conflicts.set(sum(len(f.conflicts) for f in failures))
        if rejected := applied.failures.rejected:
            raise ChildrenRejected("; ".join(f"{r.kind} {r.name}: {r.message}" for r in rejected))

        wrote = applied.wrote or changed
        history.writes = history.writes + 1 if wrote else 0
        next_due = plan.requeue_after
        history.is_busy = wrote or (next_due is not None and next_due <= _BUSY_SECONDS)
        if not wrote:
            return ReconcileResult("unchanged", next_due)
        delay = _AFTER_WRITE.delay(history.writes, self._rng)
        return ReconcileResult("written", delay if next_due is None else min(next_due, delay))

    async def _end(self, key: Key, observed: ObservedObjects) -> ReconcileResult:
        """Report a resource that is being deleted; write nothing else."""
        self._forget(key)
        mine, resource = self._installations.mine, observed.resource
        is_mine = mine.is_responsible(resource)
        if is_mine and not mine.other_claim(key.name, observed.children):
            plan = self._decide(observed, datetime.now(UTC))
            try:
                await self._apply(resource, Plan(status=plan.status, events=plan.events))
            except Refused as error:
                if not error.is_not_found:
                    raise
        return ReconcileResult("gone")

    async def _skip_claimed(self, key: Key, resource: Raw, lease: str) -> ReconcileResult:
        """Report once that another installation reconciles the resource; write nothing else."""
        history, installations = self._histories[key], self._installations
        installations.watch_claim(key, lease)
        if history.claimed_by != lease:
            self._set_phase(history, "")
            history = self._histories[key] = History()
            self._set_claim(history, lease)
            why = claimed_message(installations.mine, lease, key.name, installations.timeout)
            fields = {"resource": str(key), "lease": lease}
            _log.warning("another installation reconciles a resource", extra={"fields": fields})
            await self._events.record(resource, Event("Warning", "ClaimedByAnother", why))
        return ReconcileResult("claimed")

    def _set_claim(self, history: History, lease: str) -> None:
        """Record the Lease of the installation that reconciles the resource; empty for this one."""
        if history.claimed_by != lease:
            history.claimed_by = lease
            claimed = sum(bool(h.claimed_by) for h in self._histories.values())
            self._metrics.claimed_elsewhere.set(claimed)

    def _set_phase(self, history: History, phase: str) -> None:
        """Count the resource under its phase; empty removes it from the count."""
        if history.phase != phase:
            for name, change in ((history.phase, -1), (phase, 1)):
                if name:
                    self._metrics.resources.labels(name).inc(change)
            history.phase = phase

    def _forget(self, key: Key) -> None:
        if history := self._histories.pop(key, None):
            self._set_phase(history, "")
            self._set_claim(history, "")
        self._seen.pop(key, None)
        self._progress.track(key, None)
        self._events.correlator.forget(key)
        self._caches.names.put(key, claim_of(self._caches.resources.get(key)))

    async def _confirm_exists(self, resource: Raw) -> None:
        """Read the resource unless it was delivered recently. Raises Gone if it was deleted:
        children without an owner would be deleted and created again, in a loop."""
        metadata = resource["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if time.monotonic() - self._seen.get(key, float("-inf")) < _FRESH_SECONDS:
            return
        try:
            body = await self._kube.get(RESOURCE.path(key.namespace, key.name))
        except Refused as error:
            if not error.is_not_found:
                raise
            self._caches.resources.forget(key, metadata["uid"])
            raise Gone(str(key)) from error
        self.mark_seen(key)
        self._caches.resources.put(body)
        now = self._caches.resources.get(key)
        if now is None or now["metadata"]["uid"] != metadata["uid"]:
            raise Gone(str(key))
