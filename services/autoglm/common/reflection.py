"""gRPC server reflection, v1 and v1alpha, for tools without stubs. Used by gateway and pod.

grpcio-reflection has v1alpha only; v1 has the same messages under another package. Its descriptor
pool finds no methods by their names, which is how ghz and `grpcurl describe` look them up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace("v1alpha", "v1")
_V1_FILE = "grpc/reflection/v1/reflection.proto"
_METHOD = "ServerReflectionInfo"


def add_reflection(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve the descriptors of the services, by their full names, and of reflection itself."""
    names = (*services, V1ALPHA, V1)
    servicer = reflection.aio.ReflectionServicer(names, pool=Descriptors())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler(V1, {_METHOD: handler})
    server.add_generic_rpc_handlers((generic,))


class Descriptors:
    """The default `DescriptorPool` with methods and the v1 service added. Raises KeyError."""

    def __init__(self) -> None:
        self._default = descriptor_pool.Default()
        # A separate pool, so that it does not conflict with a package that has the real file.
        self._own = descriptor_pool.DescriptorPool()
        self._own.AddSerializedFile(_v1_file().SerializeToString())

    def FindFileByName(self, name: str) -> FileDescriptor:
        try:
            return self._default.FindFileByName(name)
        except KeyError:
            return self._own.FindFileByName(name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        for pool in (self._default, self._own):
            try:
                return pool.FindFileContainingSymbol(symbol)
            except KeyError:
                if file := _file_of_method(pool, symbol):
                    return file
        raise KeyError(symbol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._default, name)


def _file_of_method(pool: Any, symbol: str) -> FileDescriptor | None:
    service, _, method = symbol.rpartition(".")
    try:
        found = pool.FindServiceByName(service)
    except KeyError:
        return None
    file: FileDescriptor = found.file
    return file if method in found.methods_by_name else None


def _v1_file() -> FileDescriptorProto:
    """Return the file of v1alpha with its package renamed to v1 everywhere in it."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    content = json_format.MessageToJson(file).replace("reflection.v1alpha", "reflection.v1")
    renamed = json_format.Parse(content, FileDescriptorProto())
    renamed.name = _V1_FILE
    return renamed
