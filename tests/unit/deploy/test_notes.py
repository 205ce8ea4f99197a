"""What the chart says after an installation: where the images come from, where none is named."""

import subprocess
from collections.abc import Callable

import pytest
from tests.unit.deploy.conftest import CHART, helm

Notes = Callable[..., str]


@pytest.fixture
def notes() -> Notes:
    """The notes of an installation with these values, each as NAME=VALUE. Needs no cluster."""

    def run(*values: str) -> str:
        sets = [part for value in values for part in ("--set", value)]
        place = ("install", "open-autoglm", str(CHART), "--namespace", "autoglm-system")
        done = subprocess.run(
            [helm(), *place, "--dry-run=client", *sets], capture_output=True, text=True, check=True
        )
        return done.stdout.rpartition("\nNOTES:\n")[2]

    return run


def test_without_a_registry_the_notes_say_how_to_build_and_load_images(notes: Notes) -> None:
    said = notes("inferenceImage.tag=0.1.0-cpu")
    assert "make images && make cluster-load" in said
    assert "make images REGISTRY=registry.example.com/ai" in said
    assert "--set image.registry=registry.example.com/ai" in said
    assert " open-autoglm:0.1.0\n" in said
    assert " open-autoglm-inference:0.1.0-cpu\n" in said


@pytest.mark.parametrize(
    "value", ["image.registry=registry.example.com/ai", "image.repository=example/open-autoglm"]
)
def test_with_a_registry_the_notes_begin_with_the_next_step(notes: Notes, value: str) -> None:
    said = notes(value)
    assert "make images" not in said
    assert said.split("\n\n")[1].startswith("1. Wait until it runs")
