"""KServe's InferenceGRPCClient against an address; prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

# Its parameters have no type for fractions, so those travel as text.
GREEDY = {"temperature": "0.0", "max_tokens": 128}


def request(model: str, text: str, **parameters: Any) -> InferRequest:
    tensor = InferInput("text_input", [1], "BYTES", [text])
    return InferRequest(model, [tensor], request_id="one", parameters={**GREEDY, **parameters})


def raw_request(model: str, text: str) -> InferRequest:
    """The text in raw_input_contents instead of in the tensor."""
    tensor = InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
    return InferRequest(model, [tensor], request_id="raw", parameters=GREEDY)


async def infer(client: InferenceGRPCClient, asked: InferRequest) -> dict[str, Any]:
    response = await client.infer(asked)
    text = response.outputs[0].as_numpy()[0]
    return {
        "text": text.decode() if isinstance(text, bytes) else str(text),
        "id": response.id,
        "model_name": response.model_name,
        "output": response.outputs[0].name,
    }


async def refusal(client: InferenceGRPCClient, asked: InferRequest) -> Any:
    try:
        await client.infer(asked)
    except grpc.RpcError as error:
        return {"status": str(error.code()), "message": error.details()}
    return None


async def main(address: str, model: str, question: str) -> None:
    async with InferenceGRPCClient(address, timeout=60) as client:
        seen = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready(model),
            "infer": await infer(client, request(model, question)),
            "raw": await infer(client, raw_request(model, question)),
            "shortened": await infer(client, request(model, question, max_tokens=3)),
            "bad_parameter": await refusal(client, request(model, question, top_p="2.0")),
            "unknown_model": await refusal(client, request("no-such-model", question)),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(*sys.argv[1:]))
