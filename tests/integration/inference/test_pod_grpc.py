"""autoglm.v1 on a real gRPC server with the echo engine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.inference.app import PodServer
from autoglm.inference.settings import InferenceSettings
from autoglm.v1 import inference_pb2_grpc, worker_pb2_grpc

USER = v1.ChatMessage(role="user", content="hello there")


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return inference_pb2_grpc.InferenceStub(channel)


@pytest.fixture
def worker(channel: grpc.aio.Channel) -> Any:
    return worker_pb2_grpc.WorkerStub(channel)


def generate_request(text: str = "one two three", **params: Any) -> v1.GenerateRequest:
    sampling = v1.SamplingParams(**params)
    return v1.GenerateRequest(model="echo", text=text, sampling_params=sampling)


async def test_generate_and_its_stream_say_the_same(stub: Any) -> None:
    whole = await stub.Generate(generate_request())
    chunks = [c async for c in stub.GenerateStream(generate_request())]
    assert whole.completions[0].text == "one two three"
    assert "".join(c.text for c in chunks) == "one two three"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_chat_and_its_stream_say_the_same(stub: Any) -> None:
    request = v1.ChatRequest(model="echo", messages=[USER])
    whole = await stub.Chat(request)
    chunks = [c async for c in stub.ChatStream(request)]
    assert whole.choices[0].message.content == "hello there"
    assert "".join(c.delta.content for c in chunks) == "hello there"


async def test_predict_scores_labels(stub: Any) -> None:
    request = v1.PredictRequest(
        model_name="echo", input_data="what a good film", labels=["bad", "good"]
    )
    response = await stub.Predict(request)
    assert response.output == "good"
    assert [x.label for x in response.labels] == ["good", "bad"]
    assert sum(x.score for x in response.labels) == pytest.approx(1)


async def test_models_and_tokens_can_be_requested(stub: Any) -> None:
    models = (await stub.ListModels(v1.ListModelsRequest())).models
    assert [m.name for m in models] == ["echo"]
    one = await stub.GetModel(v1.GetModelRequest(name="echo"))
    assert one.model == models[0]
    tokens = await stub.Tokenize(v1.TokenizeRequest(model="echo", text="one two"))
    assert len(tokens.token_ids) == 3


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("Generate", v1.GenerateRequest(model="nope", text="x"), errors.ModelNotFound),
        ("Generate", v1.GenerateRequest(model="echo"), errors.InvalidRequest),
        ("Chat", v1.ChatRequest(model="echo"), errors.InvalidRequest),
        ("Embed", v1.EmbedRequest(model="echo", texts=["x"]), errors.Unimplemented),
        ("GetModel", v1.GetModelRequest(name="nope"), errors.ModelNotFound),
        ("Predict", v1.PredictRequest(model_name="nope", input_data="x"), errors.ModelNotFound),
    ],
)
async def test_errors_reach_the_client_as_they_are(
    stub: Any, method: str, request_: Any, error: type[errors.AutoGLMError]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(stub, method)(request_)
    assert type(status.from_grpc(raised.value)) is error


async def test_a_wrong_stream_fails_before_its_first_chunk(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        [c async for c in stub.GenerateStream(generate_request(temperature=9.0))]
    assert status.from_grpc(raised.value).field == "sampling_params.temperature"


async def test_the_request_id_comes_back(stub: Any) -> None:
    call = stub.Generate(generate_request(), metadata=((status.REQUEST_ID, "mine"),))
    assert (status.REQUEST_ID, "mine") in tuple(await call.trailing_metadata())
    assert (await call).id == "mine"


async def loads(worker: Any) -> AsyncIterator[v1.WatchLoadResponse]:
    async for load in worker.WatchLoad(v1.WatchLoadRequest()):
        yield load


async def until_running(watch: AsyncIterator[v1.WatchLoadResponse], count: int) -> Any:
    async for load in watch:
        if load.running == count:
            return load
    raise AssertionError("the stream ended")


async def test_load_follows_requests_and_cancel_frees_blocks(stub: Any, worker: Any) -> None:
    watch = loads(worker)
    first = await anext(watch)
    assert (first.running, first.draining, first.kv_block_size) == (0, False, 16)
    assert first.http_port
    stream = stub.GenerateStream(
        generate_request("<|echo hang=1|>", max_tokens=100, ignore_eos=True)
    )
    await stream.read()
    busy = await until_running(watch, 1)
    assert busy.kv_cache_usage > 0
    stream.cancel()
    idle = await until_running(watch, 0)
    assert idle.kv_cache_usage == 0


async def test_a_deadline_ends_the_engine_request(pod: PodServer, stub: Any, worker: Any) -> None:
    watch = loads(worker)
    call = stub.Generate(generate_request("<|echo hang|>"), timeout=2)
    await until_running(watch, 1)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_running(watch, 0)


async def test_abort_ends_a_request_by_id(stub: Any, worker: Any) -> None:
    metadata = ((status.REQUEST_ID, "gone"),)
    stream = stub.GenerateStream(generate_request("<|echo hang=1|>"), metadata=metadata)
    await stream.read()
    response = await worker.Abort(v1.AbortRequest(request_ids=["gone", "unknown"]))
    assert list(response.aborted) == ["gone"]
    assert (await stream.read()).finish_reason == v1.FINISH_REASON_ABORT


@pytest.mark.parametrize("method", ["LoadModel", "UnloadModel", "LoadAdapter", "UnloadAdapter"])
async def test_what_a_pod_cannot_do_it_says(worker: Any, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await getattr(worker, method)(getattr(v1, f"{method}Request")())
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_kv_events_are_declined_where_they_are_off(start_pod: Any) -> None:
    pod = await start_pod(kv_events=False)
    async with rpc.channel(f"127.0.0.1:{pod.grpc_port}") as channel:
        events = worker_pb2_grpc.WorkerStub(channel).SubscribeKvEvents(
            v1.SubscribeKvEventsRequest()
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await events.read()
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", "autoglm.v1.Inference", "echo"])
async def test_health_follows_the_drain(
    pod: PodServer, channel: grpc.aio.Channel, service: str
) -> None:
    check = health_pb2_grpc.HealthStub(channel).Check
    request = health_pb2.HealthCheckRequest(service=service)
    assert (await check(request)).status == health_pb2.HealthCheckResponse.SERVING
    drained = asyncio.create_task(pod.drain())
    while (await check(request)).status == health_pb2.HealthCheckResponse.SERVING:
        pass
    drained.cancel()


async def test_a_draining_pod_says_so_serves_on_and_then_refuses(
    pod: PodServer, stub: Any, worker: Any
) -> None:
    watch = loads(worker)
    await anext(watch)
    pod.pod.drain()
    while not (await anext(watch)).draining:
        pass
    assert (await stub.Generate(generate_request())).completions
    pod.pod.close()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Generate(generate_request())
    assert isinstance(status.from_grpc(raised.value), errors.ShuttingDown)
    # The stream ends.
    async for load in watch:
        assert load.draining


async def test_a_dead_engine_is_unavailable_and_not_serving(start_pod: Any) -> None:
    pod = await start_pod(echo_fail="die-after-requests=0")
    async with rpc.channel(f"127.0.0.1:{pod.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await inference_pb2_grpc.InferenceStub(channel).Generate(generate_request())
    assert isinstance(status.from_grpc(raised.value), errors.EngineDead)


async def test_reflection_names_every_service(pod: PodServer) -> None:
    def services() -> set[str]:
        with grpc.insecure_channel(f"127.0.0.1:{pod.grpc_port}") as channel:
            return set(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert await asyncio.to_thread(services) >= {
        "autoglm.v1.Inference",
        "autoglm.v1.Worker",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    }


async def send_until_refused(stub: Any, codes: list[grpc.StatusCode]) -> None:
    """One call after the other, until one fails; notes the code of each."""
    code = grpc.StatusCode.OK
    while code is grpc.StatusCode.OK:
        try:
            await stub.Generate(v1.GenerateRequest(model="echo", text="a"), timeout=30)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        codes.append(code)


async def test_who_sends_a_request_while_the_pod_ends_is_sent_elsewhere() -> None:
    anywhere = {f"{name}_address": "127.0.0.1:0" for name in ("grpc", "http", "metrics")}
    pod = PodServer(InferenceSettings.load({"engine": "echo", **anywhere}))
    await pod.start()
    async with rpc.channel(f"127.0.0.1:{pod.grpc_port}") as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        codes: list[grpc.StatusCode] = []
        clients = [asyncio.create_task(send_until_refused(stub, codes)) for _ in range(32)]
        while len(codes) < 10 * len(clients):  # noqa: ASYNC110 (a list has no event to wait for)
            await asyncio.sleep(0.01)
        await pod.close()
        await asyncio.gather(*clients)

    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
