"""Compares a child with its live object, to decide whether it has to be applied. Pure.

A child is applied if the live object lacks a declared field or has another value. The API server
adds defaults and other controllers add fields, so additional fields are ignored; keyed lists are
compared by key, quantities by value. A child is also applied if its declaration has changed, or a
field that is no longer declared would stay; an annotation holds the hash of the last declaration.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from autoglm.api.quantities import amount
from autoglm.operator.children.metadata import APPLIED, Body, digest, identity
from autoglm.operator.types import Conflict, Raw

_QUANTITIES: Final = frozenset({"averageValue", "sizeLimit"})
_QUANTITY_MAPS: Final = frozenset({"limits", "requests"})
# Fields that the API server omits if they are false; for others absent may mean true.
_ABSENT_WHEN_FALSE: Final = frozenset({"publishNotReadyAddresses"})
# The key fields of an item of Kubernetes' list-maps, by the field of the list.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "resourceClaims": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
}
_SELECTOR = re.compile(r"^\[((?:[^\]\"]|\"(?:[^\"\\]|\\.)*\")*)\]")


def with_hash(body: Body) -> Body:
    """Return the body with an annotation that holds its own hash."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations", {}) | {APPLIED: digest(body)}
    return body | {"metadata": metadata | {"annotations": annotations}}


def differs(desired: Raw, live: Raw | None, conflicts: Iterable[Conflict] = ()) -> bool:
    """Return whether `desired` has to be applied. Fields in `conflicts` are not compared."""
    if live is None:
        return True
    contested = [c.field for c in conflicts if (c.kind, c.name) == identity(desired)]
    wanted = without(desired, contested) if contested else desired
    return not is_within(wanted, live, "")


def current_conflicts(
    conflicts: Iterable[Conflict], wanted: Iterable[Body], live: Mapping[tuple[str, str], Raw]
) -> list[Conflict]:
    """Return the conflicts that still exist: the live object differs from the declaration."""
    bodies = {identity(body): body for body in wanted}
    return [
        c
        for c in conflicts
        if (key := (c.kind, c.name)) in bodies and differs(bodies[key], live.get(key))
    ]


def is_within(wanted: Any, live: Any, field: str) -> bool:
    """Return whether `live` has every field of `wanted`. `field` is the name of both."""
    # Exact types: objects are decoded JSON, and most of the time of a plan is spent here.
    if isinstance(wanted, dict):
        if not wanted:
            # The API server omits most empty values.
            return live is None or isinstance(live, dict)
        if not isinstance(live, dict):
            return False
        if field in _QUANTITY_MAPS:
            return all(amount(value) == amount(live.get(key)) for key, value in wanted.items())
        for key, value in wanted.items():
            # Most values are equal, which C finds faster.
            if value != (theirs := live.get(key)) and not is_within(value, theirs, key):
                return False
        return True
    if isinstance(wanted, list):
        if wanted == live:
            return True
        if not isinstance(live, list):
            return not wanted and live is None
        keys = key_fields(field, wanted)
        if keys is None:
            return len(wanted) == len(live) and all(
                is_within(ours, theirs, field) for ours, theirs in zip(wanted, live, strict=True)
            )
        items = {name_of(item, keys): item for item in live if isinstance(item, dict)}
        return all(is_within(item, items.get(name_of(item, keys)), "") for item in wanted)
    if wanted != live and field in _QUANTITIES:
        return live is not None and amount(wanted) == amount(live)
    if live is None:
        return wanted == "" or (wanted is False and field in _ABSENT_WHEN_FALSE)
    return bool(wanted == live)


def key_fields(field: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    """Return the key fields of a list; None for a list that is compared as one value."""
    if field == "ports":
        # Of a container or a Service; those of a NetworkPolicy are one value.
        first = next((k for k in ("containerPort", "targetPort") if _all_have(items, k)), None)
        number = {"containerPort": "containerPort", "targetPort": "port"}.get(first or "")
        return (number, "protocol") if number else None
    keys = _KEYS.get(field)
    return keys if keys and _all_have(items, keys[0]) else None


def _all_have(items: Sequence[Any], key: str) -> bool:
    return bool(items) and all(isinstance(i, dict) and key in i for i in items)


def name_of(item: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the key of an item as strings, since a user may have set values of any type."""
    return tuple(str(item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def without(body: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `body` without `fields`, which are paths as the API server writes them."""
    rest = copy.deepcopy(dict(body))
    for field in fields:
        _remove(rest, field)
    return rest


def _remove(value: Any, path: str) -> None:
    """Remove the field at `path` of a mapping or a list, if it has one."""
    key: Any = None
    if path.startswith(".") and isinstance(value, dict):
        # Keys may contain dots, so only the keys of the body show where one ends.
        path = path[1:]
        fitting = [k for k in value if path == k or (path.startswith(k) and path[len(k)] in ".[")]
        key = max(fitting, key=len, default=None)
        rest = path[len(key) :] if key is not None else ""
    elif (selector := _SELECTOR.match(path)) and isinstance(value, list):
        indices = (i for i, item in enumerate(value) if _is_selected(item, i, selector[1]))
        key = next(indices, None)
        rest = path[selector.end() :]
    if key is None:
        return
    if rest:
        _remove(value[key], rest)
    else:
        del value[key]


def _is_selected(item: Any, index: int, selector: str) -> bool:
    """Return whether `name="engine",port=80`, `="value"` or `3` selects an item of a list."""
    if selector.isdigit():
        return index == int(selector)
    wanted = json.loads("{" + re.sub(r"(^|,)(\w*)=", r'\1"\2":', selector) + "}")
    if "" in wanted:
        return bool(item == wanted[""])
    return isinstance(item, dict) and all(item.get(k) == v for k, v in wanted.items())
