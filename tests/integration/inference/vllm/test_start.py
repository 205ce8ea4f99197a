"""Starts that fail, and engines that die. Each test has an engine of its own."""

import asyncio
import dataclasses
import gc
import os
import signal
from pathlib import Path

import httpx
import pytest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference import vllm
from autoglm.inference.engine import Engine, EngineOptions, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.usefixtures("metrics_kept"),
]


REST: dict[str, dict[str, object]] = {
    "/v1/completions": {"prompt": "x"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/responses": {"input": "x"},
}


@pytest.fixture
def of_cpus(options: EngineOptions) -> EngineOptions:
    """The default of vLLM on CPUs: a worker in a process of its own."""
    args = {k: v for k, v in options.engine_args.items() if k != "distributed_executor_backend"}
    return dataclasses.replace(options, engine_args=args)


async def failure(options: EngineOptions) -> Exception:
    with pytest.raises(Exception) as failed:
        await vllm.start(options)
    return failed.value


async def test_vllm_judges_arguments_itself(of_cpus: EngineOptions) -> None:
    wrong = dataclasses.replace(of_cpus, engine_args={"no_such_thing": 1})

    assert "no-such-thing" in str(await failure(wrong))


async def test_a_missing_model_is_named(of_cpus: EngineOptions) -> None:
    failed = await failure(dataclasses.replace(of_cpus, model="/no/such/model"))

    assert "/no/such/model" in vllm.root_cause(failed)


async def test_a_cpu_is_no_gpu(of_cpus: EngineOptions) -> None:
    assert "runs on cpu" in str(await failure(dataclasses.replace(of_cpus, device="cuda")))


async def test_garbage_is_collected_again_after_a_start(of_cpus: EngineOptions) -> None:
    await failure(dataclasses.replace(of_cpus, engine_args={"no_such_thing": 1}))

    assert gc.isenabled()


async def test_no_process_is_started_to_inspect_a_model(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import envs
    from vllm.model_executor.models import registry

    def no_process(command: object, **options: object) -> None:
        raise AssertionError(f"{command} was started")

    envs.disable_envs_cache()
    # Where vLLM keeps what it knows of models: nothing, as in a container that starts.
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    monkeypatch.setattr(registry.subprocess, "run", no_process)

    found = registry.ModelRegistry.models["Glm4ForCausalLM"].inspect_model_cls()

    assert found.architecture == "Glm4ForCausalLM"
    assert list(tmp_path.glob("modelinfos/*"))  # noqa: ASYNC240 - nothing else runs


async def test_the_cause_in_another_process_is_found(of_cpus: EngineOptions) -> None:
    """Only the worker process reads the free memory."""
    failed = await failure(dataclasses.replace(of_cpus, gpu_memory_utilization=1.0))

    assert "root cause above" in str(failed)
    assert vllm.root_cause(failed).startswith("ValueError: Available memory on node")


async def test_death_is_noticed_at_once_and_reported(of_cpus: EngineOptions) -> None:
    engine = await vllm.start(of_cpus)
    asked = v1.GenerateRequest(
        text="x", sampling_params=v1.SamplingParams(max_tokens=900, ignore_eos=True)
    )
    stream = engine.generate_stream(asked, EngineRequest("a"))
    await anext(stream)
    (process,) = engine.processes()

    os.kill(process, signal.SIGKILL)

    assert "killed with SIGKILL" in await asyncio.wait_for(engine.wait_dead(), timeout=10)
    with pytest.raises(errors.EngineDead):
        [chunk async for chunk in stream]
    with pytest.raises(errors.EngineDead):
        await engine.generate(asked, EngineRequest("b"))
    with pytest.raises(errors.EngineDead):
        await engine.chat(
            v1.ChatRequest(messages=[v1.ChatMessage(role="user", content="x")]), EngineRequest("c")
        )
    transport = httpx.ASGITransport(app=engine.http_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        for path, body in REST.items():
            found = await client.post(path, json={"model": "tiny", "max_tokens": 4} | body)
            assert found.status_code == 503, found.text
            assert "Retry." in found.text
    await engine.close()
