"""Validates a resource against the installation, in addition to `api.parse`. Pure.

On a cluster no path is relative to a file, replicas need GPUs for their parallelism, and some
fields must be allowed by a flag of the operator. Called by `plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from autoglm.api import InvalidSpec, Problem, parse
from autoglm.api.rules import at
from autoglm.operator.children.deployment import resource_problems
from autoglm.operator.children.metadata import Context
from autoglm.operator.observed import Raw, Settings
from autoglm.operator.template.template import depth

_DEEPEST: Final = 32
_MOST_BYTES: Final = 64 * 1024


def valid(resource: Raw, settings: Settings) -> Context:
    """Return the parsed resource with the settings. Raises InvalidSpec with every problem."""
    if problems := list(_too_deep(resource)) or list(_too_large(resource)):
        raise InvalidSpec(problems)
    # Sorted, so that the order of a user's keys does not change the revision.
    plain = msgspec.json.decode(msgspec.json.encode(resource, order="deterministic"))
    context = Context(parse(plain), settings)
    problems = [
        *resource_problems(context.spec),
        *_relative_paths(context),
        *_host_path(context),
    ]
    if problems:
        raise InvalidSpec(problems)
    return context


def _too_deep(resource: Raw) -> Iterable[Problem]:
    """Yield problems of nesting: the API server may have pruned the deepest levels."""
    spec = resource.get("spec")
    for name, value in spec.items() if isinstance(spec, Mapping) else ():
        if depth(value) > _DEEPEST:
            yield Problem(f"spec.{name}", f"is nested deeper than {_DEEPEST} levels; flatten it")


def _too_large(resource: Raw) -> Iterable[Problem]:
    """Yield problems of fields that become part of the command line, with 128 KiB an argument."""
    for path in ("spec.engine.args", "spec.engine.env"):
        size = len(msgspec.json.encode(at(resource, path)))
        if size > _MOST_BYTES:
            message = (
                f"has {size} bytes, over {_MOST_BYTES}; put large content into a ConfigMap, and "
                "mount it by spec.template"
            )
            yield Problem(path, message)


def _relative_paths(context: Context) -> Iterable[Problem]:
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


def _host_path(context: Context) -> Iterable[Problem]:
    cache = context.spec.model.cache
    if cache.type == "hostPath" and not context.settings.allow_host_path:
        message = (
            "the operator was installed without --allow-host-path, since it opens the node's files "
            "to every user who may write this resource; use pvc"
        )
        yield Problem("spec.model.cache.type", message, cache.type)
