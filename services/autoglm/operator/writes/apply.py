"""Carries out a plan: server-side apply, deletes, status, events, in this order.

A conflict with a manual change is forced; fields that another applier declares are left out and
reported; any other rejection is reported, and fails the reconcile after the remaining writes. Where
pods depend on a rejected child, nothing that could start a pod is written. Responses of the API
server are cached at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import DEPLOYMENT
from autoglm.kube.kinds import RESOURCE, Key, child_kind
from autoglm.kube.transport import Refused
from autoglm.kube.verbs import Kube
from autoglm.operator.children.metadata import identity
from autoglm.operator.observe import ApplyFailures, Caches
from autoglm.operator.ownership.claims import ClaimedByAnother, Installation
from autoglm.operator.types import Conflict, Plan, Raw, Ref, Rejection
from autoglm.operator.writes.conflicts import contested, contested_fields
from autoglm.operator.writes.diff import without
from autoglm.operator.writes.events import EventRecorder

_CONFLICT = 409
# A version that no object has: applied with it, an object is created, or rejected if it exists.
_NO_OBJECT_VERSION = "1"
_NOT_OWNED = "it exists and does not belong to this resource; delete it, or rename the resource"


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of a plan."""

    wrote: bool
    """An object was changed."""
    failures: ApplyFailures
    bodies: tuple[Raw, ...] = field(default=(), compare=False)
    """Bodies of the children that were changed."""


@dataclass(frozen=True, slots=True)
class Applier:
    """Carries out plans. Awaits `confirm` before it creates a child; it raises if the resource was
    deleted."""

    kube: Kube
    caches: Caches
    events: EventRecorder
    confirm: Callable[[Raw], Awaitable[None]]
    mine: Installation

    async def __call__(
        self, resource: Raw, plan: Plan, known: tuple[Conflict, ...] = ()
    ) -> Applied:
        """Write a plan. `known` are conflicts of the last reconcile.

        Raises Unreachable, NotLeading and ClaimedByAnother, which end it at that write; Refused if
        the status was rejected.
        """
        wrote = False
        # Conflicts of children that are not applied now are kept.
        applied = set(map(identity, plan.apply))
        conflicts = [c for c in known if (c.kind, c.name) not in applied]
        rejected: list[Rejection] = []
        bodies: list[Raw] = []
        for body in plan.apply:
            is_blocked = any(rejection.blocks_pods for rejection in rejected)
            if is_blocked and _may_start_pods(body, self._live(body)):
                continue
            try:
                changed, left_out = await self._apply(resource, body)
                wrote |= changed
                conflicts += left_out
                bodies += [body] if changed else []
            except Refused as error:
                rejected.append(Rejection(*identity(body), error.message))
        # Old children are not deleted while a new one is rejected.
        for ref in plan.delete if not rejected else ():
            wrote |= await self._delete(ref)
        rejected_status: Refused | None = None
        try:
            wrote |= plan.status is not None and await self._status(resource, plan.status)
        except Refused as error:
            # A resource may be too large for a status; events are written all the same.
            rejected_status = error
        for event in plan.events:
            await self.events.record(resource, event)
        if rejected_status is not None:
            raise rejected_status
        return Applied(wrote, ApplyFailures(tuple(conflicts), tuple(rejected)), tuple(bodies))

    def _live(self, body: Raw) -> Raw | None:
        metadata = body["metadata"]
        kind = child_kind(body["apiVersion"], body["kind"])
        return self.caches.children[kind].get(Key(metadata["namespace"], metadata["name"]))

    async def _apply(self, resource: Raw, body: Raw) -> tuple[bool, list[Conflict]]:
        """Apply a child; return whether it has changed, and the fields that were left out. Who owns
        a field that conflicts is read from the object, not from the text of the error."""
        kind = child_kind(body["apiVersion"], body["kind"])
        name, cache = body["metadata"]["name"], self.caches.children[kind]
        namespace = body["metadata"]["namespace"]
        path, before = kind.path(namespace, name), cache.version(Key(namespace, name))
        if not before:
            await self.confirm(resource)
            try:
                metadata = body["metadata"] | {"resourceVersion": _NO_OBJECT_VERSION}
                created = await self.kube.apply(path, {**body, "metadata": metadata})
                return cache.put_response(created, before), []
            except Refused as error:
                if not error.is_conflict:
                    raise
            # It exists: the watch has not delivered it yet, or it belongs to another owner.
            await self._check_ownership(resource, path)
        elif (live := self._live(body)) and _belongs_to_another(live, resource):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OWNED)
        try:
            return cache.put_response(await self.kube.apply(path, body), before), []
        except Refused as error:
            fields = contested_fields(error.causes) if error.is_conflict else ()
            if not fields:
                raise
        # Not the cached object: the watch may not have delivered the change yet.
        found = contested(fields, msgspec.json.decode(await self.kube.get(path)))
        declared = [f for f in found if not f.is_manual]
        rest = without(body, (f.field for f in declared))
        response = await self.kube.apply(path, rest, force=True)
        conflicts = [Conflict(kind.kind, name, f.manager, f.field) for f in declared]
        return cache.put_response(response, before), conflicts

    async def _check_ownership(self, resource: Raw, path: str) -> None:
        """Raise Refused if an object that the resource does not own has the child's name: adopting
        it would break its users, and delete it with the resource. Raise ClaimedByAnother if
        another installation created it."""
        try:
            found = msgspec.json.decode(await self.kube.get(path))
        except Refused as error:
            if not error.is_not_found:
                raise
            return
        owners = found["metadata"].get("ownerReferences", ())
        if not any(owner["uid"] == resource["metadata"]["uid"] for owner in owners):
            raise Refused(_CONFLICT, "AlreadyExists", _NOT_OWNED)
        if lease := self.mine.other_claim(resource["metadata"]["name"], [found]):
            raise ClaimedByAnother(lease)

    async def _delete(self, ref: Ref) -> bool:
        kind = child_kind(ref.api_version, ref.kind)
        try:
            await self.kube.delete(kind.path(ref.namespace, ref.name), ref.uid)
        except Refused as error:
            # Deleted already, or replaced by another object, which the watch will deliver.
            if not (error.is_not_found or error.is_conflict):
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


def _may_start_pods(body: Raw, live: Raw | None) -> bool:
    """Return whether applying `body` to `live` can create a pod: new, scaled up, or with another
    pod template."""
    if body["kind"] == "Job":
        return live is None
    if body["kind"] != "Deployment":
        return False
    if live is None or body["spec"]["replicas"] > live["spec"].get("replicas", 1):
        return True
    return bool(_template(body) != _template(live))


def _template(deployment: Raw) -> Mapping[str, Any]:
    template = deployment["spec"]["template"]
    kept = {k: v for k, v in template["metadata"].items() if k != "creationTimestamp"}
    return {**template, "metadata": kept}


def _belongs_to_another(child: Raw, resource: Raw) -> bool:
    """Return whether another controller owns the object, or its label names another resource. An
    object of an earlier resource of the same name is adopted."""
    metadata, name = child["metadata"], resource["metadata"]["name"]
    if (metadata.get("labels") or {}).get(DEPLOYMENT) != name:
        return True
    owners = metadata.get("ownerReferences") or ()
    return any(o.get("controller") and (o["kind"], o["name"]) != (KIND, name) for o in owners)
