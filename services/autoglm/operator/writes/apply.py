"""Carries out a plan: server-side apply, deletes, status, events, in this order.

A conflict with a manual change is forced; fields that another applier declares are left out and
reported; any other rejection is reported, and fails the reconcile after the remaining writes. Where
pods depend on a rejected child, nothing that could start a pod is written. Responses of the API
server are cached at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import FIELD_MANAGER
from autoglm.kube.kinds import EVENT, RESOURCE, Key, child_kind
from autoglm.kube.transport import Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.observe import ApplyFailures, Caches
from autoglm.operator.observed import Conflict, Event, Plan, Raw, Ref, Rejection
from autoglm.operator.ownership.claims import ClaimedByAnother
from autoglm.operator.status.event_correlator import EventCorrelator, EventUpdate
from autoglm.operator.writes.conflicts import contested, without
from autoglm.operator.writes.prerequisites import belongs_to_another, blocking, may_start_pods

_NOT_FOUND, _CONFLICT = 404, 409
# A version that no object has: applied with it, an object is created, or rejected if it exists.
_NO_OBJECT_VERSION = "1"
_NOT_OWNED = "it exists and does not belong to this resource; delete it, or rename the resource"
# The limit of events.k8s.io/v1, in bytes.
_LONGEST_NOTE = 1024
_log = logging.getLogger("autoglm.operator")


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of a plan."""

    wrote: bool
    """Whether an object was changed."""
    failures: ApplyFailures
    bodies: tuple[Raw, ...] = field(default=(), compare=False)
    """Bodies of the children that were changed."""


@dataclass(frozen=True, slots=True)
class Applier:
    """Carries out plans. Awaits `confirm` before it creates a child; it raises if the resource was
    deleted."""

    kube: Kube
    caches: Caches
    events: EventCorrelator
    identity: str
    confirm: Callable[[Raw], Awaitable[None]]
    clock: Callable[[], float]
    """Returns seconds since the epoch."""
    rival: Callable[[Raw], str] = lambda _: ""
    """Returns the Lease of another installation whose claim an object carries."""

    async def __call__(
        self, resource: Raw, plan: Plan, known: tuple[Conflict, ...] = ()
    ) -> Applied:
        """Write a plan. `known` are conflicts of the last reconcile.

        Raises Unreachable, NotLeading and ClaimedByAnother, which end it at that write.
        """
        wrote = False
        # Conflicts of children that are not applied now are kept.
        applied = {(body["kind"], body["metadata"]["name"]) for body in plan.apply}
        conflicts = [c for c in known if (c.kind, c.name) not in applied]
        rejected: list[Rejection] = []
        bodies: list[Raw] = []
        for body in plan.apply:
            if blocking(rejected) and may_start_pods(body, self._live(body)):
                continue
            try:
                changed, contested_fields = await self._apply(resource, body)
                wrote |= changed
                conflicts += contested_fields
                bodies += [body] if changed else []
            except Refused as error:
                rejected.append(Rejection(body["kind"], body["metadata"]["name"], error.message))
        # Old children are not deleted while a new one is rejected.
        for ref in plan.delete if not rejected else ():
            wrote |= await self._delete(ref)
        wrote |= await self._report(resource, plan)
        return Applied(wrote, ApplyFailures(tuple(conflicts), tuple(rejected)), tuple(bodies))

    def _live(self, body: Raw) -> Raw | None:
        metadata = body["metadata"]
        kind = child_kind(body["apiVersion"], body["kind"])
        return self.caches.children[kind].get(Key(metadata["namespace"], metadata["name"]))

    async def _report(self, resource: Raw, plan: Plan) -> bool:
        rejection: Refused | None = None
        wrote = False
        try:
            wrote = plan.status is not None and await self._status(resource, plan.status)
        except Refused as error:
            # A resource may be too large for a status; events are written all the same.
            rejection = error
        for event in plan.events:
            await self.record_event(resource, event)
        if rejection is not None:
            raise rejection
        return wrote

    async def _apply(self, resource: Raw, body: Raw) -> tuple[bool, list[Conflict]]:
        kind = child_kind(body["apiVersion"], body["kind"])
        name, cache = body["metadata"]["name"], self.caches.children[kind]
        namespace = body["metadata"]["namespace"]
        path, before = kind.path(namespace, name), cache.version(Key(namespace, name))
        if not before:
            await self.confirm(resource)
            if created := await self._create(path, body):
                return cache.put_response(created, before), []
            await self._check_ownership(resource, path)
        elif (live := self._live(body)) and belongs_to_another(live, resource):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OWNED)
        try:
            return cache.put_response(await self.kube.apply(path, body), before), []
        except Refused as error:
            fields = contested(error.causes) if error.status == _CONFLICT else ()
            if not fields:
                raise
        declared = [f for f in fields if not f.by_hand]
        rest = without(body, (f.field for f in declared))
        response = await self.kube.apply(path, rest, force=True)
        conflicts = [Conflict(kind.kind, name, f.manager, f.field) for f in declared]
        return cache.put_response(response, before), conflicts

    async def _create(self, path: str, body: Raw) -> bytes | None:
        """Create an object; return None if one of that name exists: one that the watch has not
        delivered yet, or one that belongs to another owner."""
        metadata = body["metadata"] | {"resourceVersion": _NO_OBJECT_VERSION}
        try:
            return await self.kube.apply(path, {**body, "metadata": metadata})
        except Refused as error:
            if error.status != _CONFLICT:
                raise
            return None

    async def _check_ownership(self, resource: Raw, path: str) -> None:
        """Raises Refused if an object that the resource does not own has the child's name: adopting
        it would break its users, and delete it with the resource. Raises ClaimedByAnother if
        another installation created it."""
        try:
            found = msgspec.json.decode(await self.kube.get(path))
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            return
        owners = found["metadata"].get("ownerReferences", ())
        if not any(owner["uid"] == resource["metadata"]["uid"] for owner in owners):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OWNED)
        if rival := self.rival(found):
            raise ClaimedByAnother(rival)

    async def _delete(self, ref: Ref) -> bool:
        kind = child_kind(ref.api_version, ref.kind)
        try:
            await self.kube.delete(kind.path(ref.namespace, ref.name), ref.uid)
        except Refused as error:
            # Deleted already, or replaced by another object, which the watch will deliver.
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise
            return False
        self.caches.children[kind].forget(Key(ref.namespace, ref.name), ref.uid)
        return True

    async def _status(self, resource: Raw, status: Raw) -> bool:
        metadata = resource["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {k: metadata[k] for k in ("name", "namespace")},
            "status": status,
        }
        path = RESOURCE.path(metadata["namespace"], metadata["name"], "status")
        response = await self.kube.apply(path, body, force=True)
        return self.caches.resources.put_response(response, int(metadata["resourceVersion"]))

    async def record_event(self, resource: Raw, event: Event) -> None:
        """Write an event; errors are logged only, since a reconcile does not depend on events."""
        metadata, now = resource["metadata"], self.clock()
        key = Key(metadata["namespace"], metadata["name"])
        update = self.events.correlate(key, metadata["uid"], event, now)
        if update is None:
            return
        try:
            await self._write_event(resource, update, now)
        except (Refused, Unreachable) as error:
            fields = {"resource": str(key), "error": str(error)}
            _log.warning("cannot write an event", extra={"fields": fields})

    async def _write_event(self, resource: Raw, update: EventUpdate, now: float) -> None:
        namespace, moment = resource["metadata"]["namespace"], _micro_time(now)
        if update.count == 1:
            body = event_body(resource, update, moment, self.identity)
            await self.kube.create(EVENT.path(namespace), body)
            return
        series = {"series": {"count": update.count, "lastObservedTime": moment}}
        await self.kube.merge(EVENT.path(namespace, update.name), series)


def event_body(resource: Raw, update: EventUpdate, moment: str, identity: str) -> dict[str, Any]:
    """Return an events.k8s.io/v1 Event."""
    metadata = resource["metadata"]
    regarding = {k: metadata[k] for k in ("name", "namespace", "uid")}
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": update.name, "namespace": metadata["namespace"]},
        "eventTime": moment,
        "reportingController": f"autoglm.io/{FIELD_MANAGER}",
        "reportingInstance": identity,
        "action": "Reconcile",
        "regarding": {"apiVersion": API_VERSION, "kind": KIND} | regarding,
        "type": update.event.type,
        "reason": update.event.reason,
        "note": update.event.message.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
    }


def _micro_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
