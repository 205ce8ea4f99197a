"""JSON of the Open Inference Protocol over REST, and of `/v2/inference`. Pure; `oip_rest` calls it.

Bodies were judged by the shared validator before they come here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf import json_format

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.inference.oip import responses
from autoglm.inference.oip.request import (
    TEXT_OUTPUT,
    Infer,
    check_tensors,
    of_grpc,
    sampling_params,
)
from autoglm.inference.oip.responses import DATATYPE, SHAPE, Piece
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import of_oip
from autoglm.validation.oip import TEXT_INPUT, InferRequest
from autoglm.validation.scan.json_text import decode

Json = dict[str, Any]
# Bodies of Triton's clients may have tensors behind their JSON.
EXTENSIONS = ("binary_tensor_data", "generate")
_BINARY_SIZE = "binary_data_size"


class _Output(msgspec.Struct):
    name: str


class _InferWithOutputs(InferRequest):
    outputs: list[_Output] = []


class _Predict(msgspec.Struct):
    model_name: str | None = None
    # The name that the rest of the REST API uses.
    model: str | None = None
    input_data: str = ""
    labels: list[str] = []
    task: str | None = None
    priority: int | None = None
    # Read by the gateway.
    session_id: str | None = None


def infer_request(model: str, body: bytes, binary: bytes) -> Infer:
    """Return the request of a JSON body; `binary` is the part behind the JSON."""
    parsed = decode(body, _InferWithOutputs)
    if not parsed.inputs:
        raise InvalidRequest("inputs is missing; it is required", field="inputs")
    check_tensors([t.name for t in parsed.inputs], [t.name for t in parsed.outputs])
    tensor = parsed.inputs[0]
    if _BINARY_SIZE in tensor.parameters:
        text = _binary_text(tensor.parameters[_BINARY_SIZE], binary)
    else:
        value = tensor.data
        while isinstance(value, list):
            value = value[0]
        text = str(value)
    return Infer(model, parsed.id or "", text, parsed.parameters)


def generate_request(model: str, body: bytes) -> Infer:
    parsed = decode(body, InferRequest)
    if parsed.text_input is None:
        raise InvalidRequest("text_input is missing; it is required", field="text_input")
    return Infer(model, parsed.id or "", parsed.text_input, parsed.parameters)


def predict_request(body: bytes) -> v1.PredictRequest:
    """Return the request of a JSON body; fields that are not Predict's are sampling parameters."""
    parsed = decode(body, _Predict)
    own = _Predict.__struct_fields__
    given = {k: v for k, v in decode(body, Json).items() if k not in own}
    request = v1.PredictRequest(
        model_name=parsed.model_name or parsed.model or "",
        input_data=parsed.input_data,
        labels=parsed.labels,
        task=parsed.task or "",
        sampling_params=sampling_params(given, "", also=own),
    )
    try:
        request.priority = parsed.priority or 0
    except ValueError as error:
        problem = f"priority is {parsed.priority}; give a number that fits in 32 signed bits"
        raise InvalidRequest(problem, field="priority") from error
    return request


def infer_response(infer: Infer, text: str) -> Json:
    output = {"name": TEXT_OUTPUT, "datatype": DATATYPE, "shape": SHAPE, "data": [text]}
    return {"model_name": infer.model, "id": infer.id, "outputs": [output]}


def generate_response(infer: Infer, text: str) -> Json:
    return {"model_name": infer.model, "id": infer.id, TEXT_OUTPUT: text}


def generate_event(infer: Infer, piece: Piece) -> Json:
    """Return the event; the last one has OpenAI's usage, which headers came too early for."""
    event = generate_response(infer, piece.text) | {"triton_final_response": piece.is_final}
    if piece.usage is None:
        return event
    prompt, completion = piece.usage.prompt_tokens, piece.usage.completion_tokens
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event | {"usage": counts | {"total_tokens": prompt + completion}}


def predict_response(response: v1.PredictResponse) -> Json:
    return json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def server() -> Json:
    version = responses.server_version()
    return {"name": responses.SERVER_NAME, "version": version, "extensions": EXTENSIONS}


def metadata(model: v1.Model) -> Json:
    text = {"datatype": DATATYPE, "shape": SHAPE}
    return {
        "name": model.name,
        "versions": [],
        "platform": model.engine,
        "inputs": [{"name": TEXT_INPUT, **text}],
        "outputs": [{"name": TEXT_OUTPUT, **text}],
    }


def split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    """Split a body into JSON and binary parts, by the header with the length of the first."""
    if length is None:
        return body, b""
    if not length.isdecimal() or len(length) > 12 or int(length) > len(body):
        problem = f"the JSON part is said to have {length!r:.40} bytes of {len(body)}"
        raise InvalidRequest(f"{problem}; give its length", field="inference-header-content-length")
    return body[: int(length)], body[int(length) :]


def _binary_text(size: object, binary: bytes) -> str:
    if size != len(binary):
        field = f"inputs[0].parameters.{_BINARY_SIZE}"
        problem = f"{field} is {size!r:.40}, but {len(binary)} bytes follow the JSON"
        raise InvalidRequest(problem, field=field)
    tensor = oip.ModelInferRequest.InferInputTensor(name=TEXT_INPUT, datatype=DATATYPE, shape=SHAPE)
    request = oip.ModelInferRequest(inputs=(tensor,), raw_input_contents=(binary,))
    of_oip(request)
    return of_grpc(request).text
