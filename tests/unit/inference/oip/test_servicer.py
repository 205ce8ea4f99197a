"""The Open Inference Protocol over a real gRPC connection, on the echo engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.common.status import read_usage
from autoglm.inference.engine import EngineRequest
from autoglm.inference.oip.servicer import OipServicer
from autoglm.inference.requests import closing
from autoglm.inference.settings import Rates
from autoglm.simulator import EchoEngine, EchoSettings, parse_fault
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1 import open_inference_pb2_grpc

Stub = Any


class Engine(EchoEngine):
    """Reports when a stream of its own has ended."""

    def __init__(self, settings: EchoSettings) -> None:
        super().__init__(settings)
        self.ended = asyncio.Event()

    async def chat_stream(
        self, request: v1.ChatRequest, call: EngineRequest
    ) -> AsyncIterator[v1.ChatChunk]:
        try:
            async with closing(super().chat_stream(request, call)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.ended.set()


class Pod:
    """An engine behind a connection."""

    def __init__(self, engine: Engine, stub: Stub) -> None:
        self.engine = engine
        self.stub = stub


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def served(ready: bool = True, **settings: Any) -> Pod:
            engine = Engine(EchoSettings(**settings))
            stack.push_async_callback(engine.close)
            server = rpc.server()
            open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
                OipServicer(lambda: engine, lambda: ready), server
            )
            port = rpc.bind(server, "127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            channel = await stack.enter_async_context(rpc.channel(f"127.0.0.1:{port}"))
            return Pod(engine, open_inference_pb2_grpc.GRPCInferenceServiceStub(channel))

        yield served


def infer_request(
    text: str = "one two three", name: str = "a", **parameters: Any
) -> oip.ModelInferRequest:
    """With the text in the tensor, as KServe's client sends it."""
    request = oip.ModelInferRequest(model_name="echo", id=name)
    tensor = request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(text.encode())
    for key, value in ({"temperature": 0.0} | parameters).items():
        kind = {bool: "bool", int: "int64", float: "double", str: "string"}[type(value)]
        setattr(request.parameters[key], f"{kind}_param", value)
    return request


def raw(text: str) -> oip.ModelInferRequest:
    request = infer_request()
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(len(text.encode()).to_bytes(4, "little") + text.encode())
    return request


def text_of(response: oip.ModelInferResponse) -> str:
    value = response.raw_output_contents[0]
    assert int.from_bytes(value[:4], "little") == len(value) - 4
    return value[4:].decode()


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_the_response_is_a_raw_tensor_with_the_requests_id(serve: Any) -> None:
    response = await (await serve()).stub.ModelInfer(infer_request(name="mine"))
    tensor = oip.ModelInferResponse.InferOutputTensor(
        name="text_output", datatype="BYTES", shape=[1]
    )
    value = b"\x0d\x00\x00\x00one two three"
    assert response == oip.ModelInferResponse(
        model_name="echo", id="mine", outputs=[tensor], raw_output_contents=[value]
    )


async def test_usage_is_a_trailer_and_adds_up_over_a_stream(serve: Any) -> None:
    stub = (await serve()).stub
    one = stub.ModelInfer(infer_request("a b c"))
    await one
    single = read_usage(dict(await one.trailing_metadata())["autoglm-usage"])
    assert single is not None and single.completion_tokens > 0
    assert single.finish_reasons == ("stop",)
    stream = stub.ModelStreamInfer(
        iter((infer_request("a b c"), infer_request(top_p=2.0), infer_request("a b c")))
    )
    assert [m async for m in stream]
    both = read_usage(dict(await stream.trailing_metadata())["autoglm-usage"])
    assert both == single.after(single)


async def test_raw_input_is_read(serve: Any) -> None:
    assert text_of(await (await serve()).stub.ModelInfer(raw("grüß dich"))) == "grüß dich"


@pytest.mark.parametrize("value", [3, "3", 3.0])
async def test_numbers_may_be_text(serve: Any, value: object) -> None:
    response = await (await serve()).stub.ModelInfer(infer_request("a b c d", max_tokens=value))
    assert text_of(response) == "a b c"


async def test_a_bare_prompt_is_completed(serve: Any) -> None:
    """Completions end after 16 tokens where a chat's response does not."""
    stub = (await serve()).stub
    text = " ".join("abcdefghijklmnopqrst")
    bare = text_of(await stub.ModelInfer(infer_request(text, chat=False)))
    assert text.startswith(bare) and len(bare) < len(text)
    assert text_of(await stub.ModelInfer(infer_request(text, chat="true"))) == text


async def test_a_response_may_be_longer_than_a_completion_by_default(serve: Any) -> None:
    response = await (await serve()).stub.ModelInfer(infer_request("a", min_tokens=17))
    assert len(text_of(response).split()) > 1


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"top_p": 2.0}, "parameters.top_p"),
        ({"top_p": "x"}, "parameters.top_p"),
        ({"beam": 1}, "parameters.beam"),
        ({"chat": "maybe"}, "parameters.chat"),
        ({"ignore_eos": "maybe"}, "parameters.ignore_eos"),
        ({"n": 2, "temperature": 1.0}, "parameters.n"),
        ({"priority": 2**40}, "parameters.priority"),
        ({"chat": False, "min_tokens": 17}, "parameters.min_tokens"),
        ({"truncate_prompt_tokens": -1}, "parameters.truncate_prompt_tokens"),
    ],
)
async def test_a_wrong_parameter_is_named(
    serve: Any, parameters: dict[str, Any], field: str
) -> None:
    code, sentence = await refused((await serve()).stub.ModelInfer(infer_request(**parameters)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith(f"{field} is ")


async def test_other_tensors_are_named(serve: Any) -> None:
    stub = (await serve()).stub
    two = infer_request()
    two.inputs.add(name="image", datatype="BYTES", shape=[1])
    other = infer_request()
    other.outputs.add(name="embedding")
    assert "inputs[1].name is 'image'" in (await refused(stub.ModelInfer(two)))[1]
    assert "outputs[0].name is 'embedding'" in (await refused(stub.ModelInfer(other)))[1]


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_listed(serve: Any) -> None:
    stub = (await serve()).stub
    request = infer_request()
    request.model_name = "nope"
    for call in (
        stub.ModelInfer(request),
        stub.ModelMetadata(oip.ModelMetadataRequest(name="nope")),
    ):
        code, sentence = await refused(call)
        assert code is grpc.StatusCode.NOT_FOUND
        assert "'nope'" in sentence and "'echo'" in sentence


async def test_metadata_describes_one_text_in_and_one_out(serve: Any) -> None:
    stub = (await serve()).stub
    found = await stub.ModelMetadata(oip.ModelMetadataRequest(name="echo"))
    assert (found.name, found.platform) == ("echo", "echo")
    tensors = [(t.name, t.datatype, list(t.shape)) for t in (*found.inputs, *found.outputs)]
    assert tensors == [("text_input", "BYTES", [1]), ("text_output", "BYTES", [1])]
    server = await stub.ServerMetadata(oip.ServerMetadataRequest())
    assert server.name == "open-autoglm" and server.version


@pytest.mark.parametrize("ready", [True, False])
async def test_readiness_is_the_pods(serve: Any, ready: bool) -> None:
    stub = (await serve(ready=ready)).stub
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready is ready
    assert (await stub.ModelReady(oip.ModelReadyRequest(name="echo"))).ready is ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="nope"))).ready


async def test_a_stream_responds_in_order_and_marks_each_end(serve: Any) -> None:
    stub = (await serve(rates=Rates(token_rate=1000))).stub
    requests = iter(
        (
            infer_request("a b c", "first"),
            infer_request(name="wrong", top_p=2.0),
            infer_request("d e f", "last"),
        )
    )
    seen: dict[str, list[tuple[str, bool]]] = {"first": [], "last": []}
    refusals = []
    async for message in stub.ModelStreamInfer(requests):
        response = message.infer_response
        final = response.parameters["triton_final_response"].bool_param
        if message.error_message:
            refusals.append((response.id, message.error_message, final))
        else:
            seen[response.id].append((text_of(response), final))
    assert list(seen) == ["first", "last"]
    for text, pieces in zip(("a b c", "d e f"), seen.values(), strict=True):
        assert "".join(t for t, _ in pieces) == text
        assert len(pieces) > 1
        assert [f for _, f in pieces] == [False] * (len(pieces) - 1) + [True]
    [(name, sentence, final)] = refusals
    assert (name, final) == ("wrong", True)
    assert "'wrong'" in sentence and "parameters.top_p" in sentence


async def test_a_dead_engine_ends_the_stream_with_a_status(serve: Any) -> None:
    """A message on the stream would keep the gateway from retrying on another pod."""
    pod = await serve(fault=parse_fault("die-after-requests=0"))
    code, _ = await refused(anext(aiter(pod.stub.ModelStreamInfer(iter((infer_request(),))))))
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_cancelling_a_stream_ends_the_engines_request(serve: Any) -> None:
    pod = await serve(rates=Rates(token_rate=100))
    call = pod.stub.ModelStreamInfer(iter((infer_request(ignore_eos=True),)))
    await anext(aiter(call))
    assert pod.engine.load().running == 1
    call.cancel()
    await pod.engine.ended.wait()
    assert pod.engine.load().running == 0
    assert pod.engine.load().kv_cache_usage == 0
