"""What the vendors' own SDKs make of our errors: the right class, message and request id.

A gateway in this process, on both data planes, in front of a stand-in for the models' server. The
key that a client sends is the code that it is rejected with, and its prompt, the same text, names
how the server fails.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.prerequisites import built
from tests.support.rest_stack import rest_stack

from autoglm.common import errors
from autoglm.gateway.request.principal import ANONYMOUS, Principal
from autoglm.gateway.request.request import GatewayRequest

pytestmark = pytest.mark.timeout(1200)
ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).parent / "clients"
TEXT = "what is wrong and what to do"
ERRORS: dict[str, type[errors.AutoGLMError]] = {
    "400": errors.InvalidRequest,
    "401": errors.Unauthenticated,
    "403": errors.PermissionDenied,
    "404": errors.ModelNotFound,
    "413": errors.RequestTooLarge,
    "429": errors.RateLimited,
    "501": errors.Unimplemented,
    "502": errors.StreamBroken,
    "503": errors.NoReadyEndpoint,
    "504": errors.DeadlineExceeded,
}
OPENAI = {
    "400": "BadRequestError",
    "401": "AuthenticationError",
    "403": "PermissionDeniedError",
    "404": "NotFoundError",
    "413": "APIStatusError",
    "429": "RateLimitError",
    "501": "InternalServerError",
    "502": "InternalServerError",
    "503": "InternalServerError",
    "504": "InternalServerError",
}
OPENAI_NODE = OPENAI | {"413": "APIError"}
ANTHROPIC = OPENAI | {
    "413": "ContentTooLargeError",
    "501": "HTTPNotImplementedError",
    "503": "ServiceUnavailableError",
    "504": "GatewayTimeoutError",
}
ANTHROPIC_NODE = ANTHROPIC | {"501": "NotImplementedError"}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
APIS = (*PATHS, "messagesHelper")
FAILED = "the model's server has failed"
OF_SERVER = ("500", "500-before", "500-inside")
"""Failures of the server with a 500: of a response, before a stream, and as an event inside one."""
OF_VLLM = {"error": {"message": FAILED, "type": "InternalServerError", "param": None, "code": 500}}
ERROR: dict[str, dict[str, Any]] = {
    PATHS["chat"]: OF_VLLM,
    PATHS["responses"]: OF_VLLM,
    PATHS["messages"]: {"type": "error", "error": {"type": "api_error", "message": FAILED}},
}
FIRST_EVENT: dict[str, dict[str, Any]] = {
    PATHS["chat"]: {"id": "x", "object": "chat.completion.chunk", "choices": []},
    PATHS["responses"]: {
        "type": "response.output_text.delta",
        "delta": "The ",
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": 1,
        "logprobs": [],
    },
    PATHS["messages"]: {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": "m",
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 0},
        },
    },
}


async def failing(request: web.Request) -> web.StreamResponse:
    """A model's server that fails as the prompt says, or is killed within a stream."""
    body, error = await request.json(), ERROR[request.path]
    how = body.get("input") or body["messages"][0]["content"]
    if how in ("500", "500-before"):
        return web.json_response(error, status=500)
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(event(FIRST_EVENT[request.path]))
    await asyncio.sleep(0.1)
    if how == "500-inside":
        await response.write(event(error))
        return response
    assert request.transport
    request.transport.abort()
    return response


def event(data: dict[str, Any]) -> bytes:
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


class Gateway:
    """Rejects every key that is a code, and counts."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}

    async def identify(self, call: GatewayRequest) -> Principal:
        key = call.credentials[0][1].removeprefix("Bearer ") if call.credentials else ""
        name = f"{key} {call.target}"
        self.requests[name] = self.requests.get(name, 0) + 1
        if key in ERRORS:
            raise ERRORS[key](TEXT)
        return ANONYMOUS


@dataclass(frozen=True, slots=True)
class Run:
    """What one client has seen on one data plane, by API and key, and how often it was rejected."""

    is_node: bool
    plane: str
    seen: dict[str, dict[str, Any]]
    requests: dict[str, int]

    def of(self, *apis: str) -> Iterator[tuple[str, str, Any]]:
        for api in apis:
            for code, outcome in self.seen[api].items():
                if code in ERRORS:
                    yield api, code, outcome


@pytest.fixture(scope="session", params=["python", "node"])
def client(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The command of a client with its SDKs installed; skipped where Node is missing."""
    if request.param == "node":
        built("node_env", "tests/conformance/clients/node")
        return ("node", str(CLIENTS / "node/errors.mjs"))
    environment = "tests/conformance/requirements.txt"
    subprocess.run([ROOT / "scripts/python_env", "conformance", environment], check=True)
    return (str(ROOT / ".venv-conformance/bin/python"), str(CLIENTS / "errors.py"))


@pytest.fixture(scope="session", params=["embedded", "envoy"])
def run(request: pytest.FixtureRequest, client: tuple[str, ...]) -> Run:
    """All cases in one process of the client, since it takes long to import its SDKs."""
    return asyncio.run(_run(client, request.param))


async def _run(client: tuple[str, ...], plane: str) -> Run:
    gateway = Gateway()
    cases = (*ERRORS, *OF_SERVER, "stream")
    async with rest_stack(failing, plane=plane, identify=gateway.identify) as stack:
        process = await asyncio.create_subprocess_exec(
            *client, stack.url, *cases, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return Run(client[0] == "node", plane, json.loads(out), gateway.requests)


def test_each_error_is_the_sdks_own_class_with_message_and_request_id(run: Run) -> None:
    for api, code, outcome in run.of(*PATHS):
        python, node = (ANTHROPIC, ANTHROPIC_NODE) if api == "messages" else (OPENAI, OPENAI_NODE)
        theirs = node if run.is_node else python
        assert outcome["class"] == theirs[code], (api, code, outcome)
        assert TEXT in outcome["text"] and outcome["requestId"], (api, code, outcome)
        assert outcome["status"] == int(code)


def test_what_a_model_cannot_do_is_requested_once(run: Run) -> None:
    """The SDKs would make two more attempts."""
    for path in PATHS.values():
        assert run.requests[f"501 {path}"] == 1


@pytest.mark.parametrize("case", ["500", "500-before"])
def test_a_500_of_the_server_is_the_sdks_class_for_it(run: Run, case: str) -> None:
    for api in PATHS if case == "500" else APIS:
        outcome = run.seen[api][case]
        assert outcome["class"] == "InternalServerError", (api, outcome)
        assert outcome["status"] == 500
        assert FAILED in outcome["text"] and outcome["requestId"], (api, outcome)


def test_a_500_inside_a_stream_is_an_error_of_the_sdk(run: Run) -> None:
    for api in APIS:
        outcome = run.seen[api]["500-inside"]
        assert outcome["class"] in ("APIError", "APIStatusError"), (api, outcome)
        assert FAILED in outcome["text"], (api, outcome)


def test_half_a_stream_is_an_error_of_the_sdk(run: Run) -> None:
    for api in APIS:
        outcome = run.seen[api]["stream"]
        assert outcome["class"], f"{api} takes half a stream as a whole one: {outcome}"
        if run.plane == "embedded":
            assert outcome["class"] in ("APIError", "APIStatusError"), (api, outcome)
            assert "disconnected" in outcome["text"], (api, outcome)


def test_clients_of_the_inference_protocol_read_the_text(run: Run) -> None:
    if run.is_node:
        pytest.skip("there is none for Node")
    for _, code, outcome in run.of("triton"):
        assert outcome["class"] == "InferenceServerException"
        assert outcome["text"] == f"[{code}] {TEXT}"
    for _, code, outcome in run.of("kserve"):
        assert outcome["class"] == "HTTPStatusError", outcome
        assert code in outcome["text"] and TEXT in outcome["text"], outcome
