"""Carries out a plan: server-side apply, deletes, status, events, in this order.

Decides only what a refusal means: a conflict with a change by hand is won, one with another applier
is given up field by field and reported, anything else is reported and fails the attempt after the
rest was done. Where pods depend on what was refused, nothing that could start a pod is written.
What the API server returns goes into the caches at once.
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
from autoglm.kube.key import Key
from autoglm.kube.kinds import EVENT, RESOURCE, child_kind
from autoglm.kube.transport import Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.observe import Attempt, World
from autoglm.operator.observed import Conflict, Plan, Raw, Ref, Refusal
from autoglm.operator.ownership.claims import ClaimedByAnother
from autoglm.operator.status.announcements import Announcements, Line
from autoglm.operator.writes.conflicts import contested, without
from autoglm.operator.writes.prerequisites import belongs_to_another, may_start_pods, withheld

_NOT_FOUND, _CONFLICT = 404, 409
# A version that nothing has: what is applied with it is created, or refused where it exists.
_OF_NO_OBJECT = "1"
_NOT_OURS = "it exists and is not of this resource; delete it, or rename the resource"
# Of events.k8s.io/v1, in bytes.
_LONGEST_NOTE = 1024
_log = logging.getLogger("autoglm.operator")


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan."""

    wrote: bool
    """Something is different now."""
    attempt: Attempt
    bodies: tuple[Raw, ...] = field(default=(), compare=False)
    """The children that were changed."""


@dataclass(frozen=True, slots=True)
class Applier:
    """`confirm` raises where a resource is gone; it is asked before anything is created for it."""

    kube: Kube
    world: World
    announcements: Announcements
    identity: str
    confirm: Callable[[Raw], Awaitable[None]]
    clock: Callable[[], float]
    """Seconds of the epoch."""
    rival: Callable[[Raw], str] = lambda _: ""
    """The Lease of another installation that claims by an object."""

    async def __call__(
        self, resource: Raw, plan: Plan, known: tuple[Conflict, ...] = ()
    ) -> Applied:
        """Raises Unreachable, NotLeading and ClaimedByAnother, which end the attempt there."""
        wrote = False
        # What is not tried again is as it was.
        tried = {(body["kind"], body["metadata"]["name"]) for body in plan.apply}
        conflicts = [c for c in known if (c.kind, c.name) not in tried]
        refused: list[Refusal] = []
        bodies: list[Raw] = []
        for body in plan.apply:
            if withheld(refused) and may_start_pods(body, self._live(body)):
                continue
            try:
                new, contests = await self._apply(resource, body)
                wrote |= new
                conflicts += contests
                bodies += [body] if new else []
            except Refused as error:
                refused.append(Refusal(body["kind"], body["metadata"]["name"], error.message))
        # Never take away the old where the new was refused.
        for ref in plan.delete if not refused else ():
            wrote |= await self._delete(ref)
        wrote |= await self._tell(resource, plan)
        return Applied(wrote, Attempt(tuple(conflicts), tuple(refused)), tuple(bodies))

    def _live(self, body: Raw) -> Raw | None:
        metadata = body["metadata"]
        kind = child_kind(body["apiVersion"], body["kind"])
        return self.world.children[kind].get(Key(metadata["namespace"], metadata["name"]))

    async def _tell(self, resource: Raw, plan: Plan) -> bool:
        refusal: Refused | None = None
        wrote = False
        try:
            wrote = plan.status is not None and await self._status(resource, plan.status)
        except Refused as error:
            # A resource may be too large to take a status; events can tell all the same.
            refusal = error
        for event in plan.events:
            await self.announce(resource, event)
        if refusal is not None:
            raise refusal
        return wrote

    async def _apply(self, resource: Raw, body: Raw) -> tuple[bool, list[Conflict]]:
        kind = child_kind(body["apiVersion"], body["kind"])
        name, cache = body["metadata"]["name"], self.world.children[kind]
        namespace = body["metadata"]["namespace"]
        path, before = kind.path(namespace, name), cache.version(Key(namespace, name))
        if not before:
            await self.confirm(resource)
            if made := await self._create(path, body):
                return cache.took(made, before), []
            await self._refuse_stranger(resource, path)
        elif (live := self._live(body)) and belongs_to_another(live, resource):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OURS)
        try:
            return cache.took(await self.kube.apply(path, body), before), []
        except Refused as error:
            fields = contested(error.causes) if error.status == _CONFLICT else ()
            if not fields:
                raise
        declared = [f for f in fields if not f.by_hand]
        answer = await self.kube.apply(path, without(body, (f.field for f in declared)), force=True)
        conflicts = [Conflict(kind.kind, name, f.manager, f.field) for f in declared]
        return cache.took(answer, before), conflicts

    async def _create(self, path: str, body: Raw) -> bytes | None:
        """None where an object has the name: one that the watch has yet to tell of, or not ours."""
        metadata = body["metadata"] | {"resourceVersion": _OF_NO_OBJECT}
        try:
            return await self.kube.apply(path, {**body, "metadata": metadata})
        except Refused as error:
            if error.status != _CONFLICT:
                raise
            return None

    async def _refuse_stranger(self, resource: Raw, path: str) -> None:
        """Raises Refused where an object that nobody made for the resource has the child's name:
        taking it over would break whoever uses it, and delete it with the resource."""
        try:
            found = msgspec.json.decode(await self.kube.get(path))
        except Refused as error:
            if error.status != _NOT_FOUND:
                raise
            return
        owners = found["metadata"].get("ownerReferences", ())
        if not any(owner["uid"] == resource["metadata"]["uid"] for owner in owners):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OURS)
        if rival := self.rival(found):
            raise ClaimedByAnother(rival)

    async def _delete(self, ref: Ref) -> bool:
        kind = child_kind(ref.api_version, ref.kind)
        try:
            await self.kube.delete(kind.path(ref.namespace, ref.name), ref.uid)
        except Refused as error:
            # Gone already, or another object by now: the watch will tell.
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise
            return False
        self.world.children[kind].forget(Key(ref.namespace, ref.name), ref.uid)
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
        answer = await self.kube.apply(path, body, force=True)
        return self.world.resources.took(answer, int(metadata["resourceVersion"]))

    async def announce(self, resource: Raw, event: Any) -> None:
        """Events help people; a reconcile does not fail for want of them."""
        metadata, now = resource["metadata"], self.clock()
        key = Key(metadata["namespace"], metadata["name"])
        line = self.announcements.line(key, metadata["uid"], event, now)
        if line is None:
            return
        try:
            await self._write_event(resource, line, now)
        except (Refused, Unreachable) as error:
            fields = {"resource": f"{key.namespace}/{key.name}", "error": str(error)}
            _log.warning("an event was not written", extra={"fields": fields})

    async def _write_event(self, resource: Raw, line: Line, now: float) -> None:
        namespace, moment = resource["metadata"]["namespace"], _micro_time(now)
        if line.count == 1:
            body = event_body(resource, line, moment, self.identity)
            await self.kube.create(EVENT.path(namespace), body)
            return
        series = {"series": {"count": line.count, "lastObservedTime": moment}}
        await self.kube.merge(EVENT.path(namespace, line.name), series)


def event_body(resource: Raw, line: Line, moment: str, identity: str) -> dict[str, Any]:
    """An events.k8s.io/v1 Event."""
    metadata = resource["metadata"]
    regarding = {k: metadata[k] for k in ("name", "namespace", "uid")}
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": line.name, "namespace": metadata["namespace"]},
        "eventTime": moment,
        "reportingController": f"autoglm.io/{FIELD_MANAGER}",
        "reportingInstance": identity,
        "action": "Reconcile",
        "regarding": {"apiVersion": API_VERSION, "kind": KIND} | regarding,
        "type": line.event.type,
        "reason": line.event.reason,
        "note": line.event.message.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
    }


def _micro_time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
