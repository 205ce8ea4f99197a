"""What a resource must meet on this cluster, beyond what it must meet anywhere. Pure.

`api.parse` judges a document by itself; here it meets the installation: there are no files next to
it, replicas need their GPUs, and some things are the installer's to allow. Called by `plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from autoglm.api import InvalidSpec, Problem, parse
from autoglm.api.rules import at
from autoglm.operator.children import resources
from autoglm.operator.children.metadata import Context
from autoglm.operator.observed import Raw, Settings
from autoglm.operator.template.template import depth

_DEEPEST: Final = 32
_MOST_BYTES: Final = 64 * 1024


def valid(resource: Raw, settings: Settings) -> Context:
    """The resource, ready to be planned for. Raises InvalidSpec with every problem."""
    if problems := list(_too_deep(resource)) or list(_too_large(resource)):
        raise InvalidSpec(problems)
    # Sorted, so that the order of a user's keys makes no other revision.
    plain = msgspec.json.decode(msgspec.json.encode(resource, order="deterministic"))
    context = Context(parse(plain), settings)
    problems = [
        *resources.problems(context.spec),
        *_relative_paths(context),
        *_host_path(context),
    ]
    if problems:
        raise InvalidSpec(problems)
    return context


def _too_deep(resource: Raw) -> Iterable[Problem]:
    """Free-form fields, of which the deepest levels may have been cut off on the way in."""
    spec = resource.get("spec")
    for name, value in spec.items() if isinstance(spec, Mapping) else ():
        if depth(value) > _DEEPEST:
            yield Problem(f"spec.{name}", f"is nested deeper than {_DEEPEST} levels; flatten it")


def _too_large(resource: Raw) -> Iterable[Problem]:
    """What becomes part of a pod's command line, where an argument has 128 KiB."""
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
                "is relative to a file, which a cluster does not have; give a hub name, or an "
                "absolute path on a volume that spec.template mounts"
            )
            yield Problem(path, message, uri)


def _host_path(context: Context) -> Iterable[Problem]:
    cache = context.spec.model.cache
    if cache.type == "hostPath" and not context.settings.allow_host_path:
        message = (
            "the operator was installed without --allow-host-path, since it opens the node's files "
            "to whoever may write this resource; use pvc"
        )
        yield Problem("spec.model.cache.type", message, cache.type)
