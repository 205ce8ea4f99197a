"""Bodies and errors of a pod's apps over ASGI."""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autoglm.common.errors import RateLimited
from autoglm.inference.engine import Message
from autoglm.inference.http.asgi import ReceivedBody, call_of, guarded, read_body, reject

PATH = "/v1/completions"


def client() -> httpx.AsyncClient:
    async def endpoint(request: Request) -> Response:
        body = await read_body(request, limit=4)
        if body == b"fail":
            raise RateLimited(call_of(request).request_id)
        return Response(body, headers={"x-request-id": call_of(request).request_id})

    app = Starlette(routes=[Route(PATH, guarded(endpoint), methods=["POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod")


@pytest.mark.parametrize(("body", "status"), [(b"four", 200), (b"fail", 429), (b"five!", 413)])
async def test_an_endpoint_responds_with_a_body_or_an_error(body: bytes, status: int) -> None:
    async with client() as http:
        response = await http.post(PATH, content=body, headers={"x-request-id": "mine"})

    assert (response.status_code, response.headers["x-request-id"]) == (status, "mine")


async def test_all_of_a_response_has_one_id_where_the_client_sends_none() -> None:
    async with client() as http:
        response = await http.post(PATH, content=b"fail")

    found = response.headers["x-request-id"]
    assert found and response.json()["error"]["message"] == found


async def test_a_rejection_is_one_whole_response() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await reject(send, RateLimited("slow down"), "mine", PATH)

    start, body = sent
    assert start["status"] == 429
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert json.loads(body["body"])["error"]["message"] == "slow down"


def test_a_body_is_what_was_added() -> None:
    body = ReceivedBody()
    for chunk in (b"", b"ab", b"", b"c"):
        body.add(chunk)

    assert (body.value(), body.size) == (b"abc", 3)
