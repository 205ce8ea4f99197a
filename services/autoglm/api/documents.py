"""Manifests: YAML text with one or more AutoGLMDeployments.

Decides what a manifest may hold beyond what a live resource may, and that no two resources fight
over a name. Reads no files; the local runtime and the CLI hand in the text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import yaml

from autoglm.api.deployment import AutoGLMDeployment
from autoglm.api.parse import parse
from autoglm.api.problem import InvalidSpec, Problem
from autoglm.api.rules import at

# Far more than any manifest has, and little enough to work on. YAML's aliases can blow a few lines
# up beyond any memory.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing a key written twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = {key for key in keys if keys.count(key) > 1 and key != "<<"}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"written twice: {', '.join(sorted(twice))}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def load_documents(text: str, source: str) -> list[AutoGLMDeployment]:
    """The resources in a manifest. `source` names it in messages.

    Raises InvalidSpec with every problem of every document.
    """
    documents = read_yaml(text, source)
    resources: list[AutoGLMDeployment] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        place = source if len(documents) == 1 else f"{source}, document {number}"
        try:
            resources.append(parse_manifest(document))
        except InvalidSpec as error:
            problems += [replace(problem, source=place) for problem in error.problems]
    problems += [replace(problem, source=source) for problem in problems_between(resources)]
    if not resources and not problems:
        message = "holds no AutoGLMDeployment; see examples/ for one to start from"
        problems = [Problem("", message, source=source)]
    if problems:
        raise InvalidSpec(problems)
    return resources


def read_yaml(text: str, source: str) -> list[Any]:
    """The documents in a text, safely. Raises InvalidSpec."""
    try:
        documents = list(yaml.load_all(text, _Loader))
        if _values(documents, {}) > _MOST_VALUES:
            message = f"holds over {_MOST_VALUES} values with its aliases written out; split it"
            raise InvalidSpec([Problem("", message, source=source)])
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidSpec):
            raise
        message = f"is no valid YAML: {' '.join(str(error).split())}"
        raise InvalidSpec([Problem("", message, source=source)]) from error
    except RecursionError as error:
        raise InvalidSpec([Problem("", "is nested too deeply", source=source)]) from error
    return documents


def _values(node: Any, counted: dict[int, int]) -> int:
    """How many values a node holds, each alias counted as what it stands for."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in counted:
        # A node inside itself has no end.
        counted[id(node)] = _MOST_VALUES
        items = node.values() if isinstance(node, dict) else node
        counted[id(node)] = 1 + sum(_values(item, counted) for item in items)
    return counted[id(node)]


def parse_manifest(document: Any) -> AutoGLMDeployment:
    """The resource that one document of a manifest asks for. Raises InvalidSpec."""
    problems: list[Problem] = []
    try:
        resource = parse(document)
    except InvalidSpec as error:
        problems += error.problems
    replicas = at(document, "spec.replicas")
    # On a live resource both are there, since autoscalers write spec.replicas.
    if replicas is not None and at(document, "spec.scaling") is not None:
        message = "spec.scaling decides the number of replicas; remove one of the two"
        problems.append(Problem("spec.replicas", message, replicas))
    if problems:
        raise InvalidSpec(problems)
    return resource


def problems_between(resources: Iterable[AutoGLMDeployment]) -> list[Problem]:
    """Names claimed by more than one resource: their own, and those that clients use."""
    problems = []
    names: set[str] = set()
    owners: dict[str, str] = {}
    for resource in resources:
        if resource.name in names:
            message = "is the name of two documents; rename one of them"
            problems.append(Problem("metadata.name", message, resource.name))
            continue
        names.add(resource.name)
        for served in resource.served_names:
            if served in owners:
                message = f"{owners[served]} serves this name already; choose another"
                problems.append(Problem(f"served name of {resource.name}", message, served))
            owners.setdefault(served, resource.name)
    return problems
