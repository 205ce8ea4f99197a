"""Request bodies of every inference API over HTTP, good and wrong, for one served model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.support import parity_engine
from tests.support.parity_body import ABSENT, JSON, Body, Values
from tests.support.parity_forms import form_bodies

LONG = 10**6
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
UNICODE = "Ünïcödé \U0001f600 \u202e \x00 \ufeff"
LONG_STOP = "a" * 5000

SAMPLED: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "temperature": [0, 2, 2.5, -0.1, "0.5", "x", None, [], True],
    "top_p": [1, 0.5, 0, 1.5, "x"],
    "top_k": [-1, 0, 5, -2, 1.5, 2**40],
    "min_p": [0.5, 1.5, -0.5],
    "presence_penalty": [2, -2, 3, "x"],
    "frequency_penalty": [2, -3],
    "repetition_penalty": [1.5, 0, -1],
    "seed": [7, -7, 2**63 - 1, 2**63, 1.5, "x"],
    "n": [2, 0, -1, 129, "x", 1.5],
    "min_tokens": [2, -1, 9, "x"],
    "stop": ["a", ["a", "b"], [], "", [""], 5, [5], ["a"] * 65, LONG_STOP],
    "stop_token_ids": [[5], [], ["x"], [-1], [10**9], 5],
    "logit_bias": [{"5": 1}, {"x": 1}, {"5": 101}, {"5": -101}, {"999999": 1}, [], {"5": "x"}],
    "prompt_logprobs": [0, 1, -1, -2, 21, "x"],
    "truncate_prompt_tokens": [1, -1, -2, 4096, "x"],
    "ignore_eos": [True, "x"],
    "skip_special_tokens": [False, "x"],
    "include_stop_str_in_output": [True, "x"],
    "allowed_token_ids": [[5], [], [10**7], ["x"]],
    "bad_words": [["x"], [""], "x"],
    "stream": [True, "x", None],
    "stream_options": [{"include_usage": True}, {"unknown": 1}, "x"],
    "response_format": [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "nonsense"}}},
        {"type": "other"},
        "json_object",
    ],
    "structured_outputs": [
        {"regex": "a+"},
        {"regex": "("},
        {"choice": ["a", "b"]},
        {"choice": []},
        {"json": SCHEMA},
        {"json": "{"},
        {"grammar": 'root ::= "a"'},
        {"grammar": "("},
        {"regex": "a", "choice": ["b"]},
        {},
    ],
    "priority": [0, 1, "x", 2**70],
    "use_beam_search": [True],
    "cache_salt": ["salt", "", 5],
    "vllm_xargs": [{"a": 1}, {"a": {}}],
    "unknown_field": [1],
    "user": ["someone", 5],
    "best_of": [2],
    "return_token_ids": [True, "x"],
    "add_special_tokens": [False],
}
CHAT: Values = {
    **SAMPLED,
    "max_tokens": [1, 0, -1, LONG, "3", 1.5],
    "max_completion_tokens": [2, 0, -1, LONG, "x"],
    "logprobs": [False, "x"],
    "top_logprobs": [2, -1],
    "messages": [
        ABSENT,
        None,
        [],
        "x",
        [5],
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": UNICODE}],
        [{"role": "user", "content": "x" * LONG}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "text"}]}],
        [{"role": "user", "content": [{"type": "other", "text": "x"}]}],
        [{"role": "user", "content": ["plain"]}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
        [{"content": "x"}],
        [{"role": None, "content": "x"}],
        [{"role": "", "content": "x"}],
        [{"role": "pirate", "content": "x"}],
        [{"role": "tool", "content": "x", "tool_call_id": "1"}],
        [{"role": "assistant", "content": "x"}],
        [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function"}]}],
        [{"role": "assistant", "tool_calls": [5]}],
        *([{"role": role, "content": "x"}] for role in ("system", "developer", "control")),
        *([{"role": role, "content": "x"}] for role in ("document", "ipython", "function")),
    ],
    "tools": [[TOOL], [], None, [{}], [{"type": "function"}], "x", [{"type": "other"}]],
    "tool_choice": ["none", "auto", "often", {"function": {"name": "f"}}, 5],
    "parallel_tool_calls": [True, "x"],
    "add_generation_prompt": [False, "x"],
    "continue_final_message": [True],
    "echo": [True],
    "chat_template": ["{{ messages }}"],
    "chat_template_kwargs": [{"a": 1}, "x"],
    "documents": [[{"title": "t", "text": "x"}], "x"],
    "reasoning_effort": ["low", "x"],
}
COMPLETION: Values = {
    **SAMPLED,
    "max_tokens": [1, 0, -1, LONG, "3", 1.5, None],
    "logprobs": [0, 2, -1, -2, 21, True, "x"],
    "echo": [True, "x"],
    "suffix": ["", "end"],
    "prompt": [
        ABSENT,
        None,
        "",
        UNICODE,
        "x" * LONG,
        ["a", "b"],
        [],
        [1, 2],
        [[1], [2, 3]],
        [-1],
        [10**9],
        ["a", 1],
        [[1], "a"],
        5,
        {},
    ],
    "prompt_embeds": ["AAAA"],
}
RESPONSES: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "input": [
        ABSENT,
        None,
        "",
        UNICODE,
        [],
        [{"role": "user", "content": "x"}],
        [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        [{"role": "pirate", "content": "x"}],
        [5],
        5,
    ],
    "instructions": ["be kind", 5],
    "max_output_tokens": [1, 0, -1, LONG, "x"],
    "temperature": [0, 2.5, "x"],
    "top_p": [0.5, 0, "x"],
    "top_logprobs": [0, -1, 21, "x"],
    "stream": [True, "x"],
    "store": [False, "x"],
    "background": [True],
    "previous_response_id": ["resp_none", 5],
    "tool_choice": ["auto", "often"],
    "tools": [[{"type": "function", "name": "f", "parameters": SCHEMA}], [{}], "x"],
    "text": [{"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}, {"format": 5}],
    "truncation": ["auto", "x"],
    "unknown_field": [1],
}
MESSAGES: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "max_tokens": [ABSENT, 1, 0, -1, LONG, "x"],
    "messages": [
        ABSENT,
        [],
        [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "other"}]}],
        [{"role": "pirate", "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": UNICODE}],
        "x",
        [5],
    ],
    "system": ["be kind", [{"type": "text", "text": "x"}], 5],
    "temperature": [0, 2.5, "x"],
    "top_p": [0.5, 0, 2],
    "top_k": [5, -2, "x"],
    "stop_sequences": [["a"], [], "x"],
    "stream": [True, "x"],
    "tools": [[{"name": "f", "input_schema": SCHEMA}], [{}], "x"],
    "tool_choice": [{"type": "auto"}, {"type": "tool"}, {"type": "often"}],
    "thinking": [{"type": "enabled", "budget_tokens": 1}, {"type": "other"}],
    "unknown_field": [1],
}
COUNTED: Values = {name: MESSAGES[name] for name in ("model", "messages", "system", "tools")}
TOKENIZE: Values = {
    "model": [ABSENT, None, "no-such-model", 5],
    "prompt": [ABSENT, "", UNICODE, 5, None, ["x"]],
    "messages": [[{"role": "user", "content": "x"}], [], "x"],
    "add_special_tokens": [False, "x"],
    "return_token_strs": [True],
    "unknown_field": [1],
}
DETOKENIZE: Values = {
    "model": [ABSENT, "no-such-model"],
    "tokens": [ABSENT, [], [-1], [10**9], ["x"], "x", [1.5], None],
}
BATCH: Values = {
    "model": [ABSENT, None, "no-such-model"],
    "messages": [
        ABSENT,
        [],
        [[]],
        "x",
        [{"role": "user", "content": "x"}],
        [[{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]],
    ],
    "max_tokens": [0, LONG],
    "temperature": [0, 9],
    "stream": [True],
    "n": [2],
}
PREDICT: Values = {
    "model_name": [ABSENT, "no-such-model", 5],
    "input_data": [ABSENT, "", UNICODE, 5],
    "labels": [ABSENT, [], ["a"], ["", "b"], "x", ["a", "a"]],
    "unknown_field": [1],
}
_TENSOR = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["hi"]}
INFER: Values = {
    "inputs": [
        ABSENT,
        [],
        [_TENSOR | {"name": "other"}],
        [_TENSOR | {"datatype": "FP32"}],
        [_TENSOR | {"shape": [2]}],
        [_TENSOR | {"data": []}],
        [_TENSOR | {"data": [5]}],
        [_TENSOR, _TENSOR],
        "x",
    ],
    "outputs": [[{"name": "text_output"}], [{"name": "other"}]],
    "parameters": [
        {"max_tokens": 2, "temperature": 0},
        {"max_tokens": -1},
        {"max_tokens": "x"},
        {"top_p": 2},
        {"unknown": 1},
        {"chat": False, "max_tokens": 2},
    ],
    "id": ["one", 5],
}
GENERATE: Values = {
    "text_input": [ABSENT, "", UNICODE, 5],
    "parameters": [{"max_tokens": 2}, {"top_p": 2}, {"unknown": 1}, "x"],
}
RENDERED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
_USER = [{"role": "user", "content": "hi"}]
_TINY = {"model": "tiny-glm"}
_SHORT = {**_TINY, "max_tokens": 3}
# One row of each API: a body that is good, and values to put in place of its fields.
APIS: Mapping[str, tuple[Mapping[str, Any], Values]] = {
    "/v1/chat/completions": ({**_SHORT, "messages": _USER}, CHAT),
    "/v1/completions": ({**_SHORT, "prompt": "hi"}, COMPLETION),
    "/v1/responses": ({**_TINY, "input": "hi", "max_output_tokens": 3}, RESPONSES),
    "/v1/messages": ({**_SHORT, "messages": _USER}, MESSAGES),
    "/v1/messages/count_tokens": ({**_TINY, "messages": _USER}, COUNTED),
    "/tokenize": ({**_TINY, "prompt": "hi"}, TOKENIZE),
    "/detokenize": ({**_TINY, "tokens": [5]}, DETOKENIZE),
    "/v1/embeddings": ({**_TINY, "input": "hi"}, parity_engine.EMBEDDINGS),
    "/v1/score": ({**_TINY, "text_1": "a", "text_2": "b"}, parity_engine.SCORE),
    "/v1/rerank": ({**_TINY, "query": "a", "documents": ["b"]}, parity_engine.RERANK),
    "/v1/chat/completions/batch": ({**_SHORT, "messages": [_USER]}, BATCH),
    "/score": ({**_TINY, "text_1": "a", "text_2": "b"}, parity_engine.SCORE),
    "/rerank": ({**_TINY, "query": "a", "documents": ["b"]}, parity_engine.RERANK),
    "/v2/rerank": ({**_TINY, "query": "a", "documents": ["b"]}, parity_engine.RERANK),
    "/v2/embed": ({**_TINY, "texts": ["hi"], "input_type": "query"}, parity_engine.EMBED),
    "/classify": ({**_TINY, "input": "a"}, parity_engine.POOLED),
    "/pooling": ({**_TINY, "input": "a"}, parity_engine.POOLED),
    "/v2/inference": ({"model_name": "tiny-glm", "input_data": "a", "labels": ["b", "c"]}, PREDICT),
    "/v2/models/tiny-glm/infer": ({"inputs": [_TENSOR], "parameters": {"max_tokens": 2}}, INFER),
    "/v2/models/tiny-glm/generate": (
        {"text_input": "hi", "parameters": {"max_tokens": 2}},
        GENERATE,
    ),
    "/v2/models/tiny-glm/generate_stream": (
        {"text_input": "hi", "parameters": {"max_tokens": 2}},
        GENERATE,
    ),
    "/generative_scoring": ({**_TINY, **parity_engine.GOOD_SCORING}, parity_engine.SCORING),
    "/v1/systemone": ({**_TINY, **parity_engine.GOOD_LABELS}, parity_engine.LABELS),
}
# How prompts and tokens are rendered, by a pod with `--enable-scale-out`.
SCALE_OUT: Mapping[str, tuple[Mapping[str, Any], Values]] = {
    **{f"{path}/render": parity_engine.rendered(*APIS[path]) for path in RENDERED},
    "/v1/chat/completions/derender": (
        {**_TINY, **parity_engine.GOOD_DERENDER_CHAT},
        parity_engine.DERENDER_CHAT,
    ),
    "/v1/completions/derender": (
        {**_TINY, **parity_engine.GOOD_DERENDER_COMPLETION},
        parity_engine.DERENDER_COMPLETION,
    ),
}
# Fields that are wrong, or right, only together.
COMBINED: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "/v1/chat/completions": (
        {"logprobs": True, "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 20},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": True, "top_logprobs": -1},
        {"logprobs": True, "top_logprobs": "x"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "n": 2},
        {"stream": True, "prompt_logprobs": 1},
        {"stream": True, "temperature": 9},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        {"tool_choice": "required"},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"min_tokens": 2, "max_tokens": 1},
        {"n": 2, "temperature": 0},
        {"max_tokens": 2, "max_completion_tokens": 3},
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
    ),
    "/v1/completions": (
        {"echo": True, "max_tokens": 0},
        {"echo": True, "logprobs": 1},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "echo": True},
        {"stream": True, "prompt": ["a", "b"]},
        {"stream": True, "prompt_logprobs": 1},
        {"use_beam_search": True, "n": 2},
        {"logprobs": 2, "n": 2, "stream": True},
    ),
    "/v1/responses": ({"stream": True, "background": True}, {"background": True, "store": False}),
    "/v1/messages": ({"stream": True, "system": "x"}, {"stream": True, "max_tokens": 0}),
    "/v1/chat/completions/derender": parity_engine.STREAMED_DERENDER,
    "/v1/completions/derender": parity_engine.STREAMED_DERENDER,
}
# Not an API body at all.
RAW: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", JSON),
    "not JSON": (b"{", JSON),
    "null": (b"null", JSON),
    "a list": (b"[]", JSON),
    "a number": (b"5", JSON),
    "no fields": (b"{}", JSON),
    "not UTF-8": (b'{"model": "\xff"}', JSON),
    "a lone surrogate": (b'{"model": "\\ud800"}', JSON),
    "nested deep": (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON),
}
CONTENT_TYPES = ("", "text/plain", "application/x-www-form-urlencoded", "application/xml")


def bodies() -> list[Body]:
    rows = {**APIS, **SCALE_OUT}.items()
    of_json = [body for path, (good, values) in rows for body in _of_api(path, good, values)]
    return of_json + form_bodies()


def _of_api(path: str, good: Mapping[str, Any], values: Values) -> Iterable[Body]:
    yield _body(path, "good", good)
    for name, given in values.items():
        for value in given:
            rest = {k: v for k, v in good.items() if k != name}
            shown = "absent" if value is ABSENT else json.dumps(value, ensure_ascii=True)
            whole = rest if value is ABSENT else {**good, name: value}
            yield _body(path, f"{name}: {shown}", whole)
    for fields in COMBINED.get(path, ()):
        yield _body(path, json.dumps(fields), {**good, **fields})
    for name, (content, content_type) in RAW.items():
        yield Body(f"{path} {name}", path, content, content_type)
    for content_type in CONTENT_TYPES:
        name = f"{path} content-type {content_type or 'absent'}"
        yield Body(name, path, json.dumps(good).encode(), content_type)


def _body(path: str, name: str, fields: Mapping[str, Any]) -> Body:
    return Body(body_name(path, name), path, json.dumps(fields).encode())


def body_name(path: str, name: str) -> str:
    shown = name if len(name) <= 80 else f"{name[:60]}…{name[-30:]}"
    return f"{path} {shown}"
