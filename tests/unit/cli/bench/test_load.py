"""A load test sends what its plan says, and notes failures without ending."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.unit.cli.conftest import Autoglm

from autoglm.cli.bench.load import Plan, Run, has_output, measure
from autoglm.cli.bench.prompts import of_file, of_length

EVENTS = [
    {"choices": [{"text": "a"}]},
    {"choices": [{"text": "b"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
]
Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def stream(request: web.Request, *, ends: bool = True) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for event in EVENTS:
        await response.write(f"data: {json.dumps(event)}\n\n".encode())
    if ends:
        await response.write(b"data: [DONE]\n\n")
    return response


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", respond)
    app.router.add_post("/v1/chat/completions", respond)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def plan(url: str, **fields: Any) -> Plan:
    given: dict[str, Any] = {"prompts": of_length(4, seed=0), "output_tokens": 2, "requests": 5}
    return Plan(url, "m", **(given | fields))


async def test_a_stream_is_measured_by_the_servers_own_count() -> None:
    async with serving(stream) as url:
        run = Run()
        await measure(plan(url), run)

    assert [(o.error, len(o.chunks), o.input_tokens, o.output_tokens) for o in run.outcomes] == (
        [("", 2, 5, 2)] * 5
    )
    assert all(o.started <= o.chunks[0] <= o.chunks[1] <= o.ended for o in run.outcomes)


async def test_no_more_run_at_once_than_the_plan_allows() -> None:
    most, running = 0, 0

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await stream(request)

    async with serving(respond) as url:
        run = Run()
        await measure(plan(url, concurrency=3, requests=9), run)

    assert (most, len(run.outcomes)) == (3, 9)


async def test_failures_are_counted_and_end_nothing() -> None:
    count = 0

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count == 1:
            return web.Response(status=503)
        return await stream(request, ends=count > 2)

    async with serving(respond) as url:
        run = Run()
        await measure(plan(url, concurrency=1, requests=3), run)

    assert [o.error for o in run.outcomes] == ["HTTP 503", "stream without an end", ""]


async def test_chats_and_responses_without_a_stream_are_measured() -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert request.path == "/v1/chat/completions" and "stream" not in body
        assert request.headers["Authorization"] == "Bearer k"
        return web.json_response({"usage": {"prompt_tokens": 1, "completion_tokens": 7}})

    async with serving(respond) as url:
        run = Run()
        messages = [{"role": "user", "content": "hi"}]
        headers = {"Authorization": "Bearer k"}
        await measure(
            plan(url, prompts=repeat(messages), streams=False, headers=headers, requests=2), run
        )

    assert [(o.error, o.output_tokens) for o in run.outcomes] == [("", 7)] * 2


async def test_an_interrupted_run_keeps_what_it_measured() -> None:
    count, waiting = 0, asyncio.Event()

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        if count > 2:
            waiting.set()
            await asyncio.Event().wait()
        return await stream(request)

    async with serving(respond) as url:
        run = Run()
        task = asyncio.create_task(measure(plan(url, concurrency=1), run))
        await waiting.wait()
        task.cancel()
        await task

    assert run.is_interrupted
    assert len(run.outcomes) == 2


async def test_no_request_starts_after_the_duration() -> None:
    async with serving(stream) as url:
        run = Run()
        await measure(plan(url, requests=0, duration=0.5, concurrency=1), run)

    assert run.outcomes
    assert all(o.started - run.started < 0.5 for o in run.outcomes)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"text": "a"}, True),
        ({"delta": {"content": "a"}}, True),
        ({"delta": {"reasoning": "a"}}, True),
        ({"delta": {"role": "assistant", "content": ""}}, False),
    ],
)
def test_only_events_with_output_are_tokens(choice: dict[str, Any], expected: bool) -> None:
    assert has_output({"choices": [choice]}) is expected


def test_prompts_have_their_length_and_differ() -> None:
    prompts = of_length(50, seed=1)
    first, second = next(prompts), next(prompts)
    assert len(first.split()) == len(second.split()) == 50
    assert first != second
    assert first == next(of_length(50, seed=1))


def test_a_file_has_texts_prompts_and_chats(tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text('one two\n{"prompt": "three"}\n{"messages": [{"role": "user"}]}\n')
    prompts = of_file(file)
    assert [next(prompts) for _ in range(4)] == ["one two", "three", [{"role": "user"}], "one two"]


def test_a_line_without_a_prompt_is_named(autoglm: Autoglm, tmp_path: Path) -> None:
    file = tmp_path / "prompts"
    file.write_text("fine\n{}\n")
    result = autoglm("bench", "--dataset", str(file))
    assert result.code == 2
    assert "line 2: neither `prompt` nor `messages`" in " ".join(result.err.split())


def test_a_server_that_does_not_respond_is_one_sentence(autoglm: Autoglm) -> None:
    result = autoglm("bench", "--url", "http://127.0.0.1:9")
    assert (result.code, result.out) == (1, "")
    assert "http://127.0.0.1:9/v1/models does not respond" in result.err


def test_a_run_of_which_all_requests_failed_is_an_error(autoglm: Autoglm) -> None:
    arguments = ("--url", "http://127.0.0.1:9", "--model", "m", "--requests", "2")
    result = autoglm("bench", *arguments)
    assert result.code == 1
    assert "0 requests completed, 2 failed" in result.out
    assert "2 x ClientConnectorError" in result.out
