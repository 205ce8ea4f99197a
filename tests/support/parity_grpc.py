"""Requests of every unary and streaming inference method of gRPC, good and wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from autoglm import v1
from autoglm.common import status
from autoglm.v1 import open_inference_pb2 as oip

SECONDS = 60
_INFERENCE = "/autoglm.v1.Inference"
_OIP = "/inference.GRPCInferenceService"
_USER = [{"role": "user", "content": "hi"}]
_SHORT = {"max_tokens": 3}
_TENSOR = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
_DATA = {"contents": {"bytes_contents": ["aGk="]}}
Fields = Mapping[str, Any]

SAMPLING: Sequence[Fields] = (
    {"n": 2},
    {"n": 0},
    {"n": 129},
    {"temperature": 2},
    {"temperature": 3},
    {"temperature": -1},
    {"temperature": "NaN"},
    {"temperature": "Infinity"},
    {"top_p": 0},
    {"top_p": 0.5},
    {"top_k": -1},
    {"top_k": -2},
    {"min_p": 2},
    {"presence_penalty": 3},
    {"frequency_penalty": -3},
    {"repetition_penalty": 0},
    {"seed": -7},
    {"max_tokens": 0},
    {"max_tokens": 10**6},
    {"min_tokens": 2},
    {"min_tokens": 9},
    {"stop": ["a", ""]},
    {"stop_token_ids": [5]},
    {"stop_token_ids": [10**9]},
    {"logprobs": 0},
    {"logprobs": 20},
    {"logprobs": 21},
    {"prompt_logprobs": 1},
    {"prompt_logprobs": 21},
    {"logit_bias": {5: 1}},
    {"logit_bias": {5: 101}},
    {"logit_bias": {999999: 1}},
    {"truncate_prompt_tokens": 1},
    {"truncate_prompt_tokens": 10**6},
    {"ignore_eos": True},
)
FORMATS: Sequence[Fields] = (
    {"json_object": True},
    {"json_schema": {"name": "s", "schema": '{"type": "object"}'}},
    {"json_schema": {"name": "s", "schema": "{"}},
    {"json_schema": {"name": "s", "schema": '{"type": "nonsense"}'}},
    {"regex": "a+"},
    {"regex": "("},
    {"choice": {"values": ["a"]}},
    {"choice": {}},
    {"grammar": 'root ::= "a"'},
    {"grammar": "("},
)
_MODELS: Sequence[Fields] = ({"model": ""}, {"model": "no-such-model"})
_GENERATE: Sequence[Fields] = (
    *_MODELS,
    {"text": None},
    {"text": ""},
    {"text": "x" * 10**6},
    {"text": None, "token_ids": {"ids": [1, 2]}},
    {"text": None, "token_ids": {"ids": []}},
    {"text": None, "token_ids": {"ids": [10**9]}},
    {"priority": 1},
)
_CHAT: Sequence[Fields] = (
    *_MODELS,
    {"messages": []},
    {"messages": [{"content": "x"}]},
    {"messages": [{"role": "pirate", "content": "x"}]},
    {"messages": [{"role": "user", "parts": [{"text": "x"}]}]},
    {"messages": [{"role": "user", "parts": [{"image_url": "data:x"}]}]},
    {"messages": [{"role": "user", "parts": [{}]}]},
    {"tools": [{"name": "f", "parameters": "{}"}]},
    {"tools": [{"name": "f", "parameters": "{"}]},
    {"tools": [{"name": ""}]},
    {"tool_choice": {"mode": "MODE_REQUIRED"}},
    {"tool_choice": {"function": "g"}},
    {"chat_template_kwargs": "{"},
    {"continue_final_message": True},
    {"continue_final_message": True, "add_generation_prompt": False},
)


@dataclass(frozen=True, slots=True)
class GrpcRequest:
    name: str
    method: str
    message: Message
    response: type[Message]
    streams: bool


@dataclass(frozen=True, slots=True)
class Method:
    path: str
    request: type[Message]
    response: type[Message]
    good: Fields
    variants: Sequence[Fields]
    streams: bool = False


def _sampled(good: Fields, variants: Sequence[Fields]) -> Sequence[Fields]:
    params = [{"sampling_params": {**good["sampling_params"], **given}} for given in SAMPLING]
    return (*variants, *params, *({"response_format": given} for given in FORMATS))


_GOOD_TEXT = {"model": "tiny-glm", "text": "hi", "sampling_params": _SHORT}
_GOOD_CHAT = {"model": "tiny-glm", "messages": _USER, "sampling_params": _SHORT}
_GOOD_INFER = {"model_name": "tiny-glm", "inputs": [{**_TENSOR, **_DATA}]}
METHODS: Sequence[Method] = (
    Method(
        f"{_INFERENCE}/Generate",
        v1.GenerateRequest,
        v1.GenerateResponse,
        _GOOD_TEXT,
        _sampled(_GOOD_TEXT, _GENERATE),
    ),
    Method(
        f"{_INFERENCE}/GenerateStream",
        v1.GenerateRequest,
        v1.GenerateChunk,
        _GOOD_TEXT,
        _sampled(_GOOD_TEXT, _GENERATE),
        streams=True,
    ),
    Method(
        f"{_INFERENCE}/Chat",
        v1.ChatRequest,
        v1.ChatResponse,
        _GOOD_CHAT,
        _sampled(_GOOD_CHAT, _CHAT),
    ),
    Method(
        f"{_INFERENCE}/ChatStream",
        v1.ChatRequest,
        v1.ChatChunk,
        _GOOD_CHAT,
        _sampled(_GOOD_CHAT, _CHAT),
        streams=True,
    ),
    Method(
        f"{_INFERENCE}/Embed",
        v1.EmbedRequest,
        v1.EmbedResponse,
        {"model": "tiny-glm", "texts": ["hi"]},
        (*_MODELS, {"texts": []}, {"texts": [""]}),
    ),
    Method(
        f"{_INFERENCE}/Tokenize",
        v1.TokenizeRequest,
        v1.TokenizeResponse,
        {"model": "tiny-glm", "text": "hi"},
        (
            *_MODELS,
            {"text": None},
            {"text": ""},
            {"text": None, "chat": {"messages": _USER}},
            {"text": None, "chat": {"messages": []}},
        ),
    ),
    Method(
        f"{_INFERENCE}/Predict",
        v1.PredictRequest,
        v1.PredictResponse,
        {"model_name": "tiny-glm", "input_data": "a", "labels": ["b", "c"]},
        (
            {"model_name": ""},
            {"model_name": "no-such-model"},
            {"input_data": ""},
            {"labels": ["b"]},
            {"labels": ["b", "b"]},
            {"labels": ["", "b"]},
            {"labels": [], "sampling_params": _SHORT},
            {"labels": [], "sampling_params": {"top_p": 2}},
        ),
    ),
    Method(
        f"{_OIP}/ModelInfer",
        oip.ModelInferRequest,
        oip.ModelInferResponse,
        {**_GOOD_INFER, "parameters": {"max_tokens": {"int64_param": 2}}},
        (
            {"model_name": ""},
            {"model_name": "no-such-model"},
            {"inputs": []},
            {"inputs": [{**_TENSOR, **_DATA, "name": "other"}]},
            {"inputs": [{**_TENSOR, **_DATA, "datatype": "FP32"}]},
            {"inputs": [{**_TENSOR, **_DATA, "shape": [2]}]},
            {"inputs": [_TENSOR]},
            {"parameters": {"top_p": {"double_param": 2}}},
            {"parameters": {"unknown": {"int64_param": 2}}},
            {"parameters": {"max_tokens": {"string_param": "x"}}},
            {"parameters": {"max_tokens": {"string_param": "2"}}},
            {"outputs": [{"name": "other"}]},
        ),
    ),
)


def requests() -> list[GrpcRequest]:
    return [request for method in METHODS for request in _of_method(method)]


def _of_method(method: Method) -> Iterable[GrpcRequest]:
    for variant in ({}, *method.variants):
        fields = {k: v for k, v in {**method.good, **variant}.items() if v is not None}
        shown = json.dumps(variant) if variant else "good"
        name = f"{method.path} {shown if len(shown) < 120 else f'{shown[:60]}…'}"
        message = ParseDict(fields, method.request())
        yield GrpcRequest(name, method.path, message, method.response, method.streams)


def grpc_outcome(channel: grpc.Channel, request: GrpcRequest) -> str:
    """The status, and the reason in its details where it is not OK."""
    codecs = (type(request.message).SerializeToString, request.response.FromString)
    try:
        if request.streams:
            list(channel.unary_stream(request.method, *codecs)(request.message, timeout=SECONDS))
        else:
            channel.unary_unary(request.method, *codecs)(request.message, timeout=SECONDS)
    except grpc.RpcError as error:
        return f"{error.code().name} {status.from_grpc(error).reason}"
    return "OK"
