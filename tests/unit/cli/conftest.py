from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoglm import cli
from autoglm.cli.kube import ClusterState
from autoglm.testing.fake_server import FakeServer


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Autoglm = Callable[..., Result]


@pytest.fixture
def autoglm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Autoglm:
    """Runs the command in process: `autoglm("models", "--output", "json")`."""
    monkeypatch.setenv("COLUMNS", "60")

    def run(*args: str) -> Result:
        code = cli.run(args)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with FakeServer() as fake:
        monkeypatch.setenv("AUTOGLM_ADDRESS", fake.address)
        yield fake


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def now() -> float:
    """The time at which `cluster` was read."""
    return NOW


@pytest.fixture
def cluster() -> ClusterState:
    """A cluster with a resource that fails, one that is well, and one that is suspended."""
    text = Path(__file__).with_name("data").joinpath("cluster.yaml").read_text()
    parts: dict[str, Any] = {name: tuple(items) for name, items in yaml.safe_load(text).items()}
    return ClusterState(**parts | {"routable": frozenset(map(tuple, parts["routable"]))})
