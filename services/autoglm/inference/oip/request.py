"""Reads a request of the Open Inference Protocol into the engine's own. Pure.

Decides which tensors and parameters there are. The shared validator has judged the values before;
called by `oip_servicer` and `oip_rest`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation.oip import LENGTH_BYTES, TEXT_INPUT, parameters_of
from autoglm.validation.request_info import REAL_PARAMETERS, WHOLE_PARAMETERS

TEXT_OUTPUT = "text_output"
_SCALARS: Mapping[str, type] = {
    **dict.fromkeys((n for n in WHOLE_PARAMETERS if not n.endswith("logprobs")), int),
    **dict.fromkeys(REAL_PARAMETERS, float),
    "ignore_eos": bool,
    "skip_special_tokens": bool,
    "spaces_between_special_tokens": bool,
    "include_stop_str_in_output": bool,
}
_SAMPLING = (*_SCALARS, "stop")
_OWN: Mapping[str, type] = {"chat": bool, "priority": int}
# What clients send by themselves, and what follows from the method anyway.
_WITHOUT_EFFECT = frozenset(("binary_data_output", "stream", "triton_enable_empty_final_response"))
_WORDS: Mapping[type, str] = {int: "a whole number", float: "a number", bool: "true or false"}

EngineInput = v1.ChatRequest | v1.GenerateRequest


@dataclass(frozen=True, slots=True)
class Infer:
    """One request, over either protocol. `id` is set by the client and returned in the response."""

    model: str
    id: str
    text: str
    parameters: Mapping[str, object]


def of_grpc(request: oip.ModelInferRequest) -> Infer:
    check_tensors([t.name for t in request.inputs], [t.name for t in request.outputs])
    raw = request.raw_input_contents
    text = raw[0][LENGTH_BYTES:] if raw else request.inputs[0].contents.bytes_contents[0]
    return Infer(request.model_name, request.id, text.decode(), parameters_of(request))


def check_tensors(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise InvalidRequest unless there is one text input and at most one text output."""
    for i, name in enumerate(inputs):
        if i or name != TEXT_INPUT:
            field = f"inputs[{i}].name"
            problem = f"{field} is {name!r:.60}; send one input, {TEXT_INPUT}"
            raise InvalidRequest(problem, field=field)
    for i, name in enumerate(outputs):
        if name != TEXT_OUTPUT:
            field = f"outputs[{i}].name"
            problem = f"{field} is {name!r:.60}; the one output is {TEXT_OUTPUT}"
            raise InvalidRequest(problem, field=field)


def engine_request(infer: Infer, model: v1.Model) -> EngineInput:
    """Return the text as a user message, or as a bare prompt with `chat` false."""
    effective = {k: v for k, v in infer.parameters.items() if k not in _WITHOUT_EFFECT}
    own = {k: _converted("parameters.", k, v, _OWN[k]) for k, v in effective.items() if k in _OWN}
    wanted = {k: v for k, v in effective.items() if k not in _OWN}
    params = sampling_params(wanted, "parameters.", also=_OWN)
    priority = own.get("priority") or 0
    chat = own.get("chat")
    if "chat" in model.tasks if chat is None else chat:
        message = v1.ChatMessage(role="user", content=infer.text)
        engine_input: EngineInput = v1.ChatRequest(
            model=infer.model, messages=(message,), sampling_params=params
        )
    else:
        engine_input = v1.GenerateRequest(
            model=infer.model, text=infer.text, sampling_params=params
        )
    _set(engine_input, "parameters.", "priority", priority)
    return engine_input


def sampling_params(
    parameters: Mapping[str, object], prefix: str, also: Sequence[str] | Mapping[str, Any] = ()
) -> v1.SamplingParams:
    """`also` are names that the caller reads itself: shown to a client who sent none that exist."""
    params = v1.SamplingParams()
    for name, given in parameters.items():
        if name not in _SAMPLING:
            known = ", ".join(sorted((*_SAMPLING, *also)))
            field = f"{prefix}{name}"
            problem = f"{field:.80} is not a parameter; there are: {known}"
            raise InvalidRequest(problem, field=field)
        if name == "stop":
            stops = [given] if isinstance(given, str) else given or []
            if not isinstance(stops, list) or not all(isinstance(s, str) for s in stops):
                raise _wrong(prefix, "stop", given, "a string or a list of strings")
            params.stop.extend(s for s in stops if s)
        elif given is not None:
            _set(params, prefix, name, _converted(prefix, name, given, _SCALARS[name]))
    if params.n > 1:
        problem = f"{prefix}n is {params.n}; there is one output, send a request for each"
        raise InvalidRequest(problem, field=f"{prefix}n")
    return params


def _converted(prefix: str, name: str, given: object, kind: type) -> Any:
    """Convert a value; numbers and booleans may be text, as some clients send nothing else."""
    if given is None:
        return None
    try:
        return msgspec.convert(given, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong(prefix, name, given, _WORDS[kind]) from error


def _set(message: v1.SamplingParams | EngineInput, prefix: str, name: str, value: Any) -> None:
    try:
        setattr(message, name, value)
    except ValueError as error:
        raise _wrong(prefix, name, value, "a number that fits") from error


def _wrong(prefix: str, name: str, given: object, wanted: str) -> InvalidRequest:
    field = f"{prefix}{name}"
    return InvalidRequest(f"{field} is {given!r:.60}; give {wanted}", field=field)
