"""Which paths reach a pod, over both data planes: those of the table, and no others."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.support.rest_stack import RestStack, rest_stack
from yarl import URL

from autoglm.validation.http_apis import DENIED, INFERENCE_POSTS, MODEL, OWN, Body

TEXT = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
BODIES: dict[Body, dict[str, Any]] = {
    Body.CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    Body.COMPLETION: {"prompt": "hi"},
    Body.RESPONSES: {"input": "hi"},
    Body.MESSAGES: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5},
    Body.EMBEDDINGS: {"input": "hi"},
    Body.BATCH: {"messages": [[{"role": "user", "content": "hi"}]]},
    Body.PREDICT: {"input_data": "hi"},
    Body.OIP: {"inputs": [TEXT]},
    Body.TOKENIZE: {"prompt": "hi"},
}


async def seen(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response(
        {"method": request.method, "path": request.rel_url.raw_path_qs, "size": len(body)}
    )


async def never(request: web.Request) -> web.Response:
    raise AssertionError(f"{request.path} must not reach a pod")


async def get(gateway: RestStack, path: str) -> tuple[int, Any]:
    async with gateway.client.get(path) as response:
        return response.status, await response.json(content_type=None)


def form() -> aiohttp.FormData:
    data = aiohttp.FormData({"model": "m"})
    data.add_field("file", b"\r\n--x\r\n" * 1000, filename="a.wav", content_type="audio/wav")
    return data


@pytest.mark.parametrize("end", ["", "/"])
async def test_every_inference_api_reaches_a_pod_with_and_without_a_last_slash(
    end: str, plane: str
) -> None:
    async with rest_stack(seen, plane=plane) as gateway:
        for api in INFERENCE_POSTS:
            path = api.path.replace(MODEL, "m")
            if api.body is Body.FORM:
                sent: dict[str, Any] = {"data": form()}
            else:
                sent = {"json": {"model": "m"} | BODIES.get(api.body, {})}
            async with gateway.client.post(path + end + "?a=%20b", **sent) as response:
                assert response.status == 200, (path, await response.text())
                found = await response.json()
            assert (found["method"], found["path"]) == ("POST", path + "?a=%20b")


@pytest.mark.parametrize("end", ["", "/"])
async def test_another_method_is_rejected_with_exactly_what_the_path_allows(
    end: str, plane: str
) -> None:
    async with rest_stack(never, plane=plane) as gateway:
        for api in INFERENCE_POSTS:
            path = api.path.replace(MODEL, "m") + end
            async with gateway.client.options(path) as response:
                assert (response.status, response.headers["allow"]) == (405, "POST"), path


async def test_a_form_reaches_the_pod_byte_for_byte(plane: str) -> None:
    kind = 'multipart/form-data; boundary="b0"'
    body = b'--b0\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b0--\r\n'

    async def check(request: web.Request) -> web.Response:
        is_same = await request.read() == body and request.headers["content-type"] == kind
        return web.json_response({"same": is_same})

    async with rest_stack(check, plane=plane) as gateway:
        sent = gateway.client.post(
            "/v1/audio/transcriptions", data=body, headers={"content-type": kind}
        )
        async with sent as response:
            assert await response.json() == {"same": True}


async def test_no_denied_path_reaches_a_pod(plane: str) -> None:
    async with rest_stack(never, plane=plane) as gateway:
        # Where the gateway has a page of its own, the pod's stays denied.
        for path in DENIED.keys() - OWN.keys():
            for method in ("GET", "POST", "DELETE"):
                async with gateway.client.request(method, path, json={"model": "m"}) as response:
                    error = (await response.json())["error"]
                    assert (response.status, error["code"]) == (404, "unknown_path"), path
                    assert DENIED[path] in error["message"]


@pytest.mark.parametrize("end", ["", "/"])
async def test_the_gateways_own_paths_never_reach_a_pod(end: str, plane: str) -> None:
    async with rest_stack(never, plane=plane) as gateway:
        for path in OWN:
            target = path.replace(MODEL, "m").rstrip("/") + end or "/"
            async with gateway.client.get(target) as response:
                assert response.status == 200, target
        assert "version" in (await get(gateway, "/version"))[1]


async def test_a_get_of_a_tokenizer_goes_to_the_model_that_it_names(plane: str) -> None:
    async with rest_stack(seen, plane=plane) as gateway:
        code, found = await get(gateway, "/tokenizer_info")
        assert (code, found["method"], found["path"]) == (200, "GET", "/tokenizer_info")
        code, found = await get(gateway, "/tokenizer_info?model=x")
    assert (code, found["error"]["param"]) == (404, "model")


async def test_versions_config_and_stats_are_no_models(plane: str) -> None:
    async with rest_stack(seen, plane=plane) as gateway:
        assert (await get(gateway, "/v2/models/m/versions/1/ready"))[1]["ready"] is True
        found = (await get(gateway, "/v2/models/m/versions/1"))[1]
        assert found["path"] == "/v2/models/m"
        for what in ("config", "stats", "versions/1/config"):
            code, found = await get(gateway, f"/v2/models/m/{what}")
            assert code == 501
            assert "not served" in found["error"]
        assert (await get(gateway, "/v2/models/x/config"))[0] == 404


async def test_a_path_that_climbs_reaches_no_other(plane: str) -> None:
    async with rest_stack(never, plane=plane) as gateway:
        for path in ("/v2/models/../../sleep", "/v2/models/m/../../../sleep/infer"):
            url = f"{gateway.url}{path}"
            async with gateway.client.post(
                URL(url, encoded=True), data=json.dumps({"inputs": [TEXT]})
            ) as response:
                assert response.status in (404, 405)
