"""Reads Open Inference Protocol requests, gRPC and REST, into a `RequestInfo`.

A text model has one input, `text_input` of type BYTES with one element; sampling parameters travel
as request parameters under vLLM's names. Other inputs are the pod's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from autoglm.common.errors import InvalidRequest
from autoglm.validation.prefix_hash import of_text
from autoglm.validation.request_info import (
    FieldNames,
    Operation,
    Prompt,
    RequestInfo,
    Sampling,
    with_cut,
)
from autoglm.validation.scan.abridged import NOTHING, Cut
from autoglm.validation.scan.json_text import decode

if TYPE_CHECKING:
    from autoglm.v1 import open_inference_pb2 as oip

TEXT_INPUT = "text_input"
LENGTH_BYTES = 4
"""Before each element of a raw BYTES tensor: its length, little-endian."""
TEXT_FIELDS = frozenset(("raw_input_contents[]", "inputs[].contents.bytes_contents[]"))
"""Where messages have the text of prompts, as `bounds` names fields."""
_COMPLETION_MAX_TOKENS = 16
_INFER = re.compile(r"/v2/models/(.+?)(?:/versions/[^/]+)?/(?:infer|generate|generate_stream)")
_WHOLE = frozenset(
    (
        "n",
        "top_k",
        "seed",
        "max_tokens",
        "min_tokens",
        "logprobs",
        "prompt_logprobs",
        "truncate_prompt_tokens",
    )
)
_REAL = frozenset(
    ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
)


class InferInput(msgspec.Struct):
    """A tensor of a request in JSON; a binary one stands behind the JSON."""

    name: str
    datatype: str = "BYTES"
    shape: list[int] = []
    parameters: dict[str, Any] = {}
    data: Any = None


class InferRequest(msgspec.Struct):
    id: str | None = None
    parameters: dict[str, Any] = {}
    inputs: list[InferInput] = []
    # Triton's generate extension has the text at the top level.
    text_input: str | None = None


def infer_path(path: str) -> str | None:
    """The model that a path of OIP over REST runs, None for any other path."""
    match = _INFER.fullmatch(path)
    return match[1] if match else None


def of_oip(
    request: oip.ModelInferRequest, *, streaming: bool = False, cut: Cut = NOTHING
) -> RequestInfo:
    parameters = {
        name: getattr(value, kind)
        for name, value in request.parameters.items()
        if (kind := value.WhichOneof("parameter_choice"))
    }
    prompts = _grpc_prompts(request, is_cut=bool(cut.text))
    info = _info(request.model_name, parameters, prompts, streaming, _grpc_text(request))
    return with_cut(info, cut, TEXT_FIELDS)


def _grpc_text(request: oip.ModelInferRequest) -> bytes:
    """The prompt; called once the tensors are known to be well formed."""
    for index, tensor in enumerate(request.inputs):
        if tensor.name == TEXT_INPUT:
            raw = request.raw_input_contents
            return raw[index][LENGTH_BYTES:] if raw else tensor.contents.bytes_contents[0]
    return b""


def of_oip_json(model: str, body: bytes) -> RequestInfo:
    asked = decode(body, InferRequest)
    streaming = bool(asked.parameters.get("stream"))
    if asked.text_input is not None:
        prompts: Sequence[Prompt] = (Prompt(TEXT_INPUT, len(asked.text_input.encode())),)
        return _info(model, asked.parameters, prompts, streaming, asked.text_input)
    tensors = [(i, t) for i, t in enumerate(asked.inputs) if t.name == TEXT_INPUT]
    prompts = [_json_prompt(i, t) for i, t in tensors]
    text = _first_text(tensors[0][1].data) if tensors else b""
    return _info(model, asked.parameters, prompts, streaming, text)


def _first_text(data: Any) -> str | bytes:
    """The tensor's one text; nothing where it stands behind the JSON, as binary tensors do."""
    while isinstance(data, list) and data:
        data = data[0]
    return data if isinstance(data, str) else b""


def _info(
    model: str,
    parameters: Mapping[str, Any],
    prompts: Sequence[Prompt],
    streaming: bool,
    text: str | bytes,
) -> RequestInfo:
    return RequestInfo(
        operation=Operation.INFER,
        model=model,
        field_name=FieldNames(
            "parameters.", {"model": "model_name", "prompt": f"inputs.{TEXT_INPUT}"}
        ),
        streaming=streaming,
        prompts=prompts,
        sampling=_sampling(parameters),
        prefix=of_text(text),
    )


def _sampling(parameters: Mapping[str, Any]) -> Sampling:
    stop = parameters.get("stop") or []
    if not isinstance(stop, str | list) or not all(isinstance(s, str) for s in stop):
        raise _wrong("stop", stop, "give a string or a list of strings")
    given: dict[str, Any] = {
        name: _number(name, value) for name, value in parameters.items() if name in _WHOLE | _REAL
    }
    return Sampling(
        **given,
        stop=(stop,) if isinstance(stop, str) else stop,
        default_max_tokens=_COMPLETION_MAX_TOKENS if _is_bare(parameters) else None,
    )


def _is_bare(parameters: Mapping[str, Any]) -> bool:
    """Returns whether the text is completed as it is; otherwise it is a chat message."""
    return str(parameters.get("chat", True)).lower() in ("false", "0")


def _number(name: str, value: Any) -> int | float | None:
    """The value of a parameter; many clients can only send numbers as text."""
    kind = int if name in _WHOLE else float
    if value is None:
        return None
    try:
        number = msgspec.convert(value, type=kind, strict=False)
    except msgspec.ValidationError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise _wrong(name, value, f"give {wanted}") from error
    return number


def _wrong(name: str, value: object, remedy: str) -> InvalidRequest:
    field = f"parameters.{name}"
    return InvalidRequest(f"{field} is {value!r:.60}; {remedy}", field=field)


def _grpc_prompts(request: oip.ModelInferRequest, *, is_cut: bool) -> Sequence[Prompt]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; "
            "send one for each",
            field="raw_input_contents",
        )
    return [
        _grpc_prompt(i, tensor, raw[i] if raw else None, is_cut=is_cut)
        for i, tensor in enumerate(request.inputs)
        if tensor.name == TEXT_INPUT
    ]


def _grpc_prompt(
    index: int,
    tensor: oip.ModelInferRequest.InferInputTensor,
    raw: bytes | None,
    *,
    is_cut: bool,
) -> Prompt:
    path = f"inputs[{index}]"
    _check_tensor(path, tensor.datatype, tensor.shape)
    if raw is not None:
        return Prompt(f"raw_input_contents[{index}]", _raw_text_size(index, raw, is_cut=is_cut))
    values = tensor.contents.bytes_contents
    _check_count(f"{path}.contents.bytes_contents", len(values))
    _check_utf8(f"{path}.contents.bytes_contents", values[0])
    return Prompt(f"{path}.contents.bytes_contents", len(values[0]))


def _raw_text_size(index: int, raw: bytes, *, is_cut: bool) -> int:
    """Of what is there; the pod compares the length of one that is cut here."""
    field = f"raw_input_contents[{index}]"
    size = int.from_bytes(raw[:LENGTH_BYTES], "little")
    if is_cut and len(raw) < LENGTH_BYTES + size:
        size = max(0, len(raw) - LENGTH_BYTES)
    if len(raw) != LENGTH_BYTES + size:
        raise InvalidRequest(
            f"{field} has {len(raw)} bytes; send one element: its length in four little-endian "
            "bytes, then the text",
            field=field,
        )
    _check_utf8(field, raw[LENGTH_BYTES:])
    return size


def _json_prompt(index: int, tensor: InferInput) -> Prompt:
    path = f"inputs[{index}]"
    _check_tensor(path, tensor.datatype, tensor.shape)
    binary = tensor.parameters.get("binary_data_size")
    if isinstance(binary, int):
        return Prompt(path, max(0, binary - LENGTH_BYTES))
    values = tensor.data if isinstance(tensor.data, list) else [tensor.data]
    while len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    _check_count(f"{path}.data", len(values))
    if not isinstance(values[0], str):
        raise InvalidRequest(
            f"{path}.data is {values[0]!r:.60}; give one string", field=f"{path}.data"
        )
    return Prompt(f"{path}.data", len(values[0].encode()))


def _check_tensor(path: str, datatype: str, shape: Sequence[int]) -> None:
    if datatype != "BYTES":
        raise InvalidRequest(
            f"{path}.datatype is {datatype!r}; {TEXT_INPUT} is of type BYTES",
            field=f"{path}.datatype",
        )
    if any(size != 1 for size in shape):
        raise InvalidRequest(
            f"{path}.shape is {list(shape)!r:.60}; {TEXT_INPUT} has one element, shape [1]",
            field=f"{path}.shape",
        )


def _check_count(path: str, count: int) -> None:
    if count != 1:
        raise InvalidRequest(f"{path} has {count} elements; send one text", field=path)


def _check_utf8(path: str, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{path} is not UTF-8 at byte {error.start}; send UTF-8", field=path
        ) from error
