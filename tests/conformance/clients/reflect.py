"""A client without stubs: learns the API by reflection, then calls it. Prints JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def call(channel: grpc.Channel, pool: DescriptorPool, path: str, request: dict[str, Any]) -> Any:
    service, name = path.split("/")
    method = pool.FindServiceByName(service).methods_by_name[name]
    message = GetMessageClass(method.input_type)()
    answer = GetMessageClass(method.output_type)
    stub = channel.unary_unary(
        f"/{path}",
        request_serializer=type(message).SerializeToString,
        response_deserializer=answer.FromString,
    )
    response = stub(json_format.ParseDict(request, message), timeout=60)
    return json_format.MessageToDict(response, preserving_proto_field_name=True)


def main(address: str, model: str, question: str) -> None:
    chat = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "sampling_params": {"temperature": 0},
    }
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        inference = pool.FindServiceByName("autoglm.v1.Inference")
        seen = {
            "services": sorted(database.get_services()),
            "methods": sorted(inference.methods_by_name),
            "models": call(channel, pool, "autoglm.v1.Inference/ListModels", {}),
            "chat": call(channel, pool, "autoglm.v1.Inference/Chat", chat),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
