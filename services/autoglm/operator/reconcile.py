"""One look at one resource: observe, plan, apply. Called by the dispatcher, for one key at a time.

Keeps what the next look needs to know of this one: what was refused, and how often in a row
something had to be written. Everything else is observed anew each time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random

from opentelemetry import trace

from autoglm.common.backoff import Backoff
from autoglm.common.telemetry import tracer
from autoglm.kube.key import Key
from autoglm.kube.kinds import RESOURCE
from autoglm.kube.transport import Refused
from autoglm.kube.verbs import Kube
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Attempt, World, observe
from autoglm.operator.observed import Event, NoData, Observed, Plan, Raw, Settings
from autoglm.operator.ownership.claims import ClaimedByAnother, Installation, left_alone
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.ownership.model_names import claim_of
from autoglm.operator.status.announcements import Announcements
from autoglm.operator.writes.apply import Applier
from autoglm.operator.writes.fights import Fights

Planner = Callable[[Observed, Settings, datetime], Plan]
# After a write comes another look, later each time: a plan that never settles must not spin.
_AFTER_WRITE = Backoff(first=0.2, most=60.0)
# A resource that a watch has spoken of within so many seconds exists.
_FRESH_SECONDS = 30.0
_BUSY_SECONDS = 60.0
_NOTHING = Attempt()
_log = logging.getLogger("autoglm.operator")


class Gone(Exception):
    """The resource does not exist any more, though nobody told us."""


class ChildrenRefused(Exception):
    """The API server would not take some children; they are in the next look's `refused`."""


@dataclass(slots=True)
class Memory:
    """Of one resource, between two looks."""

    attempt: Attempt = _NOTHING
    writes: int = 0
    phase: str = ""
    is_busy: bool = False
    fights: Fights = field(default_factory=Fights)
    left_to: str = ""
    """Lease of the installation that runs it in our place."""


@dataclass(frozen=True, slots=True)
class Looked:
    """How a look ended, and when the next one is due if nothing happens."""

    result: str
    requeue_after: float | None = None


class Reconciler:
    """`settings` and `planner` say what should be; `routable` what the gateways know."""

    def __init__(
        self,
        world: World,
        kube: Kube,
        metrics: Metrics,
        routable: Callable[[Key], frozenset[str] | NoData],
        decide: Callable[[Observed, datetime], Plan],
        identity: str,
        rng: Random,
        others: Installations | None = None,
    ) -> None:
        self._world = world
        self._kube = kube
        self._metrics = metrics
        self._routable = routable
        self._decide = decide
        self._rng = rng
        self._memories: dict[Key, Memory] = {}
        self._seen: dict[Key, float] = {}
        self._announcements = Announcements()
        self._others = others or Installations(kube, Installation(), math.inf, lambda _: None)
        mine = self._others.mine
        self._apply = Applier(
            kube, world, self._announcements, identity, self._confirm, time.time, mine.rival
        )

    def saw(self, key: Key) -> None:
        """The API server has just spoken of this resource."""
        self._seen[key] = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way."""
        return any(memory.is_busy for memory in self._memories.values())

    async def __call__(self, key: Key) -> Looked:
        with tracer.start_as_current_span("reconcile") as span, self._metrics.duration.time():
            span.set_attribute("k8s.namespace.name", key.namespace)
            span.set_attribute("autoglm.deployment", key.name)
            looked = await self._look(key, span)
            span.set_attribute("autoglm.result", looked.result)
            return looked

    async def _look(self, key: Key, span: trace.Span) -> Looked:
        memory = self._memories.setdefault(key, Memory())
        observed = observe(self._world, key, self._routable, memory.attempt)
        if observed is None or "deletionTimestamp" in observed.resource["metadata"]:
            self._forget(key)
            return Looked("gone")
        if not self._others.mine.is_responsible(observed.resource):
            self._forget(key)
            return Looked("other_class")
        if rival := self._rival(key, observed):
            return await self._leave(key, observed.resource, rival)
        self._take(memory)
        now = asyncio.get_running_loop().time()
        observed = replace(observed, fought=memory.fights.rivals(now))
        plan = _without_haste(self._decide(observed, datetime.now(UTC)), observed, memory)
        plan = _with_pauses(plan, memory.fights, now)
        span.set_attribute("autoglm.plan.apply", len(plan.apply))
        span.set_attribute("autoglm.plan.delete", len(plan.delete))
        try:
            applied = await self._apply(observed.resource, plan, observed.conflicts)
        except ClaimedByAnother as error:
            return await self._leave(key, observed.resource, error.lease)
        except Gone:
            self._forget(key)
            # A namesake that we found ourselves is no news to the watch.
            return Looked("gone", 0.0 if self._world.resources.version(key) else None)
        self._note_phase(memory, observed, plan)
        before = {(c["kind"], c["metadata"]["name"]): c for c in observed.children}
        for body in applied.bodies:
            live = before.get((body["kind"], body["metadata"]["name"]))
            memory.fights.applied(body, live, now, self._rng)
        news = applied.attempt != memory.attempt
        memory.attempt = applied.attempt
        if news:
            attempts = (m.attempt for m in self._memories.values())
            self._metrics.conflicts.set(sum(len(a.conflicts) for a in attempts))
        if applied.attempt.refused:
            raise ChildrenRefused(_refusals(applied.attempt))
        return self._settle(memory, plan, wrote=applied.wrote or news)

    def _rival(self, key: Key, observed: Observed) -> str:
        """The Lease of another installation that runs the resource."""
        rival = self._others.mine.rival_of(key.name, observed.children)
        is_stale = rival and self._others.is_stale(rival, asyncio.get_running_loop().time())
        return "" if is_stale else rival

    async def _leave(self, key: Key, resource: Raw, rival: str) -> Looked:
        """Report once that another installation runs the resource, and write nothing else."""
        memory, others = self._memories[key], self._others
        others.leave(key, rival)
        if memory.left_to != rival:
            self._count_phase(memory.phase, -1)
            self._memories[key] = Memory(left_to=rival)
            self._count_left()
            why = left_alone(others.mine, rival, f"{key.namespace}/{key.name}", others.timeout)
            fields = {"resource": f"{key.namespace}/{key.name}", "lease": rival}
            _log.warning("another installation runs a resource", extra={"fields": fields})
            await self._apply.announce(resource, Event("Warning", "ClaimedByAnother", why))
        return Looked("claimed")

    def _take(self, memory: Memory) -> None:
        if memory.left_to:
            memory.left_to = ""
            self._count_left()

    def _count_left(self) -> None:
        self._metrics.left.set(sum(bool(m.left_to) for m in self._memories.values()))

    def _settle(self, memory: Memory, plan: Plan, *, wrote: bool) -> Looked:
        memory.writes = memory.writes + 1 if wrote else 0
        after = plan.requeue_after
        memory.is_busy = wrote or (after is not None and after <= _BUSY_SECONDS)
        if not wrote:
            return Looked("unchanged", after)
        delay = _AFTER_WRITE.delay(memory.writes, self._rng)
        return Looked("written", delay if after is None else min(after, delay))

    def _note_phase(self, memory: Memory, observed: Observed, plan: Plan) -> None:
        status = plan.status if plan.status is not None else observed.resource.get("status")
        phase = str((status or {}).get("phase", "Pending"))
        if phase != memory.phase:
            self._count_phase(memory.phase, -1)
            self._count_phase(phase, 1)
            memory.phase = phase

    def _count_phase(self, phase: str, change: int) -> None:
        if phase:
            self._metrics.resources.labels(phase).inc(change)

    def _forget(self, key: Key) -> None:
        if memory := self._memories.pop(key, None):
            self._count_phase(memory.phase, -1)
            self._take(memory)
        self._seen.pop(key, None)
        self._announcements.forget(key)
        self._world.names.put(key, claim_of(self._world.resources.get(key)))

    async def _confirm(self, resource: Raw) -> None:
        """Raises Gone rather than letting children be made for a resource that was deleted unseen:
        Kubernetes would delete them and we would make them again, for ever."""
        metadata = resource["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        if time.monotonic() - self._seen.get(key, float("-inf")) < _FRESH_SECONDS:
            return
        try:
            answer = await self._kube.get(RESOURCE.path(key.namespace, key.name))
        except Refused as error:
            if error.status != 404:
                raise
            self._world.resources.forget(key, metadata["uid"])
            raise Gone(f"{key.namespace}/{key.name}") from error
        self.saw(key)
        self._world.resources.put(answer)
        now = self._world.resources.get(key)
        if now is None or now["metadata"]["uid"] != metadata["uid"]:
            raise Gone(f"{key.namespace}/{key.name}")


def _without_haste(plan: Plan, observed: Observed, memory: Memory) -> Plan:
    """The first status waits for the next look: one that is written with the first children would
    be overtaken at once, and delay the children of the resources that wait."""
    has_said = observed.resource.get("status") or observed.refused or memory.writes
    return plan if has_said or not plan.apply else replace(plan, status=None, events=())


def _with_pauses(plan: Plan, fights: Fights, now: float) -> Plan:
    """Without the children that others keep changing back, while their pause lasts."""
    due = fights.next_due(now)
    if due is None:
        return plan
    after = due if plan.requeue_after is None else min(due, plan.requeue_after)
    apply = tuple(body for body in plan.apply if fights.may_apply(body, now))
    return replace(plan, apply=apply, requeue_after=after)


def _refusals(attempt: Attempt) -> str:
    return "; ".join(f"{r.kind} {r.name}: {r.message}" for r in attempt.refused)
