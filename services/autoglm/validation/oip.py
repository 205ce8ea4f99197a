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
    COMPLETION_MAX_TOKENS,
    REAL_PARAMETERS,
    WHOLE_PARAMETERS,
    FieldNames,
    Operation,
    Prompt,
    RequestInfo,
    Sampling,
    utf8_size,
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
_INFER = re.compile(r"/v2/models/(.+?)(?:/versions/[^/]+)?/(?:infer|generate|generate_stream)")


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
    """Return the model that a path of OIP over REST runs, None for any other path."""
    match = _INFER.fullmatch(path)
    return match[1] if match else None


def of_oip(
    request: oip.ModelInferRequest, *, streaming: bool = False, cut: Cut = NOTHING
) -> RequestInfo:
    """Return the facts of a gRPC request; `cut` is the part that it lacks."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs; "
            "send one for each",
            field="raw_input_contents",
        )
    found: list[tuple[str, bytes]] = []
    for index, tensor in enumerate(request.inputs):
        if tensor.name != TEXT_INPUT:
            continue
        _check_tensor(f"inputs[{index}]", tensor.datatype, tensor.shape)
        if raw:
            field = f"raw_input_contents[{index}]"
            text = _raw_text(field, raw[index], is_cut=bool(cut.text))
        else:
            field = f"inputs[{index}].contents.bytes_contents"
            _check_count(field, len(tensor.contents.bytes_contents))
            text = tensor.contents.bytes_contents[0]
        _check_utf8(field, text)
        found.append((field, text))
    prompts = [Prompt(field, len(text)) for field, text in found]
    first = found[0][1] if found else b""
    info = _info(request.model_name, parameters_of(request), prompts, streaming, first)
    return with_cut(info, cut, TEXT_FIELDS)


def parameters_of(request: oip.ModelInferRequest) -> dict[str, Any]:
    """Return the parameters of a gRPC request, as JSON would have them."""
    return {
        name: getattr(value, kind)
        for name, value in request.parameters.items()
        if (kind := value.WhichOneof("parameter_choice"))
    }


def _raw_text(field: str, raw: bytes, *, is_cut: bool) -> bytes:
    """Return the text that is there; the pod compares the length of one that is cut here."""
    size = int.from_bytes(raw[:LENGTH_BYTES], "little")
    is_part = is_cut and LENGTH_BYTES <= len(raw) < LENGTH_BYTES + size
    if len(raw) != LENGTH_BYTES + size and not is_part:
        raise InvalidRequest(
            f"{field} has {len(raw)} bytes; send one element: its length in four little-endian "
            "bytes, then the text",
            field=field,
        )
    return raw[LENGTH_BYTES:]


def of_oip_json(model: str, body: bytes) -> RequestInfo:
    """Return the facts of a REST request for the model."""
    request = decode(body, InferRequest)
    streaming = bool(request.parameters.get("stream"))
    if request.text_input is not None:
        prompts: Sequence[Prompt] = (Prompt(TEXT_INPUT, utf8_size(request.text_input)),)
        return _info(model, request.parameters, prompts, streaming, request.text_input)
    tensors = [(i, t) for i, t in enumerate(request.inputs) if t.name == TEXT_INPUT]
    prompts = [_json_prompt(i, t) for i, t in tensors]
    text = tensors[0][1].data if tensors else b""
    while isinstance(text, list) and text:
        text = text[0]
    # Binary tensors stand behind the JSON.
    text = text if isinstance(text, str) else b""
    return _info(model, request.parameters, prompts, streaming, text)


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
    given: dict[str, Any] = {}
    for name, value in parameters.items():
        if name in WHOLE_PARAMETERS or name in REAL_PARAMETERS:
            kind: type[int] | type[float] = int if name in WHOLE_PARAMETERS else float
            try:
                # Many clients can only send numbers as text.
                given[name] = (
                    None if value is None else msgspec.convert(value, type=kind, strict=False)
                )
            except msgspec.ValidationError as error:
                wanted = "a whole number" if kind is int else "a number"
                raise _wrong(name, value, f"give {wanted}") from error
    # Without a chat template the text is completed as it is.
    is_bare = str(parameters.get("chat", True)).lower() in ("false", "0")
    return Sampling(
        **given,
        stop=(stop,) if isinstance(stop, str) else stop,
        default_max_tokens=COMPLETION_MAX_TOKENS if is_bare else None,
    )


def _wrong(name: str, value: object, remedy: str) -> InvalidRequest:
    field = f"parameters.{name}"
    return InvalidRequest(f"{field} is {value!r:.60}; {remedy}", field=field)


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
    return Prompt(f"{path}.data", utf8_size(values[0]))


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
