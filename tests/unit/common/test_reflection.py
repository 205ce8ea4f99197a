"""What tools without stubs find."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2 as messages

from autoglm.common.reflection import V1, V1ALPHA, Descriptors, add_reflection
from autoglm.v1 import inference_pb2


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("autoglm.v1.Inference", "autoglm/v1/inference.proto"),
        ("autoglm.v1.Inference.ChatStream", "autoglm/v1/inference.proto"),
        ("autoglm.v1.ChatRequest.model", "autoglm/v1/chat.proto"),
        (V1ALPHA, "grpc_reflection/v1alpha/reflection.proto"),
        (V1, "grpc/reflection/v1/reflection.proto"),
        (f"{V1}.ServerReflectionInfo", "grpc/reflection/v1/reflection.proto"),
    ],
)
def test_services_and_their_methods_are_found(symbol: str, file: str) -> None:
    assert inference_pb2.DESCRIPTOR
    assert Descriptors().FindFileContainingSymbol(symbol).name == file
    assert Descriptors().FindFileByName(file).name == file


@pytest.mark.parametrize("symbol", ["autoglm.v1.Inference.Nope", "autoglm.v1.Nope", "Nope", ""])
def test_what_is_not_there_is_not_found(symbol: str) -> None:
    with pytest.raises(KeyError):
        Descriptors().FindFileContainingSymbol(symbol)


def test_the_v1_service_speaks_of_its_own_messages() -> None:
    file = Descriptors().FindFileByName("grpc/reflection/v1/reflection.proto")
    (method,) = file.services_by_name["ServerReflection"].methods
    assert method.input_type.full_name == "grpc.reflection.v1.ServerReflectionRequest"
    assert method.client_streaming and method.server_streaming


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_a_server_has_both_versions(version: str) -> None:
    server = grpc.aio.server()
    add_reflection(["autoglm.v1.Inference"], server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    def requests() -> Iterator[messages.ServerReflectionRequest]:
        yield messages.ServerReflectionRequest(list_services="")
        yield messages.ServerReflectionRequest(
            file_containing_symbol="autoglm.v1.Inference.Generate"
        )

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=messages.ServerReflectionRequest.SerializeToString,
            response_deserializer=messages.ServerReflectionResponse.FromString,
        )
        listed, found = [response async for response in call(requests())]
    await server.stop(None)
    names = {service.name for service in listed.list_services_response.service}
    assert names == {"autoglm.v1.Inference", V1, V1ALPHA}
    assert found.file_descriptor_response.file_descriptor_proto
