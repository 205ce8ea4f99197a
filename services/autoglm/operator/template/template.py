"""Merges spec.template into the pod template, and rejects overrides that are not allowed. Pure.

A user who may write an AutoGLMDeployment may lack the right to create pods, so the operator must
not lend its own: only fields known to be harmless are allowed, and the result must still meet the
restricted profile. Any other field is rejected as InvalidSpec. Called by `plan`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from autoglm.api import InvalidSpec, Problem
from autoglm.operator.children.deployment import POD_SECURITY, secured
from autoglm.operator.children.loader import ENGINE
from autoglm.operator.template.restricted import violations
from autoglm.operator.writes.diff import key_fields, name_of

ROOT = "spec.template"
_MOST_BYTES = 64 * 1024
_DEEPEST = 24
FIELDS: Final = {
    ROOT: frozenset({"metadata", "spec"}),
    f"{ROOT}.metadata": frozenset({"annotations", "labels"}),
    f"{ROOT}.spec": frozenset(
        {
            "affinity",
            "containers",
            "dnsConfig",
            "dnsPolicy",
            "hostAliases",
            "imagePullSecrets",
            "initContainers",
            "nodeSelector",
            "preemptionPolicy",
            "priorityClassName",
            "resourceClaims",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "securityContext",
            "tolerations",
            "topologySpreadConstraints",
            "volumes",
        }
    ),
}
# Items that hold one of several types of content; two merged types would be invalid.
_REPLACED_WHOLE = frozenset({"volumes", "env", "volumeMounts", "topologySpreadConstraints"})
# A probe or a lifecycle hook has exactly one.
_HANDLERS = frozenset({"exec", "grpc", "httpGet", "sleep", "tcpSocket"})
_LISTS = ("containers", "initContainers", "volumes", "imagePullSecrets", "tolerations")
# Prefixes of labels and annotations that Services, budgets, policies and the operator select by.
RESERVED = ("app.kubernetes.io/", "autoglm.io/")
# Prefixes of legacy annotations by which a pod would leave the restricted profile.
PROFILE = ("container.apparmor.security.beta.kubernetes.io/",)
# Fields that another field of the spec, or the operator, sets.
_INSTEAD = {
    "terminationGracePeriodSeconds": "spec.drain.gracePeriodSeconds decides it",
    "serviceAccountName": "replicas run as an account of their own without rights",
    "automountServiceAccountToken": "replicas get no token of the Kubernetes API",
    "hostNetwork": "replicas share nothing with their node",
    "hostPID": "replicas share nothing with their node",
    "hostIPC": "replicas share nothing with their node",
    "nodeName": "the scheduler chooses; use nodeSelector or affinity",
}


def with_template(pod: dict[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod template with the user's overrides. Raises InvalidSpec with every problem."""
    problems = list(_shape_problems(template))
    if problems:
        raise InvalidSpec(problems)
    result: dict[str, Any] = _merged(pod, dict(template))
    spec = result["spec"]
    # Overrides may have removed security settings, and new containers have none.
    given = spec.get("securityContext", {})
    if isinstance(given, dict):
        spec["securityContext"] = POD_SECURITY | given
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [secured(container) for container in spec[field]]
    problems = list(violations(spec, f"{ROOT}.spec", pod["spec"]["volumes"]))
    for field in ("containers", "initContainers"):
        for container in spec.get(field, []):
            if not container.get("image"):
                path = f"{ROOT}.spec.{field}[name={container['name']}].image"
                message = (
                    f"is required for a container of your own; the engine's is called {ENGINE!r}"
                )
                problems.append(Problem(path, message))
    if problems:
        raise InvalidSpec(problems)
    return result


def _merged(ours: Any, theirs: Any, field: str = "") -> Any:
    """Return `theirs` merged over `ours`, as a strategic merge patch of `field`: mappings by key,
    keyed lists by item; null removes."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        result = dict(ours)
        if _HANDLERS & theirs.keys():
            result = {key: value for key, value in ours.items() if key not in _HANDLERS}
        for key, value in theirs.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = _merged(result.get(key), value, key)
        return result
    if isinstance(ours, list) and isinstance(theirs, list):
        keys = key_fields(field, [*ours, *theirs])
        if keys is None:
            return _without_nulls(theirs)
        items = {name_of(item, keys): item for item in ours}
        for item in theirs:
            name = name_of(item, keys)
            items[name] = _merged(None if field in _REPLACED_WHOLE else items.get(name), item)
        return list(items.values())
    return _without_nulls(theirs)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _shape_problems(template: Mapping[str, Any]) -> Iterator[Problem]:
    size = len(json.dumps(template))
    if size > _MOST_BYTES:
        message = f"has {size} bytes, over {_MOST_BYTES}; put large content into a ConfigMap"
        yield Problem(ROOT, message)
    elif depth(template) > _DEEPEST:
        yield Problem(ROOT, f"is nested deeper than {_DEEPEST} levels; no pod template is")
    else:
        yield from _unknown_fields(template)
        yield from _reserved_names(template)
        yield from _mistyped_lists(template)


def depth(root: Any) -> int:
    """Return the levels of nesting of a value; 1 for a string."""
    levels, level = 0, [root]
    while level:
        levels += 1
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return levels


def _unknown_fields(template: Mapping[str, Any]) -> Iterator[Problem]:
    parts: dict[str, Any] = {ROOT: template}
    parts |= {f"{ROOT}.{key}": template.get(key, {}) for key in ("metadata", "spec")}
    for path, part in parts.items():
        if not isinstance(part, Mapping):
            yield Problem(path, "must be a mapping", part)
            continue
        for field in sorted(part.keys() - FIELDS[path]):
            why = _INSTEAD.get(field, "a template may not set it")
            message = f"{why}; remove it. Allowed: {', '.join(sorted(FIELDS[path]))}"
            yield Problem(f"{path}.{field}", message, part[field])


def _reserved_names(template: Mapping[str, Any]) -> Iterator[Problem]:
    metadata = template.get("metadata", {})
    for kind in ("labels", "annotations"):
        given = metadata.get(kind) if isinstance(metadata, Mapping) else None
        if given is not None and not isinstance(given, Mapping):
            yield Problem(f"{ROOT}.metadata.{kind}", "must be a mapping", given)
            continue
        for name, value in (given or {}).items():
            path = f"{ROOT}.metadata.{kind}.{name}"
            if name.startswith(RESERVED):
                yield Problem(path, "belongs to the operator; use another name", value)
            elif name.startswith(PROFILE):
                yield Problem(path, "remove it; use securityContext.appArmorProfile", value)
            elif not isinstance(value, str):
                yield Problem(path, "must be a string; put it in quotes", value)


def _mistyped_lists(template: Mapping[str, Any]) -> Iterator[Problem]:
    spec = template.get("spec")
    if not isinstance(spec, Mapping):
        return
    for field in _LISTS:
        given = spec.get(field, [])
        if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
            yield Problem(f"{ROOT}.spec.{field}", "must be a list of mappings", given)
        elif field != "tolerations":
            for index, item in enumerate(given):
                if not isinstance(item.get("name"), str):
                    path = f"{ROOT}.spec.{field}[{index}].name"
                    yield Problem(path, f"is required; the engine's container is {ENGINE!r}")
