"""One vLLM engine with the tiny GLM-4 for all tests of this folder."""

import gc
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector
from tests.support.processes import ONE_PROCESS

from autoglm import v1
from autoglm.inference import vllm
from autoglm.inference.engine import Engine, EngineOptions, EngineRequest

MODEL = Path(__file__).parents[4] / "examples/tiny-glm/model"
_ids = itertools.count(1)


@pytest.fixture(scope="package", autouse=True)
def environment() -> Iterator[None]:
    """For engines of this process: none binds itself to a core, where all would meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """Spans of this process, whichever provider it has."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    memory = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return memory


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


@pytest.fixture(scope="session")
def options() -> EngineOptions:
    """Computes in one process, as on a GPU; test_start and test_without_compiler don't."""
    return EngineOptions(
        model=str(MODEL),
        served_name="tiny",
        aliases=("tiny-glm",),
        max_model_len=1024,
        max_num_seqs=8,
        tracing=True,
        engine_args={
            "enable_auto_tool_choice": True,
            "tool_call_parser": "hermes",
            "distributed_executor_backend": ONE_PROCESS,
        },
    )


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def engine(options: EngineOptions, exporter: InMemorySpanExporter) -> AsyncIterator[Engine]:
    started = await vllm.start(options)
    # What was imported stays; every module of tests ends with a full collection.
    gc.freeze()
    yield started
    await started.close()


def _vllm_metrics() -> list[Collector]:
    return [c for c in REGISTRY._collector_to_names if getattr(c, "_name", "").startswith("vllm:")]


@pytest.fixture(scope="module")
def metrics_kept(engine: Engine) -> Iterator[None]:
    """A second engine in a process takes the registry from the first one's metrics."""
    kept = _vllm_metrics()
    yield
    for collector in _vllm_metrics():
        REGISTRY.unregister(collector)
    for collector in kept:
        REGISTRY.register(collector)


@pytest.fixture
def call() -> EngineRequest:
    return EngineRequest(request_id=f"test-{next(_ids)}")


@pytest.fixture
def make_chat() -> Callable[..., v1.ChatRequest]:
    """A greedy chat request with one user message; other fields by name."""

    def build(question: str, **fields: object) -> v1.ChatRequest:
        fields.setdefault("sampling_params", v1.SamplingParams(temperature=0, max_tokens=96))
        message = v1.ChatMessage(role="user", content=question)
        return v1.ChatRequest(model="tiny", messages=[message], **fields)  # type: ignore[arg-type]  # fields of the message by name

    return build
