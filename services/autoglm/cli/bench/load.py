"""Sends the requests of a load test, in a closed loop or at a rate, and notes their times."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from autoglm.cli.bench.figures import Outcome
from autoglm.cli.bench.prompts import Messages

_LINE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes what is sent where, how fast, and until when."""

    url: str
    """Address of the server, without a path."""
    model: str
    prompts: Iterator[str | Messages]
    output_tokens: int
    streams: bool = True
    concurrency: int = 8
    """Most requests at once; 0 for no bound, with a rate."""
    rate: float = 0.0
    """Mean requests a second, which start at random times; 0 for a closed loop."""
    requests: int = 100
    """Requests to send; 0 for no bound, with a duration."""
    duration: float = 0.0
    """Seconds in which requests are started; 0 for no bound."""
    timeout: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)
    ignores_eos: bool = False


@dataclass(slots=True)
class Run:
    """A load test while it runs, and after it."""

    outcomes: list[Outcome] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    running: int = 0
    is_interrupted: bool = False

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started


async def measure(plan: Plan, run: Run) -> None:
    """Send all requests. Returns early, with what was measured, when it is cancelled (Ctrl-C)."""
    run.started = time.monotonic()
    slots = asyncio.Semaphore(plan.concurrency or 2**31)
    try:
        timeout = aiohttp.ClientTimeout(total=plan.timeout)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(
                timeout=timeout,
                connector=connector,
                headers=plan.headers,
                read_bufsize=_LINE_BYTES,
                trust_env=True,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            arrivals = random.Random(0)
            run.started = due = time.monotonic()
            for sent, prompt in enumerate(plan.prompts):
                if plan.requests and sent >= plan.requests:
                    break
                if plan.rate:
                    due += arrivals.expovariate(plan.rate)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await slots.acquire()
                if plan.duration and time.monotonic() - run.started >= plan.duration:
                    break
                group.create_task(_one(session, plan, prompt, run, slots))
    except asyncio.CancelledError:
        run.is_interrupted = True
    run.ended = time.monotonic()


async def _one(
    session: aiohttp.ClientSession,
    plan: Plan,
    prompt: str | Messages,
    run: Run,
    slots: asyncio.Semaphore,
) -> None:
    run.running += 1
    outcome = Outcome(time.monotonic(), is_streamed=plan.streams)
    try:
        await _send(session, plan, prompt, outcome)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        outcome.error = outcome.error or type(error).__name__
    finally:
        run.running -= 1
        slots.release()
    outcome.ended = time.monotonic()
    run.outcomes.append(outcome)


async def _send(
    session: aiohttp.ClientSession, plan: Plan, prompt: str | Messages, outcome: Outcome
) -> None:
    path, body = _request(plan, prompt)
    async with session.post(f"{plan.url}{path}", json=body) as response:
        if response.status != 200:
            outcome.error = f"HTTP {response.status}"
            await response.read()
        elif plan.streams:
            await _read_stream(response, outcome)
        else:
            _note_usage(await response.json(), outcome)
            outcome.chunks.append(time.monotonic())


def _request(plan: Plan, prompt: str | Messages) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"model": plan.model, "max_tokens": plan.output_tokens}
    if plan.streams:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if plan.ignores_eos:
        body["ignore_eos"] = True
    if isinstance(prompt, str):
        return "/v1/completions", body | {"prompt": prompt}
    return "/v1/chat/completions", body | {"messages": prompt}


async def _read_stream(response: aiohttp.ClientResponse, outcome: Outcome) -> None:
    is_done = False
    async for line in response.content:
        if not line.startswith(b"data:"):
            continue
        now, data = time.monotonic(), line[5:].strip()
        if data == b"[DONE]":
            is_done = True
            continue
        event = json.loads(data)
        if "error" in event:
            outcome.error = "error in the stream"
            return
        if has_output(event):
            outcome.chunks.append(now)
        _note_usage(event, outcome)
    if not is_done:
        outcome.error = "stream without an end"
    outcome.output_tokens = outcome.output_tokens or len(outcome.chunks)


def has_output(event: Mapping[str, Any]) -> bool:
    """Return whether an event of a stream has output: of a completion or of a chat."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        parts = (choice.get("text"), *(delta.get(name) for name in _OUTPUT))
        if any(parts):
            return True
    return False


_OUTPUT = ("content", "reasoning_content", "reasoning", "tool_calls")


def _note_usage(event: Mapping[str, Any], outcome: Outcome) -> None:
    usage = event.get("usage") or {}
    outcome.input_tokens = int(usage.get("prompt_tokens") or outcome.input_tokens)
    outcome.output_tokens = int(usage.get("completion_tokens") or outcome.output_tokens)


async def models_at(url: str, headers: Mapping[str, str]) -> list[str]:
    """Return the names of the models of a server. Raises aiohttp.ClientError and TimeoutError."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers=headers, trust_env=True) as session,
        session.get(f"{url}/v1/models") as response,
    ):
        response.raise_for_status()
        page = await response.json()
    return [str(each["id"]) for each in page.get("data", ()) if not each.get("parent")]
