"""Requests through a gateway to scripted pods, over gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.gateway.request.principal import ANONYMOUS
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.testing.fake_pod import FakePod
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.v1.open_inference_pb2_grpc import GRPCInferenceServiceStub

ASK = v1.GenerateRequest(model="fake", text="Hello")
CHAT = v1.ChatRequest(model="fake", messages=[v1.ChatMessage(role="user", content="Hello")])


async def text_of(stream: Any) -> str:
    return "".join([chunk.text async for chunk in stream])


async def failure_of(call: Any) -> errors.AutoGLMError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return status.from_grpc(caught.value)


async def test_unary_and_streamed_responses_come_through(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod))
    answer = await stub.Generate(ASK)
    assert answer.completions[0].text == "Hello there."
    assert await text_of(stub.GenerateStream(ASK)) == "Hello there."
    assert (await stub.Chat(CHAT)).choices[0].message.content == "Hello there."


async def test_request_id_and_trace_travel_both_ways(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    call = stub.Generate(ASK, metadata=(("x-request-id", "mine"), ("traceparent", parent)))
    await call
    assert dict(await call.initial_metadata())["x-request-id"] == "mine"
    seen = pod.received[0].metadata
    assert (seen["x-request-id"], seen["traceparent"][:35]) == ("mine", parent[:35])


@pytest.mark.parametrize(
    ("telling", "policy", "is_sent"),
    [
        (True, "PrefixAffinity", True),
        (True, "LeastLoaded", False),
        (False, "PrefixAffinity", False),
    ],
)
async def test_pods_with_kv_events_get_our_salt_and_never_the_callers(
    fleet: Any, telling: bool, policy: str, is_sent: bool
) -> None:
    (pod,) = await fleet.pods(FakePod(kv_events=telling))
    stub = await fleet.stub(await fleet.gateway(pod, routing_policy=policy))
    await stub.Generate(ASK, metadata=((rpc.PREFIX_SALT, "0" * 16),))
    salt = pod.received[0].metadata.get(rpc.PREFIX_SALT)
    assert salt == (f"{salt_of(ANONYMOUS.tenant, 'fake'):016x}" if is_sent else None)


@pytest.mark.plane("embedded", "Envoy passes all of the pod's trailers")
async def test_only_our_trailers_of_the_pod_reach_the_client(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod))
    call = stub.Generate(ASK)
    await call
    trailers = dict(await call.trailing_metadata())
    assert trailers["autoglm-fake"] == "yes" and "secret" not in trailers


async def test_deadline_travels_and_shrinks(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod, default_timeout_seconds=40))
    await stub.Generate(ASK, timeout=20)
    await stub.Generate(ASK)
    first, second = (request.seconds_left for request in pod.received)
    # gRPC rounds a deadline up by up to a percent when it writes it down.
    assert 15 < first < 20.5 < 35 < second < 41


async def test_deadline_ends_the_request_everywhere(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    stub = await fleet.stub(gateway)
    pod.open_gate.clear()
    assert isinstance(await failure_of(stub.Generate(ASK, timeout=1.5)), errors.DeadlineExceeded)
    await fleet.until(lambda: pod.cancelled == 1 and fleet.in_flight(gateway) == 0)


async def test_deadline_of_the_gateway_ends_what_has_none(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, default_timeout_seconds=1.5)
    stub = await fleet.stub(gateway)
    pod.open_gate.clear()
    assert isinstance(await failure_of(stub.Generate(ASK)), errors.DeadlineExceeded)
    await fleet.until(lambda: pod.cancelled == 1 and fleet.in_flight(gateway) == 0)


async def test_client_cancel_reaches_the_pod(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    stub = await fleet.stub(gateway)
    pod.open_gate.clear()
    stream = stub.GenerateStream(ASK)
    assert (await stream.read()).text == "Hello"
    stream.cancel()
    await fleet.until(lambda: pod.cancelled == 1 and fleet.in_flight(gateway) == 0)


@pytest.mark.parametrize(
    ("request_", "error", "field"),
    [
        (v1.GenerateRequest(model="other", text="x"), errors.ModelNotFound, "model"),
        (v1.GenerateRequest(text="x"), errors.InvalidRequest, "model"),
        (v1.GenerateRequest(model="fake", text=""), errors.InvalidRequest, "text"),
    ],
)
async def test_wrong_request_is_refused_without_a_request_to_a_pod(
    fleet: Any, request_: v1.GenerateRequest, error: type[errors.AutoGLMError], field: str
) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod))
    refused = await failure_of(stub.Generate(request_))
    assert type(refused) is error and refused.field == field
    assert pod.received == []


async def test_malformed_message_is_an_invalid_request(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        for payload in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\xff" * (300 * 1024)):
            call: Any = channel.unary_unary("/autoglm.v1.Inference/Generate")
            assert isinstance(await failure_of(call(payload)), errors.InvalidRequest)
    assert pod.received == []


@pytest.mark.parametrize(
    "refusal",
    [errors.NoReadyEndpoint("not now"), errors.ShuttingDown("going"), errors.EngineDead("dead")],
)
async def test_unavailable_pod_is_retried_on_another(
    fleet: Any, refusal: errors.AutoGLMError
) -> None:
    first, second = await fleet.pods(FakePod(), FakePod())
    gateway = await fleet.gateway(first, second)
    stub = await fleet.stub(gateway)
    for number in range(1, 4):
        for pod in (first, second):
            pod.failures[:] = [refusal] if pod is first else []
        while first.failures:
            assert await text_of(stub.GenerateStream(ASK)) == "Hello there."
        await fleet.until(lambda: fleet.routable(gateway) == 2)
        assert sum(len(pod.received) for pod in (first, second)) >= 2 * number


async def test_server_of_a_pod_that_stops_unheard_costs_no_request(fleet: Any) -> None:
    first, second = await fleet.pods(FakePod(stopping=1), FakePod())
    stub = await fleet.stub(await fleet.gateway(first, second))
    while first.stopping:
        assert await text_of(stub.GenerateStream(ASK)) == "Hello there."


@pytest.mark.parametrize(
    "error", [errors.InvalidRequest("no"), errors.QueueFull("full"), errors.Internal("bug")]
)
async def test_other_errors_are_not_retried(fleet: Any, error: errors.AutoGLMError) -> None:
    first, second = await fleet.pods(FakePod(failures=[error]), FakePod(failures=[error]))
    stub = await fleet.stub(await fleet.gateway(first, second))
    assert type(await failure_of(stub.Generate(ASK))) is type(error)
    assert len(first.received) + len(second.received) == 1


async def test_stream_that_breaks_after_its_first_chunk_says_so(fleet: Any, plane: str) -> None:
    gone = errors.EngineDead("the engine died")
    first, second = await fleet.pods(FakePod(break_with=gone), FakePod(break_with=gone))
    stub = await fleet.stub(await fleet.gateway(first, second))
    stream = stub.GenerateStream(ASK)
    assert (await stream.read()).text == "Hello"
    broken = await failure_of(stream.read())
    # Envoy leaves the pod's own words as they are.
    assert type(broken) is (errors.StreamBroken if plane == "embedded" else errors.EngineDead)
    assert len(first.received) + len(second.received) == 1


async def test_requests_over_the_bound_are_refused_at_once(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod, max_inflight=1)
    stub = await fleet.stub(gateway)
    pod.open_gate.clear()
    stream = stub.GenerateStream(ASK)
    await stream.read()
    refused = await failure_of(stub.Generate(ASK))
    assert isinstance(refused, errors.QueueFull) and refused.retry_after
    pod.open_gate.set()
    while await stream.read():
        pass
    await fleet.until(lambda: gateway.core.admission.in_flight == 0)
    assert (await stub.Generate(ASK)).completions


async def test_burst_spreads_over_pods_between_load_messages(fleet: Any) -> None:
    pods = await fleet.pods(*(FakePod() for _ in range(4)))
    stub = await fleet.stub(await fleet.gateway(*pods))
    for pod in pods:
        pod.open_gate.clear()
    streams = [stub.GenerateStream(ASK) for _ in range(16)]
    await asyncio.gather(*(stream.read() for stream in streams))
    assert [len(pod.received) for pod in pods] == [4, 4, 4, 4]


async def test_models_are_merged_over_pods(fleet: Any) -> None:
    pods = await fleet.pods(FakePod(), FakePod(), FakePod(model="glm", aliases=("chatglm",)))
    stub = await fleet.stub(await fleet.gateway(*pods))
    listed = (await stub.ListModels(v1.ListModelsRequest())).models
    assert [(m.name, m.ready_endpoints) for m in listed] == [("fake", 2), ("glm", 1)]
    by_alias = await stub.GetModel(v1.GetModelRequest(name="chatglm"))
    assert by_alias.model.name == "glm"
    missing = await failure_of(stub.GetModel(v1.GetModelRequest(name="gpt")))
    assert isinstance(missing, errors.ModelNotFound) and "'glm'" in missing.message


async def test_open_inference_requests_share_a_stream(fleet: Any) -> None:
    (pod,) = await fleet.pods(FakePod())
    gateway = await fleet.gateway(pod)
    async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
        assert (await stub.ModelReady(oip.ModelReadyRequest(name="fake"))).ready
        stream = stub.ModelStreamInfer(infer(str(n), "fake" if n else "gone") for n in range(3))
        answers: dict[str, str] = {}
        async for answer in stream:
            said = answer.infer_response
            text = b"".join(o.contents.bytes_contents[0] for o in said.outputs).decode()
            answers[said.id] = answers.get(said.id, "") + text + answer.error_message[:15]
    assert answers == {"0": "MODEL_NOT_FOUND", "1": "Hello there.", "2": "Hello there."}


def infer(name: str, model: str) -> oip.ModelInferRequest:
    text = oip.ModelInferRequest.InferInputTensor(
        name="text_input",
        datatype="BYTES",
        shape=[1],
        contents=oip.InferTensorContents(bytes_contents=[b"Hello"]),
    )
    return oip.ModelInferRequest(model_name=model, id=name, inputs=[text])
