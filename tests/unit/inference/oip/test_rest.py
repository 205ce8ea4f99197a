"""The Open Inference Protocol over REST, in front of the echo engine's own app."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from autoglm.common.status import read_usage
from autoglm.inference.oip.rest import with_oip
from autoglm.inference.settings import Rates
from autoglm.simulator import EchoEngine, EchoSettings, start

LIMIT = 4096


@pytest.fixture
async def engine() -> AsyncIterator[EchoEngine]:
    engine = await start(EchoSettings())
    yield engine
    await engine.close()


def client_of(engine: EchoEngine, ready: bool = True) -> httpx.AsyncClient:
    app = with_oip(engine, engine.http_app(), lambda: ready, LIMIT)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod")


@pytest.fixture
async def http(engine: EchoEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(engine) as client:
        yield client


def infer(text: str = "one two three", **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [text]}
    return {"id": "mine", "inputs": [tensor], "parameters": {"temperature": 0} | parameters}


async def test_infer_responds_with_a_tensor(http: httpx.AsyncClient) -> None:
    headers = {"x-request-id": "r"}
    response = await http.post("/v2/models/echo/infer", json=infer(), headers=headers)
    output = {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["one two three"]}
    assert response.json() == {"model_name": "echo", "id": "mine", "outputs": [output]}
    assert response.headers["x-request-id"] == "r"


async def test_a_tensor_may_come_behind_the_json(http: httpx.AsyncClient) -> None:
    """As Triton's HTTP client sends it."""
    value = b"\x05\x00\x00\x00hello"
    size = {"binary_data_size": len(value)}
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "parameters": size}
    body = {"inputs": [tensor], "parameters": {"temperature": 0, "binary_data_output": True}}
    head = json.dumps(body).encode()
    length = {"inference-header-content-length": str(len(head))}
    response = await http.post("/v2/models/echo/infer", content=head + value, headers=length)
    assert response.json()["outputs"][0]["data"] == ["hello"]
    short = await http.post("/v2/models/echo/infer", content=head + value[:-1], headers=length)
    assert short.status_code == 400
    assert "inputs[0].parameters.binary_data_size" in short.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v2/models/echo/infer", infer(top_p=2), 400, "parameters.top_p"),
        ("/v2/models/echo/infer", infer(beam=2), 400, "parameters.beam"),
        ("/v2/models/echo/infer", infer("x" * LIMIT), 413, None),
        ("/v2/models/echo/infer", {"inputs": []}, 400, "inputs.text_input"),
        ("/v2/models/echo/infer", {"inputs": [], "text_input": "x"}, 400, "inputs is missing"),
        ("/v2/models/echo/generate", infer(), 400, "text_input is missing"),
        ("/v2/models/nope/infer", infer(), 404, "model_name"),
        ("/v2/models/echo/generate", {"text_input": ""}, 400, "text_input"),
    ],
)
async def test_errors_are_a_text_that_names_the_field(
    http: httpx.AsyncClient, path: str, body: object, status: int, param: str | None
) -> None:
    response = await http.post(path, json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"] and (param or "") in response.json()["error"]
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"model_name": "echo"}, 400, "input_data"),
        ({"model_name": "echo", "input_data": "x", "label": []}, 400, "label"),
        ({"model": "nope", "input_data": "x"}, 404, "model_name"),
    ],
)
async def test_errors_of_predictions_have_openais_shape_and_name_the_field(
    http: httpx.AsyncClient, body: object, status: int, param: str
) -> None:
    response = await http.post("/v2/inference", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


async def test_generate_has_the_text_at_the_top(http: httpx.AsyncClient) -> None:
    body = {"text_input": "a b c", "parameters": {"temperature": 0}}
    response = await http.post("/v2/models/echo/versions/1/generate", json=body)
    assert response.json() == {"model_name": "echo", "id": "", "text_output": "a b c"}


async def test_generate_stream_sends_events(http: httpx.AsyncClient) -> None:
    body = {"text_input": "a b c", "parameters": {"temperature": 0}}
    response = await http.post("/v2/models/echo/generate_stream", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(e.removeprefix("data: ")) for e in response.text.split("\n\n") if e]
    assert "".join(e["text_output"] for e in events) == "a b c"
    ends = [e["triton_final_response"] for e in events]
    assert ends == [False] * (len(events) - 1) + [True]
    assert ["usage" in e for e in events] == ends
    usage = events[-1]["usage"]
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_usage_is_a_header_and_the_same_as_in_the_last_event(
    http: httpx.AsyncClient,
) -> None:
    body = {"text_input": "one two three", "parameters": {"temperature": 0}}
    stream = await http.post("/v2/models/echo/generate_stream", json=body)
    (text,) = re.findall(r'"usage":(\{[^}]*\})', stream.text)
    usage = json.loads(text)
    for path, request in (("infer", infer()), ("generate", body)):
        response = await http.post(f"/v2/models/echo/{path}", json=request)
        found = read_usage(response.headers["autoglm-usage"])
        assert found is not None
        assert found.prompt_tokens == usage["prompt_tokens"]
        assert found.completion_tokens == usage["completion_tokens"]
        assert found.finish_reasons == ("stop",)


async def test_a_stream_that_cannot_begin_is_a_plain_error(http: httpx.AsyncClient) -> None:
    body = {"text_input": "x", "parameters": {"top_p": 2}}
    response = await http.post("/v2/models/echo/generate_stream", json=body)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")


async def test_inference_judges_by_labels(http: httpx.AsyncClient) -> None:
    body = {"model_name": "echo", "input_data": "It is an outage.", "labels": ["fine", "outage"]}
    response = (await http.post("/v2/inference", json=body)).json()
    assert response["output"] == "outage"
    assert [entry["label"] for entry in response["labels"]] == ["outage", "fine"]
    assert sum(entry["score"] for entry in response["labels"]) == pytest.approx(1)
    assert response["usage"]["prompt_tokens"] > 0


async def test_inference_responds_where_there_are_no_labels(http: httpx.AsyncClient) -> None:
    body = {"model": "echo", "input_data": "hi", "task": "Greet", "temperature": 0}
    response = (await http.post("/v2/inference", json=body)).json()
    assert (response["output"], response["labels"]) == ("Greet\n\nhi", [])
    assert response["usage"]["completion_tokens"] > 0


async def test_the_server_and_its_model_describe_themselves(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v2")).json()["name"] == "open-autoglm"
    found = (await http.get("/v2/models/echo")).json()
    assert (found["name"], found["platform"]) == ("echo", "echo")
    assert found["inputs"] == [{"name": "text_input", "datatype": "BYTES", "shape": [1]}]
    assert (await http.get("/v2/models/nope")).status_code == 404
    assert (await http.get("/v2/models/nope/ready")).status_code == 404


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
async def test_readiness_is_the_pods(engine: EchoEngine, ready: bool, status: int) -> None:
    async with client_of(engine, ready) as http:
        assert (await http.get("/v2/health/live")).status_code == 200
        assert (await http.get("/v2/health/ready")).status_code == status
        assert (await http.get("/v2/models/echo/ready")).status_code == status


@pytest.mark.parametrize("path", ["/v1/models", "/health"])
async def test_other_paths_are_the_engines_own(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/v2/rerank", "/v3", "/v2x"])
async def test_unknown_paths_are_the_engines_to_refuse(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


@pytest.mark.looptime
@pytest.mark.parametrize("path", ["infer", "generate", "generate_stream"])
async def test_a_client_that_leaves_takes_its_request_along(path: str) -> None:
    engine = await start(EchoSettings(rates=Rates(token_rate=1, prefill_rate=1)))
    app = with_oip(engine, engine.http_app(), lambda: True)
    body = infer("x", ignore_eos=True) | {"text_input": "x"}
    gone = asyncio.Event()
    incoming = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        """There is no reader."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"/v2/models/echo/{path}",
        "query_string": b"",
        "headers": [],
    }
    serving = asyncio.ensure_future(app(scope, receive, send))
    await asyncio.sleep(0.5)
    assert engine.load().running == 1
    gone.set()
    await serving
    assert (engine.load().running, engine.load().kv_cache_usage) == (0, 0.0)
    await engine.close()
