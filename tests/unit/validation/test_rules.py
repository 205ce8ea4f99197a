"""The rules of validation, as tables of requests and the field that their errors name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from autoglm import v1, validation
from autoglm.common.errors import InvalidRequest, ModelNotFound
from autoglm.validation import RequestInfo, of_chat, of_embed, of_generate, of_openai

MODEL = v1.Model(name="m", max_model_len=100, max_token_bytes=8)
KNOWN = ["m", "n"]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def judge(info: RequestInfo) -> None:
    validation.validate(info, MODEL, KNOWN)


def chat(**fields: Any) -> RequestInfo:
    return of_openai(CHAT, json.dumps({"model": "m", "messages": HELLO} | fields).encode())


def completion(**fields: Any) -> RequestInfo:
    return of_openai(COMPLETIONS, json.dumps({"model": "m", "prompt": "Hello"} | fields).encode())


def generate(**sampling: Any) -> RequestInfo:
    return of_generate(v1.GenerateRequest(model="m", text="Hi", sampling_params=sampling or None))


def chat_grpc(*messages: v1.ChatMessage, **fields: Any) -> RequestInfo:
    turns = messages or (v1.ChatMessage(role="user", content="Hello"),)
    return of_chat(v1.ChatRequest(model="m", messages=turns, **fields))


def refused(info: RequestInfo) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        judge(info)
    return caught.value


OUT_OF_RANGE = [
    ("n", 0),
    ("n", 16385),
    ("temperature", -0.5),
    ("temperature", 2.5),
    ("top_p", 0.0),
    ("top_p", 1.5),
    ("top_k", -2),
    ("min_p", -0.5),
    ("min_p", 1.5),
    ("presence_penalty", -2.5),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("frequency_penalty", 2.5),
    ("repetition_penalty", 0.0),
    ("max_tokens", 0),
    ("max_tokens", 101),
    ("min_tokens", 17),
    ("truncate_prompt_tokens", 101),
]
IN_RANGE = [
    ("n", 16384),
    ("temperature", 0.0),
    ("temperature", 2.0),
    ("top_p", 1.0),
    ("top_k", -1),
    ("top_k", 0),
    ("min_p", 0.0),
    ("min_p", 1.0),
    ("presence_penalty", -2.0),
    ("frequency_penalty", 2.0),
    ("repetition_penalty", 0.1),
    ("max_tokens", 1),
    ("max_tokens", 100),
    ("min_tokens", 16),
    ("logprobs", 50),
    ("prompt_logprobs", 50),
    ("seed", -1),
    ("seed", 2**63 - 1),
    ("stop", ["a", "b"]),
    ("truncate_prompt_tokens", 100),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_parameter_out_of_range_is_named_in_the_words_of_each_api(name: str, value: Any) -> None:
    assert refused(completion(**{name: value})).field == name
    if isinstance(value, float) or value >= 0 or name == "top_k":
        assert refused(generate(**{name: value})).field == f"sampling_params.{name}"


@pytest.mark.parametrize(("name", "value"), IN_RANGE)
def test_a_parameter_in_range_passes_in_each_api(name: str, value: Any) -> None:
    judge(completion(**{name: value}))
    judge(generate(**{name: value}))


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_must_be_finite(name: str, value: float) -> None:
    assert refused(generate(**{name: value})).field == f"sampling_params.{name}"


def test_an_error_names_the_field_the_value_and_the_way_out() -> None:
    error = refused(generate(top_p=1.5))
    assert error.message == "sampling_params.top_p is 1.5; it must be above 0 and at most 1"


REST_CHAT_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "", "content": "x"}]}, "messages[0].role"),
    ({"max_completion_tokens": 101}, "max_completion_tokens"),
    ({"max_completion_tokens": 5, "min_tokens": 6}, "min_tokens"),
    ({"top_logprobs": -2, "logprobs": True}, "top_logprobs"),
    ({"seed": 2**63}, "seed"),
    ({"n": 10**400}, "n"),
    ({"min_tokens": 10**400}, "min_tokens"),
    ({"stop": ["x"] * 65}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": "x" * 4097}, "stop"),
    ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"five": 1}}, "logit_bias"),
    ({"logit_bias": {"4294967296": 1}}, "logit_bias"),
    ({"priority": 2**31}, "priority"),
    ({"n": 2, "temperature": 0}, "n"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs"),
    ({"tools": []}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": "often"}, "tool_choice"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}},
        "response_format.json_schema.schema",
    ),
    ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ({"structured_outputs": {"regex": ""}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a" * 300_000}}, "structured_outputs.regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.regex"),
    ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}],
                }
            ]
        },
        "messages[0].content[0].image_url.url",
    ),
    ({"messages": [{"role": "user", "content": "x" * 801}]}, "messages"),
]


@pytest.mark.parametrize(("fields", "field"), REST_CHAT_ERRORS)
def test_rest_chat_names_the_json_path(fields: dict[str, Any], field: str) -> None:
    assert refused(chat(**fields)).field == field


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "g"}}
TOOL_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": NAMED}, "tool_choice.function.name"),
    (
        {"tool_choice": "required", "response_format": {"type": "json_object"}},
        "response_format.type",
    ),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
]


@pytest.mark.parametrize(("fields", "field"), TOOL_ERRORS)
def test_tools_are_checked(fields: dict[str, Any], field: str) -> None:
    assert refused(chat(**{"tools": [TOOL]} | fields)).field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto", "response_format": {"type": "json_object"}},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tool_choice": "none"},
        {"response_format": {"type": "text"}},
        {"temperature": "0.5", "n": 1.0},
        {"max_completion_tokens": 5, "max_tokens": 500},
        {"use_beam_search": True, "n": 2, "temperature": 0},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "user", "content": ["plain", {"type": "text", "text": "x"}]}]},
        {"a field nobody knows": [1, 2]},
        {"structured_outputs": {"json": {"type": "object"}}},
        {"structured_outputs": {"json": '{"type": "object"}'}},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_what_the_engine_would_serve_passes(fields: dict[str, Any]) -> None:
    judge(chat(**fields))


COMPLETION_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt[1]"),
    ({"prompt": [1] * 100}, "prompt"),
    ({"prompt": [1, -1]}, "prompt"),
    ({"prompt": [[2**31]]}, "prompt[0]"),
    ({"prompt": [1] * 90, "min_tokens": 11}, "prompt"),
    ({"prompt": [[1], [1] * 100]}, "prompt[1]"),
    ({"prompt": "x" * 801}, "prompt"),
    ({"logprobs": -2}, "logprobs"),
]


@pytest.mark.parametrize("role", ["control", "document", "ipython", "tool", "a-role-of-its-own"])
def test_roles_are_the_models_to_judge(role: str) -> None:
    judge(chat(messages=[{"role": role, "content": "x"}]))


@pytest.mark.parametrize("count", [-1, 0, 21, 5000])
def test_how_many_logprobs_there_may_be_is_the_pods_setting(count: int) -> None:
    judge(chat(logprobs=True, top_logprobs=count))
    judge(completion(prompt="x", logprobs=count))
    judge(completion(prompt="x", prompt_logprobs=count))


def test_logprobs_of_completions_may_be_true() -> None:
    info = completion(prompt="x", logprobs=True)
    judge(info)
    assert info.sampling.logprobs == 1


@pytest.mark.parametrize(("fields", "field"), COMPLETION_ERRORS)
def test_prompts_that_cannot_be_served_are_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        judge(completion(**fields))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1] * 99},
        {"prompt": [1] * 99, "max_tokens": 100},
        {"prompt": [1] * 200, "truncate_prompt_tokens": 50},
        {"prompt": "x" * 800},
        {"prompt": [1, 2], "echo": True, "max_tokens": 0},
        {"prompt_embeds": "AAAA", "prompt": None},
    ],
)
def test_prompts_that_fit_pass(fields: dict[str, Any]) -> None:
    judge(completion(**fields))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"{} x", b"[" * 9999])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/embeddings", "/tokenize", "/v1/other"])
def test_malformed_bodies_are_invalid(path: str, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        of_openai(path, body)


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ('{"temperature": "hot"}', "temperature", '"hot"'),
        ('{"messages": [{"role": 5}]}', "messages[0].role", "5"),
        ('{"messages": [{"content": "x"}]}', "messages[0].role", "missing"),
        ('{"logit_bias": []}', "logit_bias", "[]"),
        ('{"temperature": 1e999}', "temperature", ""),
    ],
)
def test_a_wrong_type_names_field_and_value(body: str, field: str, value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        of_openai(CHAT, body.encode())
    assert caught.value.field == field
    assert value in caught.value.message


def test_an_unknown_model_is_not_found_and_the_known_ones_are_listed() -> None:
    with pytest.raises(ModelNotFound, match=r"model 'x' is not served; set it to one of 'm', 'n'"):
        validation.validate(chat(model="x"), None, KNOWN)


def test_an_empty_model_is_named_even_when_one_is_served() -> None:
    with pytest.raises(InvalidRequest, match=r"model is empty; set it to 'm'$") as caught:
        validation.validate(chat(model=None), MODEL, ["m"])
    assert caught.value.field == "model"


def test_nothing_is_measured_against_an_unknown_context() -> None:
    validation.validate(completion(prompt="x" * 10_000, max_tokens=9999), v1.Model(name="m"), KNOWN)


GRPC_CHAT_ERRORS = [
    (chat_grpc(v1.ChatMessage(role="", content="x")), "messages[0].role"),
    (
        chat_grpc(v1.ChatMessage(role="user", content="x", parts=[v1.ContentPart(text="y")])),
        "messages[0].content",
    ),
    (chat_grpc(v1.ChatMessage(role="user", parts=[v1.ContentPart()])), "messages[0].parts[0]"),
    (
        chat_grpc(v1.ChatMessage(role="user", parts=[v1.ContentPart(image_url="x.png")])),
        "messages[0].parts[0].image_url",
    ),
    (chat_grpc(tools=[v1.Tool(name="f", parameters="{")]), "tools[0].parameters"),
    (chat_grpc(tools=[v1.Tool()]), "tools[0].name"),
    (chat_grpc(tool_choice=v1.ToolChoice(mode=v1.ToolChoice.MODE_REQUIRED)), "tool_choice"),
    (
        chat_grpc(tools=[v1.Tool(name="f")], tool_choice=v1.ToolChoice(function="g")),
        "tool_choice.function",
    ),
    (chat_grpc(chat_template_kwargs="[1]"), "chat_template_kwargs"),
    (chat_grpc(continue_final_message=True), "continue_final_message"),
    (
        chat_grpc(response_format=v1.ResponseFormat(json_schema={"schema": "no"})),
        "response_format.json_schema.schema",
    ),
    (chat_grpc(response_format=v1.ResponseFormat(regex="")), "response_format.regex"),
    (chat_grpc(response_format=v1.ResponseFormat(choice={})), "response_format.choice.values"),
    (of_chat(v1.ChatRequest(model="m")), "messages"),
    (of_generate(v1.GenerateRequest(model="m")), "text"),
    (of_generate(v1.GenerateRequest(model="m", token_ids={})), "token_ids.ids"),
    (
        structs.replace(generate(prompt_logprobs=1), streaming=True),
        "sampling_params.prompt_logprobs",
    ),
    (of_embed(v1.EmbedRequest(model="m")), "texts"),
    (of_embed(v1.EmbedRequest(model="m", texts=["a", ""])), "texts[1]"),
]


@pytest.mark.parametrize(("info", "field"), GRPC_CHAT_ERRORS)
def test_grpc_names_the_proto_path(info: RequestInfo, field: str) -> None:
    assert refused(info).field == field


def test_grpc_chat_passes() -> None:
    judge(
        chat_grpc(response_format=v1.ResponseFormat(json_schema={"schema": '{"type": "object"}'}))
    )
    judge(chat_grpc(continue_final_message=True, add_generation_prompt=False))


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        (["a", ""], "labels[1]"),
        (["a", " "], "labels[1]"),
        (["a", "b", "a"], "labels[2]"),
        (["x" * 1001], "labels[0]"),
        ([str(i) for i in range(1001)], "labels"),
    ],
)
def test_labels_are_few_short_and_different(labels: list[str], field: str) -> None:
    grpc_request = v1.PredictRequest(model_name="m", input_data="x", labels=labels)
    assert refused(validation.of_predict(grpc_request)).field == field
    body = json.dumps({"model_name": "m", "input_data": "x", "labels": labels})
    assert refused(of_openai("/v2/inference", body.encode())).field == field


def test_predict_has_its_own_names() -> None:
    empty = validation.of_predict(v1.PredictRequest(model_name="m"))
    assert refused(empty).field == "input_data"
    with pytest.raises(ModelNotFound) as caught:
        validation.validate(
            validation.of_predict(v1.PredictRequest(model_name="x", input_data="y")), None, KNOWN
        )
    assert caught.value.field == "model_name"


def test_tokenize_takes_any_text_but_a_sane_conversation() -> None:
    judge(validation.of_tokenize(v1.TokenizeRequest(model="m", text="x" * 10_000)))
    judge(of_openai("/tokenize", b'{"model": "m", "prompt": ""}'))
    bad = validation.of_tokenize(v1.TokenizeRequest(model="m", chat={"messages": [{"role": ""}]}))
    assert refused(bad).field == "chat.messages[0].role"


def test_the_estimate_counts_tokens_where_known_and_guesses_from_bytes() -> None:
    assert completion(prompt=[1, 2, 3], max_tokens=5, n=2).estimated_tokens == 13
    assert completion(prompt="x" * 10, max_tokens=5).estimated_tokens == 8
