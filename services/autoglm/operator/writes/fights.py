"""Children that something else keeps changing back: how often they are set again, and who does it.

Pure: time and chance are passed in. A change by hand is taken back at once. What is changed back
again and again, or deleted, is another controller's work; two controllers that correct each other
at full speed would write for ever, so the pauses grow. A new declaration (the spec was changed) is
applied at once. The other's name and fields are read from managedFields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from autoglm.api.labels import FIELD_MANAGER
from autoglm.common.backoff import Backoff
from autoglm.operator.children.deployment import APPLIED
from autoglm.operator.observed import Conflict, Raw
from autoglm.operator.revision import digest
from autoglm.operator.writes.diff import is_within

FREE: Final = 3
"""Times that a change is taken back at once."""
PAUSES: Final = Backoff(first=10.0, most=600.0)
_FORGOTTEN_SECONDS = 1800.0
_MOST_FIELDS = 5
Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Declared:
    """A child as it was applied last."""

    declaration: str
    times: int = 0
    """How often the same declaration was applied again."""
    last: float = 0.0
    pause: float = 0.0
    rivals: tuple[Conflict, ...] = ()

    def left(self, now: float) -> float:
        """Seconds until it may be applied again."""
        return max(0.0, self.last + self.pause - now)


@dataclass(slots=True)
class Fights:
    """Of one resource."""

    _declared: dict[Identity, _Declared] = field(default_factory=dict)

    def applied(self, body: Raw, live: Raw | None, now: float, rng: Random) -> None:
        """Note that `body` was applied, where `live` was before."""
        key, declaration = _identity(body), _declaration(body)
        known = self._declared.get(key)
        if known is None or known.declaration != declaration:
            self._declared[key] = _Declared(declaration)
            return
        times = known.times + 1 if now - known.last < _FORGOTTEN_SECONDS else 1
        pause = PAUSES.delay(times - FREE, rng) if times > FREE else 0.0
        rivals = tuple(rivals_of(body, live)) if pause else ()
        self._declared[key] = _Declared(declaration, times, now, pause, rivals)

    def may_apply(self, body: Raw, now: float) -> bool:
        """Whether `body` need not wait for the end of a pause."""
        known = self._declared.get(_identity(body))
        return known is None or known.declaration != _declaration(body) or not known.left(now)

    def rivals(self, now: float) -> tuple[Conflict, ...]:
        """What is changed back by others, as far as it is not settled."""
        fought = (d for d in self._declared.values() if d.pause and now - d.last < 2 * d.pause)
        return tuple(conflict for declared in fought for conflict in declared.rivals)

    def next_due(self, now: float) -> float | None:
        """Seconds until a pause ends; None where there is none."""
        return min((left for d in self._declared.values() if (left := d.left(now))), default=None)


def rivals_of(body: Raw, live: Raw | None) -> Iterator[Conflict]:
    """The fields of `body` that others have set otherwise, with the managers that own them."""
    kind, name = _identity(body)
    found = list(_fields_of_others(body, live or {}))[:_MOST_FIELDS]
    for manager, path in found or [("", "")]:
        yield Conflict(kind, name, manager, path, is_fought=True)


def _fields_of_others(body: Raw, live: Raw) -> Iterator[tuple[str, str]]:
    for entry in live.get("metadata", {}).get("managedFields") or ():
        is_ours = entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        if not is_ours and not entry.get("subresource"):
            for path in _differing(entry.get("fieldsV1") or {}, body, live, ""):
                yield entry.get("manager", ""), path


def _differing(owned: Mapping[str, Any], wanted: Any, live: Any, path: str) -> Iterator[str]:
    """The paths below `path` that are owned and not as wanted, as the API server writes them."""
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
    """Follow one key of fieldsV1 into both objects; None where we want nothing there."""
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


def _identity(body: Raw) -> Identity:
    return body["kind"], body["metadata"]["name"]


def _declaration(body: Raw) -> str:
    sealed = body["metadata"].get("annotations", {}).get(APPLIED)
    return str(sealed or digest(body))
