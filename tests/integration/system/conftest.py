"""One real vLLM pod and a gateway, with spans in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.processes import Process

MODEL = Path(__file__).parents[3] / "examples/tiny-glm/model"


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def spans(directory: Path) -> Path:
    return directory / "spans.jsonl"


@pytest.fixture(scope="session")
def pod(directory: Path, spans: Path) -> Iterator[Process]:
    pod = processes.vllm_pod(directory, MODEL, "vllm-0", "--traces", f"file:{spans}")
    with processes.running(pod):
        yield pod


@pytest.fixture(scope="session")
def gateway(directory: Path, spans: Path, pod: Process) -> Iterator[Process]:
    gateway = processes.gateway(directory, [pod], "--traces", f"file:{spans}")
    with processes.running(gateway):
        yield gateway


@pytest.fixture(params=["gateway", "pod"])
def front(request: pytest.FixtureRequest) -> Process:
    """Whom the client talks to: they serve the same API."""
    process = request.getfixturevalue(request.param)
    assert isinstance(process, Process)
    return process
