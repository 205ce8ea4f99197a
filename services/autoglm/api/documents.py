"""Manifests: YAML text with one or more AutoGLMDeployments.

Decides what a manifest may hold and that no two resources fight over a name. Reads no files; the
local runtime and the CLI hand in the text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

import yaml

from autoglm.api.deployment import AutoGLMDeployment
from autoglm.api.parse import parse
from autoglm.api.problem import InvalidSpec, Problem


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
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.YAMLError as error:
        message = f"is no valid YAML: {' '.join(str(error).split())}"
        raise InvalidSpec([Problem("", message, source=source)]) from error
    except RecursionError as error:
        raise InvalidSpec([Problem("", "is nested too deeply", source=source)]) from error
    resources: list[AutoGLMDeployment] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        try:
            resources.append(parse(document))
        except InvalidSpec as error:
            place = source if len(documents) == 1 else f"{source}, document {number}"
            problems += [replace(problem, source=place) for problem in error.problems]
    problems += [replace(problem, source=source) for problem in problems_between(resources)]
    if not resources and not problems:
        message = "holds no AutoGLMDeployment; see examples/ for one to start from"
        problems = [Problem("", message, source=source)]
    if problems:
        raise InvalidSpec(problems)
    return resources


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
