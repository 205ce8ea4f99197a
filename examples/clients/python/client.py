"""Calls Open-AutoGLM from a Python service that has nothing of it but the protos.

    ./generate
    .venv/bin/python client.py --address 127.0.0.1:50051 --model tiny-glm

Lists the models, generates once, streams a chat, and shows what a refused request looks like. The
last line is the same in JSON, for scripts. A service that may install `open-autoglm` has an easier
way in `autoglm.client`.
"""

from __future__ import annotations

import argparse
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

sys.path.insert(0, str(Path(__file__).parent / "gen"))

from autoglm.v1 import chat_pb2, generate_pb2, inference_pb2_grpc, models_pb2

GREEDY = generate_pb2.SamplingParams(temperature=0, max_tokens=128)


def list_models(stub: inference_pb2_grpc.InferenceStub, timeout: float) -> list[str]:
    response = stub.ListModels(models_pb2.ListModelsRequest(), timeout=timeout)
    names = [model.name for model in response.models]
    print("models:", ", ".join(names))
    return names


def generate(
    stub: inference_pb2_grpc.InferenceStub, model: str, prompt: str, timeout: float
) -> dict[str, Any]:
    request = generate_pb2.GenerateRequest(model=model, text=prompt, sampling_params=GREEDY)
    sent = str(uuid.uuid4())
    response, call = stub.Generate.with_call(
        request, timeout=timeout, metadata=[("x-request-id", sent)]
    )
    completion = response.completions[0]
    reason = generate_pb2.FinishReason.Name(completion.finish_reason)
    print(f"generate: {completion.text!r} ({reason})")
    return {
        "text": completion.text,
        "finish_reason": reason,
        **request_ids(sent, call.initial_metadata()),
        "usage": usage(response.usage),
    }


def chat(
    stub: inference_pb2_grpc.InferenceStub, model: str, question: str, timeout: float
) -> dict[str, Any]:
    request = chat_pb2.ChatRequest(
        model=model,
        messages=[chat_pb2.ChatMessage(role="user", content=question)],
        sampling_params=GREEDY,
    )
    sent = str(uuid.uuid4())
    stream = stub.ChatStream(request, timeout=timeout, metadata=[("x-request-id", sent)])
    pieces: list[str] = []
    reason, counted = "FINISH_REASON_UNSPECIFIED", generate_pb2.Usage()
    print("chat: ", end="")
    for chunk in stream:
        print(chunk.delta.content, end="", flush=True)
        pieces.append(chunk.delta.content)
        if chunk.finish_reason:
            reason = generate_pb2.FinishReason.Name(chunk.finish_reason)
        if chunk.HasField("usage"):
            counted = chunk.usage
    print(f" ({reason}, {counted.completion_tokens} tokens)")
    return {
        "text": "".join(pieces),
        "chunks": len(pieces),
        "finish_reason": reason,
        **request_ids(sent, stream.initial_metadata()),
        "usage": usage(counted),
    }


def refused(
    stub: inference_pb2_grpc.InferenceStub, model: str, prompt: str, timeout: float
) -> dict[str, Any]:
    """Sends a top_p that cannot be, and reads what the server says about it."""
    wrong = generate_pb2.SamplingParams(top_p=2)
    request = generate_pb2.GenerateRequest(model=model, text=prompt, sampling_params=wrong)
    try:
        stub.Generate(request, timeout=timeout)
    except grpc.RpcError as error:
        return explain(error)
    raise SystemExit("the server took a top_p of 2")


def explain(error: grpc.RpcError) -> dict[str, Any]:
    """The error as a person and a program want it: the code, the reason, the wrong field."""
    found: dict[str, Any] = {"code": error.code().value[0], "message": error.details()}
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            found["reason"] = info.reason
        elif detail.Unpack(bad):
            found["field"] = bad.field_violations[0].field
    print(f"refused: {error.code().name} {found.get('field', '')}: {error.details()}")
    return found


def request_ids(sent: str, metadata: Any) -> dict[str, str]:
    """Both ids, so that a log of either side can be found from the other."""
    returned = dict(metadata).get("x-request-id", "")
    print("request id:", returned)
    return {"request_id_sent": sent, "request_id": returned}


def usage(counted: generate_pb2.Usage) -> dict[str, int]:
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Call Open-AutoGLM over gRPC.")
    parser.add_argument("--address", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--model", default="tiny-glm")
    parser.add_argument("--question", default="What is Open-AutoGLM?")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for each call")
    args = parser.parse_args()
    parameters = (args.model, args.question, args.timeout)
    with grpc.insecure_channel(args.address) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        try:
            result = {
                "client": "python",
                "models": list_models(stub, args.timeout),
                "generate": generate(stub, *parameters),
                "chat": chat(stub, *parameters),
                "error": refused(stub, *parameters),
            }
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
