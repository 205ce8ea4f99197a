"""One real vLLM pod for all tests of this folder, and a gateway, with spans in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.processes import Process

MODEL = Path(__file__).parents[3] / "examples/tiny-glm/model"
# What single tests need, and no other one notices: usage with cached tokens, stored responses, and
# a KV cache of little more than one longest request, so that prompts are evicted.
DETAILS = ("--engine-arg", "enable_prompt_tokens_details=true")
CACHE_TOKENS = 2304
SMALL_CACHE = (
    *("--engine-arg", "block_size=32"),
    *("--engine-arg", f"num_gpu_blocks_override={CACHE_TOKENS // 32}"),
)
STORE = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def spans(directory: Path) -> Path:
    return directory / "spans.jsonl"


@pytest.fixture(scope="session")
def pod(directory: Path, spans: Path) -> Iterator[Process]:
    """Every start takes half a minute. A test leaves nothing running on it."""
    traces = ("--traces", f"file:{spans}")
    pod = processes.vllm_pod(directory, MODEL, "vllm-0", *traces, *DETAILS, *SMALL_CACHE)
    pod.environment = {**pod.environment, **STORE}
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
