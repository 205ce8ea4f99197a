"""The chart as Helm renders it. Without Helm these tests are skipped; never in CI."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.prerequisites import lacking

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/helm/open-autoglm"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def helm() -> str:
    built = ROOT / "build/bin/helm"
    return str(built) if built.exists() else shutil.which("helm") or ""


def _template(*arguments: str, release: str = "open-autoglm") -> str:
    place = ("template", release, str(CHART), "--namespace", "autoglm-system")
    done = subprocess.run([helm(), *place, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


_rendered = cache(_template)


@pytest.fixture(autouse=True)
def helm_is_there() -> None:
    if not helm():
        lacking("no helm: scripts/go_tools helm builds it")


@pytest.fixture
def template() -> Callable[..., str]:
    """What `helm template` prints. Raises ValueError with what it complains of."""
    return _template


@pytest.fixture
def render() -> Callable[..., list[dict[str, Any]]]:
    """The chart's objects for these values, each as NAME=VALUE."""

    def run(*values: str, file: str = "values.yaml") -> list[dict[str, Any]]:
        sets = (part for value in values for part in ("--set", value))
        text = _rendered("--values", str(CHART / file), *sets)
        return [document for document in yaml.load_all(text, Loader) if document]

    return run
