"""The key of third-party servers, by file and by flag, on both data planes."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support import processes
from tests.support.rest_stack import fake_server

from autoglm.gateway.settings import GatewaySettings

pytestmark = pytest.mark.timeout(60)
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def test_the_key_of_a_file_is_re_read_when_it_changes(fleet: Any, tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    async def respond(request: web.Request) -> web.Response:
        await request.read()
        seen.setdefault(request.path, set()).add(request.headers.get("authorization", ""))
        return web.json_response({"data": [{"id": "m", "max_model_len": 64}]})

    file = tmp_path / "key"
    file.write_text("one\n")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(fake_server(respond))
        gateway = await fleet.gateway(ready=1, endpoint=(url,), upstream_api_key_file=str(file))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        chat = f"http://127.0.0.1:{gateway.http_port}/v1/chat/completions"

        async def post() -> None:
            headers = {"authorization": "Bearer the-callers"}
            async with session.post(chat, json=HELLO, headers=headers) as response:
                assert response.status == 200, await response.text()

        await post()
        assert seen["/v1/chat/completions"] == seen["/v1/models"] == {"Bearer one"}
        file.write_text("no key\nat all")
        file.write_text("two\n")
        await fleet.until(lambda: "Bearer two" in seen["/v1/models"])
        await post()
        assert seen["/v1/chat/completions"] == {"Bearer one", "Bearer two"}


@pytest.mark.plane("embedded", "settings and logs are the same")
async def test_a_missing_key_file_is_named_at_the_start(fleet: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-such-key"):
        await fleet.gateway(upstream_api_key_file=str(tmp_path / "no-such-key"))
    assert GatewaySettings().upstream_api_key_file == ""


def test_a_key_as_a_flag_logs_a_warning_without_it(tmp_path: Path, plane: str) -> None:
    flags = ("--data-plane", plane, "--endpoint", "http://127.0.0.1:9", "--log-level", "debug")
    gateway = processes.gateway(tmp_path, [], *flags, "--upstream-api-key", "very-secret")
    gateway.start()
    try:
        processes.eventually(lambda: gateway.get("/health")[0] == 200)
    finally:
        gateway.stop()
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    (warning,) = [one for one in lines if "--upstream-api-key" in one["message"]]
    assert (warning["level"], "--upstream-api-key-file" in warning["message"]) == ("warning", True)
    assert "very-secret" not in gateway.log.read_text()
