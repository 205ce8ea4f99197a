"""Mixed traffic through one gateway for a long time: does anything grow, does all end at zero?

gRPC and REST, streams and unary, clients that cancel, that read slowly, that send nonsense or leave
in the middle of a body, and a pod that is killed and started again every minute. Fails when memory
grows, or when tasks, descriptors, places or held memory are not back where they were at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import aiohttp
import click
import grpc
from tests.support import processes
from tests.support.processes import Process

from autoglm import v1
from autoglm.v1.inference_pb2_grpc import InferenceStub
from benchmarks import load
from benchmarks.report import Report

if TYPE_CHECKING:
    from autoglm.v1.inference_pb2_grpc import InferenceAsyncStub

WORKERS = 24
SAMPLE_SECONDS = 5.0
KILL_SECONDS = 60.0
SETTLE_SECONDS = 30.0
PATH = "/v1/completions"
# Growth from the second quarter to the last one that is still flat: allocators keep some.
MEMORY_GROWTH, MEMORY_MB = 1.05, 8.0
# Connections to pods and scrapes that may be open by chance.
CHANCE = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway's at one time."""

    seconds: float
    memory_mb: float
    tasks: int
    descriptors: int
    threads: int
    in_flight: int
    admitted: int
    queued: int
    held_bytes: int


def run(directory: Path, *, quick: bool) -> None:
    soak(directory, 60.0 if quick else 1200.0)


@click.command()
@click.option("--minutes", type=float, default=20.0, show_default=True)
def main(minutes: float) -> None:
    """Soak one gateway; exits with 1 when something has grown or was left over."""
    soak(load.ROOT / "build/benchmarks", minutes * 60)


def soak(directory: Path, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as made:
        logs = Path(made)
        slow = ("--max-num-seqs", "8", "--echo-token-rate", "100")
        flood = ("--model-name", "flood", "--max-model-len", "200000", "--echo-kv-blocks", "100000")
        pods = [
            processes.echo_pod(logs, "first", *slow),
            processes.echo_pod(logs, "second", *slow),
            processes.echo_pod(logs, "flood", *flood),
        ]
        gateway = processes.gateway(logs, pods, "--slow-reader-seconds", "1")
        with processes.running(*pods), processes.running(gateway):
            processes.eventually(lambda: gateway.ready_endpoints() == 3)
            time.sleep(2)
            samples, ends = asyncio.run(traffic(gateway, pods[0], seconds))
    problems = judge(samples)
    report = report_of(samples, ends, seconds, problems)
    report.publish(directory)
    if problems:
        sys.exit(1)


async def traffic(
    gateway: Process, victim: Process, seconds: float
) -> tuple[list[Sample], Counter[str]]:
    """Samples from before the first request to after the last; how requests ended."""
    begun, ends = time.monotonic(), Counter[str]()
    samples = [await asyncio.to_thread(sample, gateway, begun)]
    stop = asyncio.Event()
    work = [asyncio.create_task(worker(n, gateway, stop, ends)) for n in range(WORKERS)]
    killer = asyncio.create_task(kill_again(victim, stop))
    while time.monotonic() - begun < seconds:
        await asyncio.sleep(SAMPLE_SECONDS)
        samples.append(await asyncio.to_thread(sample, gateway, begun))
    stop.set()
    await asyncio.gather(*work, killer)
    await asyncio.sleep(SETTLE_SECONDS)
    samples.append(await asyncio.to_thread(sample, gateway, begun))
    return samples, ends


async def kill_again(victim: Process, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), KILL_SECONDS)
            return
        await asyncio.to_thread(victim.kill)
        await asyncio.to_thread(victim.start().wait_ready)


@dataclass(frozen=True, slots=True)
class Client:
    stub: InferenceAsyncStub
    session: aiohttp.ClientSession
    host: str
    port: int
    rng: Random


@asynccontextmanager
async def client_of(gateway: Process, number: int) -> AsyncIterator[Client]:
    host, port = gateway.http_address.split(":")
    async with (
        grpc.aio.insecure_channel(gateway.grpc_address) as channel,
        aiohttp.ClientSession(f"http://{gateway.http_address}") as session,
    ):
        yield Client(InferenceStub(channel), session, host, int(port), Random(number))


async def worker(number: int, gateway: Process, stop: asyncio.Event, ends: Counter[str]) -> None:
    """One request after the other; a new client, with new connections, after some hundred."""
    rng = Random(number)
    while not stop.is_set():
        async with client_of(gateway, rng.getrandbits(32)) as client:
            for _ in range(rng.randint(50, 200)):
                if stop.is_set():
                    return
                (act,) = rng.choices(list(ACTS), list(ACTS.values()))
                ends[f"{act.__name__}: {await end_of(act, client)}"] += 1


async def end_of(act: Callable[[Client], Awaitable[None]], client: Client) -> str:
    try:
        async with asyncio.timeout(60):
            await act(client)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    except aiohttp.ClientResponseError as error:
        return str(error.status)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        return type(error).__name__
    return "done"


def request(client: Client, model: str = "echo", tokens: int = 0) -> v1.GenerateRequest:
    words, count = client.rng.randint(1, 400), tokens or client.rng.randint(1, 60)
    sampling = v1.SamplingParams(max_tokens=count, ignore_eos=True)
    return v1.GenerateRequest(model=model, text="word " * words, sampling_params=sampling)


def body(client: Client, model: str = "echo", tokens: int = 0) -> dict[str, object]:
    made = request(client, model, tokens)
    count = made.sampling_params.max_tokens
    return {"model": model, "prompt": made.text, "max_tokens": count, "ignore_eos": True}


async def grpc_unary(client: Client) -> None:
    await client.stub.Generate(request(client))


async def grpc_stream(client: Client) -> None:
    async for _ in client.stub.GenerateStream(request(client)):
        pass


async def grpc_cancel(client: Client) -> None:
    stream = client.stub.GenerateStream(request(client, tokens=500))
    for _ in range(client.rng.randint(0, 5)):
        await stream.read()
    stream.cancel()


async def grpc_deadline(client: Client) -> None:
    await client.stub.Generate(request(client, tokens=500), timeout=client.rng.uniform(0.001, 1))


async def grpc_wrong(client: Client) -> None:
    await client.stub.Generate(request(client, client.rng.choice(("nobody", "")), 1_000_000))


async def grpc_slow_reader(client: Client) -> None:
    stream = client.stub.GenerateStream(request(client, "flood", 50_000))
    await stream.read()
    await asyncio.sleep(3)
    stream.cancel()


async def rest_unary(client: Client) -> None:
    async with client.session.post(PATH, json=body(client)) as response:
        response.raise_for_status()
        await response.read()


async def rest_stream(client: Client) -> None:
    async with client.session.post(PATH, json=body(client) | {"stream": True}) as response:
        response.raise_for_status()
        async for _ in response.content.iter_any():
            pass


async def rest_cancel(client: Client) -> None:
    slow = body(client, tokens=500) | {"stream": True}
    async with client.session.post(PATH, json=slow) as response:
        await response.content.readany()


async def rest_wrong(client: Client) -> None:
    wrong: Sequence[tuple[bytes, dict[str, str]]] = (
        (b"{", {}),
        (b'{"model": "echo", "prompt": 7}', {}),
        (b"not gzip", {"content-encoding": "gzip"}),
        (json.dumps(body(client, "nobody")).encode(), {}),
    )
    data, headers = client.rng.choice(wrong)
    async with client.session.post(PATH, data=data, headers=headers) as response:
        response.raise_for_status()
        await response.read()


async def rest_large(client: Client) -> None:
    large = body(client) | {"user": "x" * client.rng.randint(0, 2_000_000)}
    async with client.session.post(PATH, json=large) as response:
        response.raise_for_status()
        await response.read()


async def rest_half_a_body(client: Client) -> None:
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n".encode())
    writer.write(bytes(client.rng.randint(0, 90_000)))
    await asyncio.sleep(client.rng.random())
    writer.close()


async def rest_slow_reader(client: Client) -> None:
    slow = body(client, "flood", 50_000) | {"stream": True}
    async with client.session.post(PATH, json=slow) as response:
        await response.content.readany()
        await asyncio.sleep(3)


# What a worker does, and how often.
ACTS: dict[Callable[[Client], Awaitable[None]], float] = {
    **{grpc_unary: 20, grpc_stream: 20, rest_unary: 20, rest_stream: 20},
    **{grpc_cancel: 5, grpc_deadline: 5, rest_cancel: 5, grpc_wrong: 2, rest_wrong: 2},
    **{rest_half_a_body: 2, rest_large: 1, grpc_slow_reader: 0.3, rest_slow_reader: 0.3},
}


def sample(gateway: Process, begun: float) -> Sample:
    proc = Path(f"/proc/{gateway.pid}")
    state, page = (proc / "status").read_text(), gateway.get("/metrics")[1]
    return Sample(
        seconds=time.monotonic() - begun,
        memory_mb=_number(r"^VmRSS:\s+(\d+)", state) / 1024,
        tasks=int(_number(r"^autoglm_event_loop_tasks (\S+)", page)),
        descriptors=len(list((proc / "fd").iterdir())),
        threads=int(_number(r"^Threads:\s+(\d+)", state)),
        in_flight=int(_number(r"^autoglm_gateway_requests_in_flight (\S+)", page)),
        admitted=int(_number(r"^autoglm_gateway_admitted_requests{.*?} (\S+)", page)),
        queued=int(_number(r"^autoglm_gateway_queue_requests{.*?} (\S+)", page)),
        held_bytes=int(_number(r"^autoglm_gateway_request_memory_bytes (\S+)", page)),
    )


def _number(pattern: str, text: str) -> float:
    """The sum of all that match."""
    return sum(float(found) for found in re.findall(pattern, text, re.MULTILINE))


def judge(samples: Sequence[Sample]) -> list[str]:
    """What has grown, and what was left over."""
    before, *during, after = samples
    left = {
        name: getattr(after, name) for name in ("in_flight", "admitted", "queued", "held_bytes")
    }
    problems = [f"{name} is {value} at the end" for name, value in left.items() if value]
    if after.tasks > before.tasks + CHANCE:
        problems.append(f"tasks: {before.tasks} before, {after.tasks} at the end")
    if after.descriptors > before.descriptors + CHANCE:
        problems.append(f"descriptors: {before.descriptors} before, {after.descriptors} at the end")
    quarter = max(1, len(during) // 4)
    early = statistics.median(s.memory_mb for s in during[quarter : 2 * quarter] or during)
    late = statistics.median(s.memory_mb for s in during[-quarter:])
    if late > early * MEMORY_GROWTH + MEMORY_MB:
        problems.append(f"memory: {early:.0f} MB in the second quarter, {late:.0f} MB in the last")
    return problems


def report_of(
    samples: Sequence[Sample], ends: Counter[str], seconds: float, problems: Sequence[str]
) -> Report:
    columns = [field.name for field in fields(Sample)]
    report = Report("soak", f"Soak of one gateway, {seconds / 60:.0f} minutes", columns)
    step = max(1, len(samples) // 12)
    for one in [*samples[:-1:step], samples[-1]]:
        report.rows.append({name: getattr(one, name) for name in columns})
    report.notes.append(f"{sum(ends.values())} requests: {dict(sorted(ends.items()))}")
    report.notes.append("; ".join(problems) or "nothing has grown, nothing was left over")
    return report


if __name__ == "__main__":
    main()
