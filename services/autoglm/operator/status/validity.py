"""Validates a resource against the installation, and records its last valid spec. Pure.

In addition to `api.parse`: on a cluster no path is relative to a file, replicas need GPUs for their
parallelism, and some fields must be allowed by a flag of the operator. Called by `plan`.

The last valid spec is in the status: users do not delete it, an operator that starts reads it at
once, and it is written together with its generation. It is text, so that the API server neither
prunes it nor tracks the managers of its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from autoglm.api import InvalidSpec, Problem, parse
from autoglm.api.profile import with_profile
from autoglm.api.rules import at
from autoglm.api.spec.profile import ProfileSpec
from autoglm.operator.children.deployment import resource_problems
from autoglm.operator.children.metadata import Context
from autoglm.operator.profiles import ChosenProfile
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.template.template import depth
from autoglm.operator.types import Raw

LARGEST: Final = 1_048_576
_REPLICAS = "replicas"
_RECORDED: Final = ("generation", "revision", "spec", "profile")
_DEEPEST: Final = 32
_MOST_BYTES: Final = 64 * 1024


def valid(resource: Raw, settings: OperatorSettings, profile: ProfileSpec | None = None) -> Context:
    """Return the parsed resource, merged with a profile, and the settings. Raises InvalidSpec with
    every problem."""
    if problems := list(_size_problems(resource)):
        raise InvalidSpec(problems)
    # Sorted, so that the order of a user's keys does not change the revision.
    plain = msgspec.json.decode(msgspec.json.encode(resource, order="deterministic"))
    parsed = parse(plain)
    context = Context(with_profile(parsed, profile) if profile else parsed, settings)
    if problems := [*resource_problems(context.spec), *_cluster_problems(context)]:
        raise InvalidSpec(problems)
    return context


def _size_problems(resource: Raw) -> Iterable[Problem]:
    spec = resource.get("spec")
    names = [n for n, v in spec.items() if depth(v) > _DEEPEST] if isinstance(spec, Mapping) else []
    for name in names:
        # The API server may have pruned the deepest levels.
        yield Problem(f"spec.{name}", f"is nested deeper than {_DEEPEST} levels; flatten it")
    # These become part of the command line, with 128 KiB an argument.
    for path in () if names else ("spec.engine.args", "spec.engine.env"):
        size = len(msgspec.json.encode(at(resource, path)))
        if size > _MOST_BYTES:
            message = (
                f"has {size} bytes, over {_MOST_BYTES}; put large content into a ConfigMap, and "
                "mount it by spec.template"
            )
            yield Problem(path, message)


def _cluster_problems(context: Context) -> Iterable[Problem]:
    """Yield problems of paths that a cluster does not have, or that the installation denies."""
    model = context.spec.model
    uris = {"spec.model.uri": model.uri, "spec.model.tokenizer": model.tokenizer}
    uris |= {f"spec.model.adapters[{i}].uri": a.uri for i, a in enumerate(model.adapters)}
    for path, uri in uris.items():
        if uri and uri.startswith(("./", "../", "~")):
            message = (
                "is relative to a file, which a cluster does not have; use a hub name, or an "
                "absolute path on a volume that spec.template mounts"
            )
            yield Problem(path, message, uri)
    if model.cache.type == "hostPath" and not context.settings.allow_host_path:
        message = (
            "the operator was installed without --allow-host-path, since it opens the node's files "
            "to every user who may write this resource; use pvc"
        )
        yield Problem("spec.model.cache.type", message, model.cache.type)


def record(
    resource: Raw, revision: str, profile: ChosenProfile | None = None
) -> dict[str, Any] | None:
    """Return `status.lastValid` for a valid resource; None if the spec is too large for it."""
    spec = {key: value for key, value in resource["spec"].items() if key != _REPLICAS}
    text = msgspec.json.encode(spec, order="deterministic").decode()
    if len(text) > LARGEST:
        return None
    generation = resource["metadata"].get("generation", 0)
    found = {"generation": generation, "revision": revision, "spec": text}
    return found | ({"profile": profile.text} if profile else {})


def recorded(resource: Raw) -> dict[str, Any] | None:
    """Return `status.lastValid` as it is; None without one."""
    found = (resource.get("status") or {}).get("lastValid")
    if not isinstance(found, Mapping) or not found.get("spec"):
        return None
    return {key: found[key] for key in _RECORDED if key in found}


def restored(resource: Raw) -> Raw | None:
    """Return the resource with its last valid spec; None without one.

    Replicas are the current ones, which an autoscaler writes even if the spec is invalid.
    """
    found = recorded(resource)
    try:
        spec = msgspec.json.decode(found["spec"], type=dict[str, Any]) if found else None
    except msgspec.MsgspecError:
        return None
    if spec is None:
        return None
    current = resource.get("spec")
    replicas = current.get(_REPLICAS) if isinstance(current, Mapping) else None
    if isinstance(replicas, int) and not isinstance(replicas, bool) and replicas >= 0:
        spec[_REPLICAS] = replicas
    return {**resource, "spec": spec}
