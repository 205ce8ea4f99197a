"""Parsing of manifests: YAML text with AutoGLMDeployments and the AutoGLMProfiles that they name.

Applies the rules that hold for manifests but not for live resources, and rejects names that several
resources claim. Reads no files; the local runtime and the CLI pass the text.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from autoglm.api.deployment import AutoGLMDeployment
from autoglm.api.parse import parse
from autoglm.api.problem import InvalidSpec, Problem
from autoglm.api.profile import PROFILE_KIND, AutoGLMProfile, parse_profile, with_profile
from autoglm.api.rules import at
from autoglm.api.spec.profile import ProfileSpec

# Far more than any manifest has. YAML aliases can expand a few lines beyond any memory.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, which rejects a duplicate key instead of keeping the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = {key for key in keys if keys.count(key) > 1 and key != "<<"}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key: {', '.join(sorted(twice))}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def load_documents(
    text: str, source: str, profiles: Mapping[str, ProfileSpec] | None = None
) -> list[AutoGLMDeployment]:
    """Return the resources of a manifest; `source` is its name in messages. A profile of the
    manifest, or of `profiles` by name, is merged under the resources that name it.

    Raises InvalidSpec with all problems of all documents.
    """
    documents = read_yaml(text, source)
    resources, problems = resources_of(documents, source, profiles)
    if not resources and not problems and not any(map(is_profile, documents)):
        problems = [nothing_in(source)]
    if problems:
        raise InvalidSpec(problems)
    return resources


def nothing_in(source: str) -> Problem:
    """Return the problem of manifests without a resource."""
    message = "contains no AutoGLMDeployment; examples/ has some to start from"
    return Problem("", message, source=source)


def resources_of(
    documents: Sequence[Any], source: str, profiles: Mapping[str, ProfileSpec] | None = None
) -> tuple[list[AutoGLMDeployment], list[Problem]]:
    """Return the resources of documents, of which None is none, and all problems. Pure."""
    known = dict(profiles or {})
    resources: list[AutoGLMDeployment] = []
    problems: list[Problem] = []
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        place = source if len(documents) == 1 else f"{source}, document {number}"
        try:
            if is_profile(document):
                profile = parse_profile(document)
                known[profile.metadata.name] = profile.spec
            else:
                resources.append(parse_manifest(document))
        except InvalidSpec as error:
            problems += [replace(problem, source=place) for problem in error.problems]
    resources = [_with_known_profile(resource, known) for resource in resources]
    problems += [replace(problem, source=source) for problem in problems_between(resources)]
    return resources, problems


def is_profile(document: Any) -> bool:
    """Return whether a document is an AutoGLMProfile, valid or not."""
    return isinstance(document, Mapping) and document.get("kind") == PROFILE_KIND


def profiles_in(text: str, source: str) -> list[AutoGLMProfile]:
    """Return the profiles of a manifest. Raises InvalidSpec with the problems of all of them."""
    found: list[AutoGLMProfile] = []
    problems: list[Problem] = []
    for document in filter(is_profile, read_yaml(text, source)):
        try:
            found.append(parse_profile(document))
        except InvalidSpec as error:
            problems += [replace(problem, source=source) for problem in error.problems]
    if problems:
        raise InvalidSpec(problems)
    return found


def _with_known_profile(
    resource: AutoGLMDeployment, profiles: Mapping[str, ProfileSpec]
) -> AutoGLMDeployment:
    named = resource.spec.profile
    found = profiles.get(named.name) if named else None
    return resource if found is None else with_profile(resource, found)


def read_yaml(text: str, source: str) -> list[Any]:
    """Return the documents of a YAML text, parsed safely. Raises InvalidSpec."""
    try:
        documents = list(yaml.load_all(text, _Loader))
        if _values(documents, {}) > _MOST_VALUES:
            message = f"has over {_MOST_VALUES} values with aliases expanded; split it"
            raise InvalidSpec([Problem("", message, source=source)])
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InvalidSpec):
            raise
        message = f"is not valid YAML: {' '.join(str(error).split())}"
        raise InvalidSpec([Problem("", message, source=source)]) from error
    except RecursionError as error:
        raise InvalidSpec([Problem("", "is nested too deeply", source=source)]) from error
    return documents


def _values(node: Any, counted: dict[int, int]) -> int:
    """Return the number of values in a node with its aliases expanded."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in counted:
        # A node that contains itself never ends.
        counted[id(node)] = _MOST_VALUES
        items = node.values() if isinstance(node, dict) else node
        counted[id(node)] = 1 + sum(_values(item, counted) for item in items)
    return counted[id(node)]


def parse_manifest(document: Any) -> AutoGLMDeployment:
    """Return the resource that a document of a manifest describes. Raises InvalidSpec."""
    problems: list[Problem] = []
    try:
        resource = parse(document)
    except InvalidSpec as error:
        problems += error.problems
    replicas = at(document, "spec.replicas")
    # A live resource has both, since autoscalers write spec.replicas.
    if replicas is not None and at(document, "spec.scaling") is not None:
        message = "spec.scaling sets the number of replicas; remove one of the two"
        problems.append(Problem("spec.replicas", message, replicas))
    if problems:
        raise InvalidSpec(problems)
    return resource


def problems_between(resources: Iterable[AutoGLMDeployment]) -> list[Problem]:
    """Return a problem for each resource name and served name that several resources claim."""
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
