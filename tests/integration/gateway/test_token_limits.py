"""Limits of tokens hold on every API that reports usage, over both data planes."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from tests.support.rest_stack import fake_server

from autoglm.gateway.identity.keys import new_key
from autoglm.testing.fake_pod import FakePod

TEXT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 50}
SSE = "text/event-stream"
OPENAI = {"prompt_tokens": 5000, "completion_tokens": 5000, "total_tokens": 10000}
OTHERS = {"input_tokens": 5000, "output_tokens": 5000}
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", TEXT, {"choices": [], "usage": OPENAI}),
    "messages": ("/v1/messages", TEXT, {"type": "message", "usage": OTHERS}),
    "stream": ("/v1/messages", TEXT | {"stream": True}, {}),
    "responses": (
        "/v1/responses",
        {"input": [{"role": "user", "content": "x"}]},
        {"usage": OTHERS},
    ),
    "score": ("/v1/score", {"text_1": "x", "text_2": "y"}, {"usage": OPENAI}),
    "rerank": ("/rerank", {"query": "x", "documents": ["y"]}, {"usage": {"total_tokens": 10000}}),
    "classify": ("/classify", {"input": "x"}, {"usage": OPENAI}),
    "pooling": ("/pooling", {"input": "x"}, {"usage": OPENAI}),
}


async def respond(request: web.Request) -> web.Response:
    body = await request.json()
    if not body.get("stream"):
        found = next(r for path, _, r in REQUESTS.values() if path == request.path)
        return web.json_response(found)
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 5000}}}
    end = {"type": "message_delta", "usage": {"output_tokens": 5000}}
    delta = {"type": "content_block_delta", "delta": {"text": "x" * 100}}
    events = [start, *[delta] * 200, end]
    text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)
    return web.Response(text=text, content_type=SSE)


async def test_no_api_gets_more_than_the_tenants_tokens(fleet: Any, tmp_path: Path) -> None:
    made = {name: new_key(name) for name in REQUESTS}
    keys, tenants = tmp_path / "keys.json", tmp_path / "tenants.json"
    keys.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in made.values()]}))
    tenants.write_text('{"default": {"tokensPerMinute": 20000}}')
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fake_server(respond))
        (pod,) = await fleet.pods(FakePod(model="m", http_port=int(url.rpartition(":")[2])))
        gateway = await fleet.gateway(pod, api_keys_file=str(keys), tenants_file=str(tenants))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        served: dict[str, int] = {}
        for name, (path, body, _) in REQUESTS.items():
            codes = []
            for _ in range(8):
                async with session.post(
                    f"http://127.0.0.1:{gateway.http_port}{path}",
                    json={"model": "m"} | body,
                    headers={"x-api-key": made[name][0]},
                ) as response:
                    codes.append(response.status)
                    await response.read()
            assert set(codes) == {200, 429}, (name, codes)
            served[name] = codes.count(200)
        # A bucket of 20,000 is paid off by the third request at the latest.
        assert set(served.values()) <= {2, 3}, served
