"""vLLM's AsyncLLM with nothing around it, measured from inside its own process.

Run as `python -m benchmarks.bare_engine MODEL`; reads lines of JSON ({"clients", "requests",
"tokens", "prompt"}) and responds to each with a line of JSON in the load generator's form.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from typing import Any

import uvloop
from tests.support.processes import ONE_PROCESS
from vllm import AsyncEngineArgs, SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


async def one(engine: AsyncLLM, prompt: str, tokens: int, name: str) -> tuple[float, float, int]:
    """Seconds to the first token, seconds in all, tokens."""
    params = SamplingParams(
        temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
    )
    begin, first, count = time.perf_counter(), 0.0, 0
    async for output in engine.generate(prompt, params, name):
        first = first or time.perf_counter() - begin
        count += len(output.outputs[0].token_ids)
    return first, time.perf_counter() - begin, count


async def measure(engine: AsyncLLM, load: dict[str, Any], series: int) -> dict[str, Any]:
    names = iter(range(load["requests"]))
    results: list[tuple[float, float, int]] = []

    async def client() -> None:
        for number in names:
            name = f"{series}-{number}"
            results.append(await one(engine, load["prompt"], load["tokens"], name))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(load["clients"])))
    return {
        "seconds": time.perf_counter() - begin,
        "tokens": sum(r[2] for r in results),
        "time_to_first_message": summary([r[0] for r in results]),
        "latency": summary([r[1] for r in results]),
        "cpu_seconds": resource.getrusage(resource.RUSAGE_SELF).ru_utime,
    }


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {f"p{q}": ordered[round(q / 100 * (len(ordered) - 1))] for q in (50, 90, 99)}
    return {"mean": sum(ordered) / len(ordered), "max": ordered[-1], **at}


async def main() -> None:
    settings = AsyncEngineArgs(
        model=sys.argv[1],
        max_model_len=2048,
        gpu_memory_utilization=0.3,
        max_num_seqs=int(sys.argv[2]),
        distributed_executor_backend=ONE_PROCESS,
    )
    # Our lines go to the real standard output; vLLM's own logging must not mix with them.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = AsyncLLM.from_engine_args(settings)
    print(json.dumps({"ready": True}), file=output, flush=True)
    series = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await measure(engine, json.loads(line), series)), file=output, flush=True)
        series += 1
    engine.shutdown()


if __name__ == "__main__":
    uvloop.run(main())
