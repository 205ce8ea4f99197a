"""Browsers' pages of other origins, on both data planes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from tests.support.rest_stack import RestStack, rest_stack

from autoglm.common.errors import Unauthenticated
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
APP = "https://app.example"
PREFLIGHT = {
    "origin": APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def permissive(_: web.Request) -> web.Response:
    """As vLLM by default."""
    headers = {
        "access-control-allow-origin": "*",
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "x-theirs",
    }
    return web.json_response({"id": "x"}, headers=headers)


async def authenticate_none(_: GatewayRequest) -> Principal:
    raise Unauthenticated("no key")


async def options(gateway: RestStack, path: str, headers: dict[str, str]) -> Any:
    async with gateway.client.options(path, headers=headers) as response:
        await response.read()
        return response


async def post(gateway: RestStack, origin: str, body: Any = HELLO) -> Any:
    headers = {"origin": origin} if origin else {}
    async with gateway.client.post(CHAT, data=json.dumps(body), headers=headers) as response:
        await response.read()
        return response


def about_cors(response: Any) -> set[str]:
    return {name for name in response.headers if name.lower().startswith("access-control-")}


async def test_nothing_is_allowed_by_default_whatever_servers_say(plane: str) -> None:
    async with rest_stack(permissive, plane=plane) as gateway:
        preflight = await options(gateway, CHAT, PREFLIGHT)
        answer = await post(gateway, APP)
    assert preflight.status == 405 and not about_cors(preflight)
    assert answer.status == 200 and not about_cors(answer)


@pytest.mark.parametrize("allowed", [APP, "*"])
async def test_a_preflight_needs_no_credential(allowed: str, plane: str) -> None:
    async with rest_stack(
        permissive, plane=plane, identify=authenticate_none, allowed_origins=(allowed,)
    ) as gateway:
        for path in (CHAT, "/v1/models", "/v1/messages"):
            preflight = await options(gateway, path, PREFLIGHT)
            assert preflight.status in (200, 204)
            assert preflight.headers["access-control-allow-origin"] in (allowed, APP)
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert "authorization" in preflight.headers["access-control-allow-headers"]
            assert int(preflight.headers["access-control-max-age"]) > 0
            assert "access-control-allow-credentials" not in preflight.headers


@pytest.mark.parametrize("allowed", [APP, "*"])
async def test_an_allowed_page_reads_responses_and_errors(allowed: str, plane: str) -> None:
    async with rest_stack(permissive, plane=plane, allowed_origins=(allowed,)) as gateway:
        answers = [await post(gateway, APP), await post(gateway, APP, {})]
        async with gateway.client.get("/v1/models", headers={"origin": APP}) as response:
            answers.append(response)
    async with rest_stack(
        permissive, plane=plane, identify=authenticate_none, allowed_origins=(allowed,)
    ) as gateway:
        answers.append(await post(gateway, APP))
    assert [answer.status for answer in answers] == [200, 400, 200, 401]
    for answer in answers:
        assert answer.headers.getall("access-control-allow-origin") in ([allowed], [APP])
        exposed = answer.headers.getall("access-control-expose-headers")
        assert len(exposed) == 1 and "x-request-id" in exposed[0] and "x-theirs" not in exposed[0]
        assert "access-control-allow-credentials" not in answer.headers
        assert allowed == "*" or answer.headers["vary"] == "Origin"


async def test_another_page_reads_nothing(plane: str) -> None:
    async with rest_stack(permissive, plane=plane, allowed_origins=(APP,)) as gateway:
        for origin in ("https://evil.example", "null", ""):
            answer = await post(gateway, origin)
            assert answer.status == 200 and not about_cors(answer)
            assert answer.headers["vary"] == "Origin"
        preflight = await options(gateway, CHAT, PREFLIGHT | {"origin": "https://evil.example"})
    assert preflight.status == 405 and not about_cors(preflight)
