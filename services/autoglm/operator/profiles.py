"""Chooses the profile of a resource, and indexes the resources that name one. No I/O.

The profile in effect is recorded in the status with the last valid spec: a resource keeps it while
it waits for its turn (`rollout`), and while the profile is missing or invalid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from autoglm.api import InvalidSpec, Problem
from autoglm.api.profile import PROFILE_KIND, PROFILE_PLURAL, parse_profile
from autoglm.api.rules import at
from autoglm.api.spec.profile import ProfileSpec
from autoglm.kube.kinds import Key
from autoglm.operator.children.metadata import digest
from autoglm.operator.rollout import ProfileUser, next_in_turn, waits
from autoglm.operator.types import ObservedObjects, Raw

_FIELD: Final = "spec.profile.name"
# Reasons of Ready for which a resource cannot take a changed profile.
INVALID_SPEC: Final = "InvalidSpec"
PROFILE_NOT_FOUND: Final = "ProfileNotFound"


class ProfileNotFound(InvalidSpec):
    """Raised where the profile of a resource does not exist or cannot be used."""


@dataclass(frozen=True, slots=True)
class ChosenProfile:
    """The profile that a resource gets now."""

    name: str
    text: str
    """JSON of name and spec, as the status records it."""
    spec: ProfileSpec
    waits: bool = False
    """The profile has changed, and it is not this resource's turn."""


def chosen(observed: ObservedObjects) -> ChosenProfile | None:
    """Return the profile of a resource; None if it names none. Raises ProfileNotFound."""
    name = at(observed.resource, _FIELD)
    if not isinstance(name, str):
        return None
    current = _current(name, observed)
    own = user_of(observed.resource)
    earlier = in_effect(observed.resource)
    if own and earlier and waits(own, observed.profile_users, digest(current.text)):
        return ChosenProfile(earlier.name, earlier.text, earlier.spec, waits=True)
    return current


def in_effect(resource: Raw) -> ChosenProfile | None:
    """Return the profile that the status records; None without one."""
    text = at(resource, "status.lastValid.profile")
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]) if isinstance(text, str) else {}
        spec = ProfileSpec.model_validate_json(json.dumps(found["spec"]))
    except (msgspec.MsgspecError, KeyError, ValueError):
        return None
    return ChosenProfile(str(found.get("name", "")), text, spec)


def _current(name: str, observed: ObservedObjects) -> ChosenProfile:
    if observed.profile is None:
        if why := observed.unavailable_kinds.get(PROFILE_KIND):
            message = f"the operator cannot list {PROFILE_PLURAL}: {why}"
        elif PROFILE_KIND not in observed.optional_kinds:
            message = f"{PROFILE_PLURAL} are not installed; `kubectl apply -k deploy/crds` does it"
        else:
            message = (
                f"no {PROFILE_KIND} has this name; create it, or choose one of `kubectl get "
                f"{PROFILE_PLURAL}`"
            )
        raise ProfileNotFound([Problem(_FIELD, message, name)])
    try:
        return read(observed.profile)
    except InvalidSpec as error:
        message = f"the {PROFILE_KIND} is invalid; correct it: {error}"
        raise ProfileNotFound([Problem(_FIELD, message, name)]) from error


def read(profile: Raw) -> ChosenProfile:
    """Return a profile as the API server has it. Raises InvalidSpec."""
    fields = ("apiVersion", "kind", "metadata", "spec")
    parsed = parse_profile({field: profile[field] for field in fields if field in profile})
    plain = parsed.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    name = parsed.metadata.name
    text = msgspec.json.encode({"name": name, "spec": plain}, order="deterministic").decode()
    return ChosenProfile(name, text, parsed.spec)


def user_of(resource: Raw | None) -> ProfileUser | None:
    """Return the turn-relevant state of a resource that names a profile; None for any other."""
    name = at(resource, _FIELD)
    if resource is None or not isinstance(name, str) or "deletionTimestamp" in resource["metadata"]:
        return None
    status: Mapping[str, Any] = resource.get("status") or {}
    text, metadata = at(status, "lastValid.profile"), resource["metadata"]
    ready: Mapping[str, Any] = next(
        (c for c in status.get("conditions") or () if c.get("type") == "Ready"), {}
    )
    can_follow = ready.get("reason") not in (INVALID_SPEC, PROFILE_NOT_FOUND)
    return ProfileUser(
        resource=f"{metadata['namespace']}/{metadata['name']}",
        profile=name,
        in_effect=digest(text) if isinstance(text, str) and _is_of(text, name) else "",
        serves=bool(status.get("readyReplicas")) and can_follow,
        is_replacing=len(status.get("revisions") or ()) > 1,
    )


def _is_of(text: str, name: str) -> bool:
    try:
        return bool(msgspec.json.decode(text)["name"] == name)
    except (msgspec.MsgspecError, KeyError, TypeError):
        return False


@dataclass(slots=True)
class ProfileIndex:
    """The resources that name a profile."""

    _users: dict[Key, ProfileUser] = field(default_factory=dict)
    _by_profile: dict[str, dict[Key, ProfileUser]] = field(default_factory=dict)

    def put(self, key: Key, user: ProfileUser | None) -> set[str]:
        """Replace the state of a resource, None if it names no profile; return the profiles whose
        users may have another turn now."""
        before = self._users.pop(key, None)
        if before is not None:
            users = self._by_profile[before.profile]
            del users[key]
            if not users:
                del self._by_profile[before.profile]
        if user is not None:
            self._users[key] = user
            self._by_profile.setdefault(user.profile, {})[key] = user
        return set() if user == before else {u.profile for u in (before, user) if u}

    def keys(self, profile: str) -> set[Key]:
        """Return the resources that name a profile."""
        return set(self._by_profile.get(profile, ()))

    def users(self, profile: str) -> tuple[ProfileUser, ...]:
        """Return their states."""
        return tuple(self._by_profile.get(profile, {}).values())

    def next_key(self, profile: Raw | None) -> Key | None:
        """Return the resource whose turn it is to take a changed profile; None for none."""
        try:
            found = read(profile) if profile else None
        except InvalidSpec:
            return None
        if found is None:
            return None
        users = self._by_profile.get(found.name, {})
        following = next_in_turn(users.values(), digest(found.text))
        return next((key for key, user in users.items() if user is following), None)
