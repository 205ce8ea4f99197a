"""Detects children that another controller keeps reverting, and backs off from applying them.

Pure: time and randomness are passed in. A manual change is overwritten at once. A child that is
reverted or deleted repeatedly has another controller; two controllers that overwrite each other
at full speed would write in a loop, so the pauses grow. A new declaration (the spec was changed) is
applied at once. Manager and fields of the other controller are read from managedFields.
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
from autoglm.operator.observed import Conflict, Raw
from autoglm.operator.writes.diff import is_within

FREE: Final = 3
"""Reverts that are overwritten at once."""
PAUSES: Final = Backoff(first=10.0, most=600.0)
_FORGOTTEN_SECONDS = 1800.0
_MOST_FIELDS = 5
Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Declared:
    """The last apply of a child."""

    declaration: str
    times: int = 0
    """How many times the same declaration was applied again."""
    last: float = 0.0
    pause: float = 0.0
    conflicts: tuple[Conflict, ...] = ()

    def left(self, now: float) -> float:
        """Return the seconds until it may be applied again."""
        return max(0.0, self.last + self.pause - now)


@dataclass(slots=True)
class Reverts:
    """The reverted children of one resource."""

    _declared: dict[Identity, _Declared] = field(default_factory=dict)

    def applied(self, body: Raw, live: Raw | None, now: float, rng: Random) -> None:
        """Record that `body` was applied over `live`."""
        key, declaration = identity(body), _declaration(body)
        known = self._declared.get(key)
        if known is None or known.declaration != declaration:
            self._declared[key] = _Declared(declaration)
            return
        times = known.times + 1 if now - known.last < _FORGOTTEN_SECONDS else 1
        pause = PAUSES.delay(times - FREE, rng) if times > FREE else 0.0
        conflicts = tuple(reverted_fields(body, live)) if pause else ()
        self._declared[key] = _Declared(declaration, times, now, pause, conflicts)

    def may_apply(self, body: Raw, now: float) -> bool:
        """Return whether no pause delays `body`."""
        known = self._declared.get(identity(body))
        return known is None or known.declaration != _declaration(body) or not known.left(now)

    def conflicts(self, now: float) -> tuple[Conflict, ...]:
        """Return the fields that were reverted recently."""
        recent = (d for d in self._declared.values() if d.pause and now - d.last < 2 * d.pause)
        return tuple(conflict for declared in recent for conflict in declared.conflicts)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until the next pause ends; None without a pause."""
        return min((left for d in self._declared.values() if (left := d.left(now))), default=None)


def reverted_fields(body: Raw, live: Raw | None) -> Iterator[Conflict]:
    """Yield the fields of `body` that differ in `live`, with the managers that own them."""
    kind, name = identity(body)
    found = list(_fields_of_other_managers(body, live or {}))[:_MOST_FIELDS]
    for manager, path in found or [("", "")]:
        yield Conflict(kind, name, manager, path, is_reverted=True)


def _fields_of_other_managers(body: Raw, live: Raw) -> Iterator[tuple[str, str]]:
    for entry in live.get("metadata", {}).get("managedFields") or ():
        is_operator = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        if not is_operator and not entry.get("subresource"):
            for path in _differing(entry.get("fieldsV1") or {}, body, live, ""):
                yield entry.get("manager", ""), path


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
        selector = ",".join(f"{name}={json.dumps(value)}" for name, value in keys.items())
        return None if ours is None else (f"[{selector}]", ours, _item(live, keys))
    return None


def _item(items: Any, keys: Mapping[str, Any]) -> Any:
    fitting: Iterable[Any] = items if isinstance(items, list) else ()
    return next((i for i in fitting if all(i.get(k) == v for k, v in keys.items())), None)


def _declaration(body: Raw) -> str:
    sealed = body["metadata"].get("annotations", {}).get(APPLIED)
    return str(sealed or digest(body))
