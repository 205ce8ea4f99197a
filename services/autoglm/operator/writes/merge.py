"""Keys of Kubernetes' list-maps, and merges by them. Pure.

`template` merges a user's overrides, `diff` compares children with live objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

# The key fields of an item, by the field of the list.
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
# Items that hold one of several types of content; two merged types would be invalid.
_REPLACED_WHOLE: Final = frozenset({"volumes", "env", "volumeMounts", "topologySpreadConstraints"})
# A probe or a lifecycle hook has exactly one.
_HANDLERS: Final = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})


def key_fields(field: str, items: Sequence[Any]) -> tuple[str, ...] | None:
    """Return the key fields of a list; None for a list that is compared as one value."""
    if field == "ports":
        # Of a container or a Service; those of a NetworkPolicy are one value.
        first = next((k for k in ("containerPort", "targetPort") if _all_have(items, k)), None)
        number = {"containerPort": "containerPort", "targetPort": "port"}.get(first or "")
        return (number, "protocol") if number else None
    keys = _KEYS.get(field)
    return keys if keys and _all_have(items, keys[0]) else None


def name_of(item: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, ...]:
    """Return the key of an item as strings, since a user may have set values of any type."""
    return tuple(str(item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def merged(ours: Any, theirs: Any, field: str = "") -> Any:
    """Return `theirs` merged over `ours`: mappings by key, keyed lists by item; null removes."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return _merged_mapping(ours, theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return _merged_list(ours, theirs, field)
    return _without_nulls(theirs)


def _merged_mapping(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    if _HANDLERS & theirs.keys():
        ours = {key: value for key, value in ours.items() if key not in _HANDLERS}
    result = dict(ours)
    for key, value in theirs.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, key)
    return result


def _merged_list(ours: list[Any], theirs: list[Any], field: str) -> list[Any]:
    keys = key_fields(field, [*ours, *theirs])
    if keys is None:
        return [_without_nulls(item) for item in theirs]
    result = {name_of(item, keys): item for item in ours}
    for item in theirs:
        name = name_of(item, keys)
        known = None if field in _REPLACED_WHOLE else result.get(name)
        result[name] = merged(known, item)
    return list(result.values())


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _all_have(items: Sequence[Any], key: str) -> bool:
    return bool(items) and all(isinstance(i, dict) and key in i for i in items)
