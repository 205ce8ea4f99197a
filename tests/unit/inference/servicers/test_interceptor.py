"""Large messages are read in steps, and decoded off the event loop."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import pytest

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.common.rpc import Rpc, current_rpc
from autoglm.inference.pod import Pod
from autoglm.inference.servicers import interceptor
from autoglm.inference.servicers.interceptor import RequestInterceptor, info_of
from autoglm.validation import RequestInfo, bounds, of_chat

SCHEMA = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(500)}}


class Details(NamedTuple):
    method: str = "/autoglm.v1.Inference/Chat"


async def served(request: v1.ChatRequest, behaviour: Callable[[Any, Any], Any]) -> Any:
    """What a servicer's method makes of the request behind the interceptor."""
    handler: Any = grpc.unary_unary_rpc_method_handler(behaviour, v1.ChatRequest.FromString)

    async def continuation(_: object) -> Any:
        return handler

    current_rpc.set(Rpc(method=Details().method))
    intercepted = RequestInterceptor(Pod(), bounds.DEFAULT)
    bounded = await intercepted.intercept_service(continuation, Details())
    return await bounded.unary_unary(request.SerializeToString(), None)


async def read_info(request: v1.ChatRequest, _: object) -> RequestInfo:
    return info_of(request, streaming=True)


def chat(schemas: int, schema: str = json.dumps(SCHEMA)) -> v1.ChatRequest:
    tools = [v1.Tool(name=f"f{i}", parameters=schema) for i in range(schemas)]
    return v1.ChatRequest(
        model="m", messages=[v1.ChatMessage(role="user", content="x")], tools=tools
    )


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those that read chats."""
    found: list[threading.Thread] = []

    def noted(request: v1.ChatRequest, **options: Any) -> RequestInfo:
        found.append(threading.current_thread())
        return of_chat(request, **options)

    monkeypatch.setitem(interceptor._EXTRACTORS, v1.ChatRequest, noted)
    return found


async def test_many_schemas_are_read_and_checked_on_another_thread(
    threads: list[threading.Thread],
) -> None:
    info = await served(chat(schemas=100), read_info)
    assert threads and threading.main_thread() not in threads
    assert info.has_checked_constraints
    assert info.streaming


async def test_a_small_request_is_read_where_it_is_served(threads: list[threading.Thread]) -> None:
    info = await served(chat(schemas=0), read_info)
    assert threads == [threading.main_thread()]
    assert info == of_chat(chat(schemas=0), streaming=True)


async def test_a_large_request_requires_the_same_as_a_small_one() -> None:
    request = chat(schemas=100)
    info = await served(request, read_info)
    assert info.tools == of_chat(request).tools


async def test_an_error_of_a_large_request_is_raised_by_the_servicer() -> None:
    async def counted(request: v1.ChatRequest, _: object) -> str:
        with pytest.raises(InvalidRequest, match="tools"):
            info_of(request)
        return "counted"

    assert await served(chat(schemas=100, schema="{" + " " * 4000), counted) == "counted"
