"""The demo on a node runs what README says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripts.cluster_demo import (
    PROVIDED,
    DemoFailed,
    readme_commands,
    response_of,
    run_readme,
)
from scripts.version import ROOT

README = """\
# A project

    make demo

## On Kubernetes

In a clone:

    make images          # any builder
    kubectl port-forward service/a 8000 &
    curl http://127.0.0.1:8000 \\
      -d '{"a":
        1}'

For any other cluster:

    make images REGISTRY=a
"""


def test_commands_are_those_of_the_first_block_without_comments() -> None:
    assert readme_commands(README) == [
        "make images",
        "kubectl port-forward service/a 8000 &",
        "curl http://127.0.0.1:8000 \\\n  -d '{\"a\":\n    1}'",
    ]


def test_a_readme_without_the_block_is_an_error() -> None:
    with pytest.raises(DemoFailed, match="On Kubernetes"):
        readme_commands("# A project\n")


def test_the_projects_own_readme_goes_from_images_to_a_response() -> None:
    commands = readme_commands((ROOT / "README.md").read_text())
    assert tuple(commands[:2]) == PROVIDED
    assert [command.split()[0] for command in commands[2:]] == [
        *("helm", "kubectl", "kubectl", "kubectl", "curl")
    ]
    # In a pasted block the request is sent before the port is open.
    assert commands[-2].endswith("&") and "--retry-connrefused" in commands[-1]


def test_the_response_is_the_models_text() -> None:
    assert response_of('{"choices": [{"message": {"content": "Hello"}}]}') == "Hello"


@pytest.mark.parametrize("printed", ["", "[]", '{"error": {"message": "no model"}}'])
def test_anything_but_a_completion_is_a_failure(printed: str) -> None:
    with pytest.raises(DemoFailed, match="no chat completion"):
        response_of(printed)


@dataclass
class StandIn:
    """What the commands know of a node."""

    kubeconfig: Path
    client_prefix: tuple[str, ...] = ("env",)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A machine whose programs of README write down their calls; returns node and calls."""
    calls, place = tmp_path / "calls", tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("AUTOGLM_KUBE_TOOLS", str(place))

    def make(**does: str) -> tuple[Any, Callable[[], list[str]]]:
        for name in ("helm", "kubectl", "curl"):
            text = f'#!/bin/sh\necho "{name} $KUBECONFIG $1 $2" >>"{calls}"\n{does.get(name, "")}\n'
            (place / name).write_text(text)
            (place / name).chmod(0o755)
        node: Any = StandIn(tmp_path / "kubeconfig")
        return node, lambda: calls.read_text().splitlines()

    return make


def test_commands_run_in_order_against_the_node_and_the_last_prints_the_response(
    programs: Callable[..., Any], tmp_path: Path
) -> None:
    forwards = 'case "$*" in *port-forward*) sleep 600;; esac'
    node, calls = programs(curl="echo a response", kubectl=forwards)
    printed = run_readme(node)
    assert printed[-1] == "a response\n"
    at = tmp_path / "kubeconfig"
    made = [call for call in calls() if "-n autoglm-system" not in call]
    assert made == [
        f"helm {at} install open-autoglm",
        f"kubectl {at} apply -f",
        f"kubectl {at} wait agd/echo",
        f"curl {at} -s --retry",
    ]


def test_a_command_that_fails_ends_the_demo_with_its_name(programs: Callable[..., Any]) -> None:
    node, calls = programs(kubectl="echo no such kind; exit 1")
    with pytest.raises(DemoFailed, match="exit code 1 of: kubectl apply"):
        run_readme(node)
    assert len(calls()) == 2
