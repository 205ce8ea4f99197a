"""Conflicts with other controllers: contested fields of an apply, and repeated reverts. Pure.

A field that was changed manually (kubectl edit, patch, scale) is overwritten at once. A field that
another applier declares (Argo CD, Flux, a second controller) is left to it and reported. A child
that is reverted or deleted repeatedly has another controller: two that overwrite each other at full
speed would write in a loop, so pauses grow until the spec changes. Time and randomness are passed
in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from autoglm.api.labels import FIELD_MANAGER
from autoglm.common.pacing import Backoff
from autoglm.operator.children.metadata import APPLIED, digest, identity
from autoglm.operator.types import Conflict, Raw
from autoglm.operator.writes.diff import is_within

FREE: Final = 3
"""Reverts that are overwritten at once."""
PAUSES: Final = Backoff(first=10.0, most=600.0)
_FORGET_SECONDS = 1800.0
_MOST_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Contested:
    """A field whose owner sets another value than the operator."""

    field: str
    manager: str
    is_manual: bool
    """It was changed by an update, not declared by another applier."""


def contested_fields(causes: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the fields that the causes of a 409 name as owned by others."""
    found = (c.get("field", "") for c in causes if c.get("reason") == "FieldManagerConflict")
    return tuple(dict.fromkeys(found))


def contested(fields: Iterable[str], live: Raw) -> tuple[Contested, ...]:
    """Return each field with its owner in `live`, by its managedFields: an applier before others.

    A field without an owner was released meanwhile, and counts as changed manually.
    """
    entries = live["metadata"].get("managedFields") or ()
    others = [entry for entry in entries if not _is_ours(entry)]
    others.sort(key=lambda entry: entry.get("operation") != "Apply")
    owners: dict[str, Mapping[str, Any]] = {}
    for entry in others:
        for path in _paths(entry.get("fieldsV1") or {}, ""):
            owners.setdefault(path, entry)
    found = ((field, owners.get(field, {})) for field in fields)
    return tuple(
        Contested(field, owner.get("manager", ""), owner.get("operation") != "Apply")
        for field, owner in found
    )


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"


def _paths(owned: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield the paths of fieldsV1, as the API server writes them in conflicts."""
    for key, below in owned.items():
        kind, _, rest = key.partition(":")
        match kind:
            case ".":
                yield path
                continue
            case "f":
                step = f".{rest}"
            case "k":
                step = f"[{_selector(json.loads(rest))}]"
            case "v":
                step = f"[={rest}]"
            case _:
                step = f"[{rest}]"
        if below:
            yield from _paths(below, path + step)
        else:
            yield path + step


def _selector(keys: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items())


@dataclass(frozen=True, slots=True)
class _LastApply:
    """The last apply of a child."""

    declaration: str
    times: int = 0
    """Repetitions of the same declaration."""
    at: float = 0.0
    pause: float = 0.0
    conflicts: tuple[Conflict, ...] = ()

    def remaining(self, now: float) -> float:
        """Return the seconds until it may be applied again."""
        return max(0.0, self.at + self.pause - now)


@dataclass(slots=True)
class Reverts:
    """The reverted children of one resource."""

    _applies: dict[tuple[str, str], _LastApply] = field(default_factory=dict)

    def applied(self, body: Raw, live: Raw | None, now: float, rng: Random) -> None:
        """Record that `body` was applied over `live`."""
        key, declaration = identity(body), _declaration(body)
        last = self._applies.get(key)
        if last is None or last.declaration != declaration:
            self._applies[key] = _LastApply(declaration)
            return
        times = last.times + 1 if now - last.at < _FORGET_SECONDS else 1
        pause = PAUSES.delay(times - FREE, rng) if times > FREE else 0.0
        conflicts = tuple(reverted_fields(body, live)) if pause else ()
        self._applies[key] = _LastApply(declaration, times, now, pause, conflicts)

    def may_apply(self, body: Raw, now: float) -> bool:
        """Return whether no pause delays `body`."""
        last = self._applies.get(identity(body))
        return last is None or last.declaration != _declaration(body) or not last.remaining(now)

    def conflicts(self, now: float) -> tuple[Conflict, ...]:
        """Return the fields that were reverted recently."""
        recent = (a for a in self._applies.values() if a.pause and now - a.at < 2 * a.pause)
        return tuple(conflict for apply in recent for conflict in apply.conflicts)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the next pause ends; None without a pause."""
        return min((s for a in self._applies.values() if (s := a.remaining(now))), default=None)


def _declaration(body: Raw) -> str:
    annotated = body["metadata"].get("annotations", {}).get(APPLIED)
    return str(annotated or digest(body))


def reverted_fields(body: Raw, live: Raw | None) -> Iterator[Conflict]:
    """Yield the fields of `body` that differ in `live`, with the managers that own them."""
    found: list[tuple[str, str]] = []
    for entry in (live or {}).get("metadata", {}).get("managedFields") or ():
        if not _is_ours(entry) and not entry.get("subresource"):
            paths = _differing(entry.get("fieldsV1") or {}, body, live, "")
            found += [(entry.get("manager", ""), path) for path in paths]
    for manager, path in found[:_MOST_FIELDS] or [("", "")]:
        yield Conflict(*identity(body), manager, path, is_reverted=True)


def _differing(owned: Mapping[str, Any], wanted: Any, live: Any, path: str) -> Iterator[str]:
    """Yield the owned paths below `path` that differ from `wanted`."""
    for key, below in owned.items():
        step = _step(key, wanted, live)
        if step is None:
            continue
        name, ours, theirs = step
        if below and set(below) != {"."}:
            yield from _differing(below, ours, theirs, path + name)
        elif not is_within(ours, theirs, key[2:]):
            yield path + name


def _step(key: str, wanted: Any, live: Any) -> tuple[str, Any, Any] | None:
    """Follow one key of fieldsV1 into both objects; None if `wanted` has no such field."""
    kind, _, rest = key.partition(":")
    if kind == "f" and isinstance(wanted, Mapping) and rest in wanted:
        return f".{rest}", wanted[rest], live.get(rest) if isinstance(live, Mapping) else None
    if kind == "k" and isinstance(wanted, list):
        keys = json.loads(rest)
        ours = _item(wanted, keys)
        return None if ours is None else (f"[{_selector(keys)}]", ours, _item(live, keys))
    return None


def _item(items: Any, keys: Mapping[str, Any]) -> Any:
    fitting: Iterable[Any] = items if isinstance(items, list) else ()
    return next((i for i in fitting if all(i.get(k) == v for k, v in keys.items())), None)
