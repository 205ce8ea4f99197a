"""Objects beside the resources of a manifest: which are skipped, and values of Secrets. Pure.

`autoglm up` takes the manifest of a cluster as it is: it reads the Secrets and ConfigMaps that
`spec.engine.env` names, and skips all other kinds.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoglm.api import KIND, AutoGLMDeployment, Problem
from autoglm.api.deployment import GROUP
from autoglm.api.profile import PROFILE_KIND

_SOURCES = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
_SIMILAR = 0.8


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a process with a value of a Secret or a ConfigMap."""

    name: str
    value: str
    origin: str


def flattened(documents: Iterable[Any]) -> Iterator[Any]:
    """Yield the documents, and the items of a `List`, as `kubectl get -o yaml` prints them."""
    for document in documents:
        if isinstance(document, Mapping) and document.get("kind") == "List":
            yield from document.get("items") or ()
        else:
            yield document


def is_companion(document: Any) -> bool:
    """Return whether a document is a Kubernetes object of another kind than ours."""
    if not isinstance(document, Mapping):
        return False
    kind, version = document.get("kind"), document.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str) or kind in (KIND, PROFILE_KIND):
        return False
    is_misspelt = difflib.SequenceMatcher(None, kind, KIND).ratio() >= _SIMILAR
    return version.partition("/")[0] != GROUP or not is_misspelt


def variables(
    resource: AutoGLMDeployment, companions: Iterable[Mapping[str, Any]]
) -> tuple[list[Variable], list[Problem]]:
    """Return the variables of `spec.engine.env` that refer to companions, and the problems.

    A Secret that is not among the companions is no problem: the shell's environment may have it.
    """
    known = {_key(companion): companion for companion in companions}
    found: list[Variable] = []
    problems: list[Problem] = []
    for index, variable in enumerate(resource.spec.engine.env):
        for source, kind in _SOURCES.items():
            reference = (variable.value_from or {}).get(source)
            if not isinstance(reference, Mapping):
                continue
            name, key = str(reference.get("name")), str(reference.get("key"))
            companion = known.get((kind, resource.metadata.namespace, name))
            if companion is None:
                continue
            path = f"spec.engine.env[{index}].valueFrom.{source}.key"
            try:
                value = _values(companion).get(key)
            except ValueError as error:
                problems.append(Problem(path, f"{kind} {name}: {error}", key))
                continue
            if value is not None:
                found.append(Variable(variable.name, value, f"{kind} {name}, key {key}"))
            elif not reference.get("optional"):
                keys = ", ".join(sorted(_values(companion))) or "none"
                problems.append(
                    Problem(path, f"{kind} {name} has no such key; it has: {keys}", key)
                )
    return found, problems


def missing(
    resource: AutoGLMDeployment, found: Iterable[Variable], environment: Iterable[str]
) -> list[Problem]:
    """Return a problem for each variable whose source is neither among the companions nor optional,
    and which the environment does not set either."""
    known = {variable.name for variable in found} | set(environment)
    problems: list[Problem] = []
    for index, variable in enumerate(resource.spec.engine.env):
        for source, reference in (variable.value_from or {}).items():
            reference = reference if isinstance(reference, Mapping) else {}
            if variable.name in known or reference.get("optional"):
                continue
            path = f"spec.engine.env[{index}].valueFrom.{source}"
            instead = f"set {variable.name} in this shell's environment"
            if (kind := _SOURCES.get(source)) is None:
                problems.append(Problem(path, f"takes effect on Kubernetes; {instead}"))
                continue
            namespace, name = resource.metadata.namespace, str(reference.get("name"))
            message = (
                f"the manifests have no such {kind} in the namespace {namespace}; add it to them, "
                f"or {instead}"
            )
            problems.append(Problem(f"{path}.name", message, name))
    return problems


def skipped(document: Mapping[str, Any], resources: Iterable[AutoGLMDeployment]) -> str:
    """Return the note for an object that is not used; empty for one whose values are."""
    kind, _, name = _key(document)
    for resource in resources:
        for variable in resource.spec.engine.env:
            for source, source_kind in _SOURCES.items():
                reference = (variable.value_from or {}).get(source)
                if isinstance(reference, Mapping) and (source_kind, reference.get("name")) == (
                    kind,
                    name,
                ):
                    return ""
    return f"{kind} {name} is skipped: it takes effect on Kubernetes"


def _key(document: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    namespace = str(metadata.get("namespace") or "default")
    return str(document.get("kind")), namespace, str(metadata.get("name") or "without a name")


def _values(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a Secret or a ConfigMap. Raises ValueError."""
    data, plain = document.get("data") or {}, document.get("stringData") or {}
    if not isinstance(data, Mapping) or not isinstance(plain, Mapping):
        raise ValueError("data and stringData must be mappings")
    if document.get("kind") == "Secret":
        data = {key: _decoded(key, value) for key, value in data.items()}
    return {str(key): str(value) for key, value in {**data, **plain}.items()}


def _decoded(key: str, value: Any) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"data.{key} is not base64 of a text; use stringData for plain text"
        ) from error
