import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.tcp_proxy import TcpProxy

from autoglm import v1
from autoglm.common import errors, rpc, status
from autoglm.common.reflection import add_reflection
from autoglm.v1 import inference_pb2_grpc


class Scripted(inference_pb2_grpc.InferenceServicer):
    """Raises what it is given; streams one chunk first."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen: rpc.Rpc | None = None

    async def Generate(self, request: v1.GenerateRequest, context: Any) -> v1.GenerateResponse:
        self.seen = rpc.current_rpc.get()
        if self.error:
            raise self.error
        return v1.GenerateResponse(id=self.seen.request_id)

    async def GenerateStream(
        self, request: v1.GenerateRequest, context: Any
    ) -> AsyncIterator[v1.GenerateChunk]:
        yield v1.GenerateChunk(text="first")
        if self.error:
            raise self.error


@asynccontextmanager
async def served(
    servicer: Scripted, **options: Any
) -> AsyncIterator["inference_pb2_grpc.InferenceAsyncStub"]:
    server = rpc.server(**options)
    inference_pb2_grpc.add_InferenceServicer_to_server(servicer, server)
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        yield inference_pb2_grpc.InferenceStub(channel)
    await server.stop(None)


async def test_a_given_request_id_is_kept_and_returned() -> None:
    async with served(Scripted()) as stub:
        call = stub.Generate(v1.GenerateRequest(), metadata=((status.REQUEST_ID, "mine"),))
        assert dict(await call.initial_metadata())[status.REQUEST_ID] == "mine"
        assert (await call).id == "mine"


@pytest.mark.parametrize("given", ["x" * 129, "x" * 4000, "two words"])
async def test_a_request_id_that_is_not_128_visible_characters_is_replaced(given: str) -> None:
    async with served(Scripted()) as stub:
        call = stub.Generate(v1.GenerateRequest(), metadata=((status.REQUEST_ID, given),))
        request_id = dict(await call.initial_metadata())[status.REQUEST_ID]
        assert len(str(request_id)) == 32
        assert (await call).id == request_id


@pytest.mark.parametrize(
    "given", ["a\nb", "\x1b[31mred", "a\u2028b", "\x00", "\x7f", "", "x" * 129]
)
def test_request_ids_are_visible_ascii(given: str) -> None:
    metadata = ((status.REQUEST_ID, given),)
    assert len(rpc.rpc_from_metadata("/m", metadata).request_id) == 32


async def test_nothing_of_a_response_in_one_piece_goes_ahead_of_the_rest() -> None:
    async with served(Scripted(), in_one_piece=True) as stub:
        call = stub.Generate(v1.GenerateRequest(), metadata=((status.REQUEST_ID, "mine"),))
        # gRPC sends its head together with the message unless we give it something before.
        assert not tuple(await call.initial_metadata())
        assert dict(await call.trailing_metadata())[status.REQUEST_ID] == "mine"


async def test_a_stream_is_named_before_its_first_message() -> None:
    async with served(Scripted()) as stub:
        call = stub.GenerateStream(v1.GenerateRequest(), metadata=((status.REQUEST_ID, "mine"),))
        assert dict(await call.initial_metadata())[status.REQUEST_ID] == "mine"


async def test_a_missing_request_id_is_made_up() -> None:
    async with served(Scripted()) as stub:
        assert len((await stub.Generate(v1.GenerateRequest())).id) == 32


async def test_our_errors_arrive_with_details() -> None:
    async with served(Scripted(errors.InvalidRequest("n is 0", field="n"))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(v1.GenerateRequest())
    error = status.from_grpc(caught.value)
    assert type(error) is errors.InvalidRequest
    assert (error.message, error.field) == ("n is 0", "n")


async def test_unknown_errors_are_hidden_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Scripted(KeyError("password"))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(v1.GenerateRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "password" not in (caught.value.details() or "")
    assert "password" in caplog.text


async def test_an_error_after_the_first_message_ends_the_stream_with_its_status() -> None:
    received = []
    async with served(Scripted(errors.StreamBroken("gone"))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            stream = stub.GenerateStream(v1.GenerateRequest())
            chunk = await stream.read()
            assert isinstance(chunk, v1.GenerateChunk)
            received.append(chunk.text)
            await stream.read()
    assert received == ["first"]
    assert type(status.from_grpc(caught.value)) is errors.StreamBroken


async def test_trace_headers_reach_the_handler() -> None:
    servicer = Scripted()
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with served(servicer) as stub:
        await stub.Generate(v1.GenerateRequest(), metadata=(("traceparent", header),))
    assert servicer.seen is not None
    assert servicer.seen.trace_headers == {"traceparent": header}


async def test_a_taken_address_is_an_os_error() -> None:
    first, second = rpc.server(), rpc.server()
    port = rpc.bind(first, "127.0.0.1:0")
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        rpc.bind(second, f"127.0.0.1:{port}")


async def test_a_server_that_is_far_away_or_busy_is_connected_to() -> None:
    """With 0.3 s each way a handshake takes longer than the first reconnect backoff."""
    server = rpc.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(Scripted(), server)
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    with TcpProxy(f"127.0.0.1:{port}", delay_seconds=0.3) as proxy:
        async with rpc.channel(proxy.address) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            assert (await stub.Generate(v1.GenerateRequest())).id


async def test_open_streams_have_a_bound_of_their_own_and_leave_room_for_calls() -> None:
    server = rpc.server(max_calls=16)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    add_reflection((), server)
    inference_pb2_grpc.add_InferenceServicer_to_server(Scripted(), server)
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        inference = inference_pb2_grpc.InferenceStub(channel)
        streams: list[Any] = [watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
        for stream in streams:
            await stream.read()
        reflecting = reflect()
        await reflecting.write(reflection_pb2.ServerReflectionRequest(list_services="*"))
        await reflecting.read()
        for _ in range(40):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(health_pb2.HealthCheckRequest()).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "4 streams of health and reflection are open" in str(caught.value.details())
        assert (await inference.Generate(v1.GenerateRequest())).id

        # The end of one makes room for another.
        await reflecting.done_writing()
        assert await reflecting.code() is grpc.StatusCode.OK
        assert await watch(health_pb2.HealthCheckRequest()).read()
        for stream in streams:
            stream.cancel()
    await server.stop(None)


async def test_an_idle_connection_is_closed_and_one_with_a_call_is_not() -> None:
    server = rpc.server(idle_seconds=0.2)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = rpc.bind(server, "127.0.0.1:0")
    await server.start()
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        with suppress(ConnectionResetError):
            async with asyncio.timeout(20):
                await reader.read()
        writer.close()
        assert not watch.done()
        watch.cancel()
    await server.stop(None)
