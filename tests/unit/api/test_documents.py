"""Manifests hold AutoGLMDeployments only, and no name is claimed twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.api import InvalidSpec
from autoglm.api.documents import load_documents, profiles_in

EXAMPLES = Path(__file__).parents[3] / "examples"
HEAD = "apiVersion: autoglm.io/v1alpha1\nkind: AutoGLMDeployment\n"


def echo(name: str, served: str = "") -> str:
    model = f"{{servedName: {served}}}" if served else "{}"
    return f"{HEAD}metadata: {{name: {name}}}\nspec: {{engine: {{type: echo}}, model: {model}}}\n"


def refusal(text: str) -> str:
    with pytest.raises(InvalidSpec) as raised:
        load_documents(text, "m.yaml")
    return str(raised.value)


MANIFESTS = sorted(EXAMPLES.glob("*.yaml")) + sorted((EXAMPLES / "gpu").glob("*.yaml"))
MANIFESTS.append(EXAMPLES / "kubernetes/tiny-glm.yaml")


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_examples_are_valid(path: Path) -> None:
    assert load_documents(path.read_text(), path.name)


def test_one_file_may_hold_several_models() -> None:
    resources = load_documents(f"---\n{echo('a')}---\n{echo('b')}---\n", "m.yaml")

    assert [resource.name for resource in resources] == ["a", "b"]


def test_a_resource_name_is_claimed_once() -> None:
    assert refusal(f"{echo('a')}---\n{echo('a')}") == (
        'm.yaml: metadata.name = "a": is the name of two documents; rename one of them'
    )


def test_a_served_name_is_claimed_once() -> None:
    assert refusal(f"{echo('a')}---\n{echo('b', served='a')}") == (
        'm.yaml: served name of b = "a": a serves this name already; choose another'
    )


def test_a_manifest_leaves_the_number_of_replicas_to_scaling() -> None:
    text = f"{HEAD}metadata: {{name: a}}\nspec: {{model: {{uri: b}}, replicas: 2, "

    assert refusal(text + "scaling: {maxReplicas: 3}}\n") == (
        "m.yaml: spec.replicas = 2: spec.scaling sets the number of replicas; remove one of the two"
    )


def test_aliases_can_not_blow_a_manifest_up() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]

    assert "has over 100000 values" in refusal("\n".join(lines))
    assert "has over 100000 values" in refusal("a: &a [*a]")


def test_problems_of_all_documents_are_listed_with_their_places() -> None:
    text = refusal(f"{echo('A')}---\nkind: Service\n---\n{echo('b')}")

    first, second = text.splitlines()
    assert first.startswith('m.yaml, document 1: metadata.name = "A": must look like')
    assert second.startswith('m.yaml, document 2: kind = "Service": only AutoGLMDeployment')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no AutoGLMDeployment"),
        ("a: [", "is not valid YAML"),
        ("a: 1\na: 2", "duplicate key: a"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_reason(text: str, message: str) -> None:
    assert message in refusal(text)


PROFILE = """apiVersion: autoglm.io/v1alpha1
kind: AutoGLMProfile
metadata: {name: small}
spec: {engine: {args: {enforce_eager: true}}, resources: {limits: {nvidia.com/gpu: 1}}}
"""
USER = f"""{HEAD}metadata: {{name: a}}
spec: {{model: {{uri: b/c}}, profile: {{name: small, count: 2}}}}
"""


@pytest.mark.parametrize("text", [f"{PROFILE}---\n{USER}", f"{USER}---\n{PROFILE}"])
def test_a_profile_of_the_manifest_is_merged(text: str) -> None:
    (resource,) = load_documents(text, "m.yaml")

    assert resource.spec.engine.args == {"enforce_eager": True}
    assert resource.spec.engine.parallelism.devices == 2


def test_a_profile_of_another_manifest_is_merged() -> None:
    (profile,) = profiles_in(PROFILE, "p.yaml")
    (resource,) = load_documents(USER, "m.yaml", {"small": profile.spec})

    assert resource.spec.engine.parallelism.devices == 2


def test_a_profile_that_is_not_there_stays_named() -> None:
    (resource,) = load_documents(USER, "m.yaml")

    assert resource.spec.profile and resource.spec.profile.name == "small"


def test_an_invalid_profile_is_a_problem_of_the_manifest() -> None:
    text = PROFILE.replace("limits", "limit")

    assert "m.yaml, document 2: spec.resources.limit" in refusal(f"{USER}---\n{text}")
