"""Triton's gRPC clients, sync and asyncio, against an address; prints what they saw as JSON."""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

GREEDY = {"temperature": 0.0, "max_tokens": 128}


def text_input(text: str) -> list[triton.InferInput]:
    tensor = triton.InferInput("text_input", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode()], dtype=np.object_))
    return [tensor]


def text_of(result: triton.InferResult) -> str:
    text: bytes = result.as_numpy("text_output")[0]
    return text.decode()


def server(client: triton.InferenceServerClient, model: str) -> dict[str, Any]:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "metadata": client.get_server_metadata(as_json=True),
        "model_metadata": client.get_model_metadata(model, as_json=True),
    }


def infer(client: triton.InferenceServerClient, model: str, question: str) -> dict[str, Any]:
    result = client.infer(model, text_input(question), request_id="one", parameters=GREEDY)
    response = result.get_response()
    return {"text": text_of(result), "id": response.id, "model_name": response.model_name}


def raw_prompt(client: triton.InferenceServerClient, model: str, question: str) -> str:
    """The same text as a bare prompt, with no chat template around it."""
    result = client.infer(model, text_input(question), parameters={**GREEDY, "chat": False})
    return text_of(result)


def shortened(client: triton.InferenceServerClient, model: str, question: str) -> str:
    parameters = {**GREEDY, "max_tokens": 3}
    return text_of(client.infer(model, text_input(question), parameters=parameters))


def refusal(client: triton.InferenceServerClient, model: str, parameters: dict[str, Any]) -> Any:
    try:
        client.infer(model, text_input("Hello!"), parameters=parameters)
    except triton.InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    return None


def streams(client: triton.InferenceServerClient, model: str, question: str) -> dict[str, Any]:
    """Three requests on one stream, the second of them wrong; the responses by request id."""
    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: arrived.put((result, error)), stream_timeout=60)
    wrong = {**GREEDY, "top_p": 2.0}
    for name, parameters in (("first", GREEDY), ("wrong", wrong), ("last", GREEDY)):
        client.async_stream_infer(
            model, text_input(question), request_id=name, parameters=parameters
        )
    seen: dict[str, Any] = {"first": [], "last": [], "errors": []}
    open_ends = {"first", "wrong", "last"}
    while open_ends:
        result, error = arrived.get(timeout=60)
        if error is not None:
            seen["errors"].append(error.message())
            open_ends.discard("wrong")
            continue
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        seen[response.id].append({"text": text_of(result), "final": final})
        if final:
            open_ends.discard(response.id)
    client.stop_stream()
    return seen


async def aio_stream(address: str, model: str, question: str) -> list[str]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": model, "inputs": text_input(question), "parameters": GREEDY}

    async with triton_aio.InferenceServerClient(address) as client:
        return [text_of(r) async for r, _ in client.stream_infer(requests(), stream_timeout=60)]


def main(address: str, model: str, question: str) -> None:
    with triton.InferenceServerClient(address) as client:
        seen = {
            "server": server(client, model),
            "infer": infer(client, model, question),
            "raw_prompt": raw_prompt(client, model, question),
            "shortened": shortened(client, model, question),
            "bad_parameter": refusal(client, model, {"top_p": 2.0}),
            "unknown_model": refusal(client, "no-such-model", {}),
            "streams": streams(client, model, question),
            "aio_stream": asyncio.run(aio_stream(address, model, question)),
        }
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
