"""Large bodies are read in steps, between which other work runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator

import pytest

from autoglm.common.errors import InvalidRequest
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.validation.scan.reading import in_steps, read_message, read_openai

pytestmark = pytest.mark.asyncio


async def test_one_step_of_all_readings_is_taken_in_a_turn_of_the_loop() -> None:
    turn, turns_of_steps = 0, []

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def reading() -> Generator[int, None, str]:
        for _ in range(20):
            turns_of_steps.append(turn)
            yield 1
        return "done"

    counting = asyncio.create_task(count())
    assert await asyncio.gather(*(in_steps(reading()) for _ in range(5))) == ["done"] * 5
    counting.cancel()
    assert len(turns_of_steps) == 100
    assert max(map(turns_of_steps.count, turns_of_steps)) <= 2


async def test_readings_take_turns() -> None:
    order = []

    def reading(name: str) -> Generator[int, None, None]:
        for _ in range(10):
            order.append(name)
            yield 1

    await asyncio.gather(in_steps(reading("long")), in_steps(reading("short")))
    assert order[:6] == ["long", "short"] * 3


async def test_what_is_over_a_bound_is_refused_on_both_wires() -> None:
    body = b'{"messages":[' + b",".join([b"{}"] * 50_000) + b"]}"
    with pytest.raises(InvalidRequest, match="messages has more than 2048 entries"):
        await read_openai("/v1/chat/completions", body)
    method = BY_PATH["/autoglm.v1.Inference/Chat"]
    message = method.request.FromString(b"\x12\x00" * 50_000).SerializeToString()
    with pytest.raises(InvalidRequest, match="messages has more than 2048 entries"):
        await read_message(method.request, method.read, message)


async def test_a_body_with_many_values_is_read_as_a_small_one() -> None:
    message = b'{"role":"user","content":"x"}'
    body = b'{"model":"m","messages":[%s]}' % b",".join([message] * 2048)
    info = await read_openai("/v1/chat/completions", body)
    assert info.turns is not None and len(info.turns) == 2048


async def test_many_schemas_are_checked_off_the_loop() -> None:
    function = {"name": "f", "parameters": {"type": "object", "title": "x" * 1000}}
    tool = {"type": "function", "function": function}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool] * 500}
    info = await read_openai("/v1/chat/completions", json.dumps(body).encode())
    assert info.has_checked_constraints
    function["parameters"] = []
    with pytest.raises(InvalidRequest, match="a JSON schema is an object"):
        await read_openai("/v1/chat/completions", json.dumps(body).encode())
