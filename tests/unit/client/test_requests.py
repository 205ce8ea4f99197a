from typing import Any

import pytest

from autoglm import v1
from autoglm.client import requests
from autoglm.client.requests import Sampling
from autoglm.common.errors import InvalidRequest

USER = {"role": "user", "content": "Hi"}


def test_sampling_keywords_are_exactly_the_fields_of_the_api() -> None:
    assert set(Sampling.__annotations__) == set(v1.SamplingParams.DESCRIPTOR.fields_by_name)


def test_a_text_prompt_and_keywords_make_the_whole_request() -> None:
    request = requests.generate_request(
        "Hi", {"max_tokens": 5, "temperature": 0, "stop": "x", "priority": 2}, "m"
    )
    assert request == v1.GenerateRequest(
        model="m",
        text="Hi",
        priority=2,
        sampling_params=v1.SamplingParams(max_tokens=5, temperature=0, stop=["x"]),
    )


def test_token_ids_and_a_model_of_the_call_are_taken() -> None:
    request = requests.generate_request([1, 2], {"model": "other"}, "m")
    assert request == v1.GenerateRequest(model="other", token_ids=v1.TokenIds(ids=[1, 2]))


def test_nothing_given_leaves_sampling_to_the_server() -> None:
    request = requests.generate_request("Hi", {"temperature": None}, "m")
    assert not request.HasField("sampling_params")


def test_keywords_replace_fields_of_given_sampling_params() -> None:
    base = v1.SamplingParams(temperature=1, stop=["a"], seed=7)
    request = requests.generate_request("Hi", {"sampling_params": base, "stop": ["b"]}, "")
    assert request.sampling_params == v1.SamplingParams(temperature=1, stop=["b"], seed=7)
    assert base.stop == ["a"]


def test_an_unknown_keyword_is_a_type_error() -> None:
    options: Any = {"tempature": 1}
    with pytest.raises(TypeError, match="tempature"):
        requests.generate_request("Hi", options, "")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": -1}, "sampling_params"),
        ({"temperature": "hot"}, "sampling_params"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [{"title": "f"}]}, "tools[0].title"),
    ],
)
def test_a_wrong_value_names_its_field(options: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.chat_request([USER], options, "")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "contnt": "Hi"}, "messages[0].contnt"),
        ({"role": 5, "content": "Hi"}, "messages[0]"),
        ({"role": "user", "content": [{"type": "smell"}]}, "messages[0].content[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0]"),
    ],
)
def test_a_wrong_message_names_its_place(message: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.chat_request([message], {}, "")
    assert caught.value.field == field


def test_openai_shaped_messages_keep_all_they_say() -> None:
    messages: list[v1.ChatMessage | dict[str, Any]] = [
        v1.ChatMessage(role="system", content="Be brief."),
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "data:,"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    assert list(requests.chat_request(messages, {}, "m").messages) == [
        v1.ChatMessage(role="system", content="Be brief."),
        v1.ChatMessage(
            role="user",
            parts=[v1.ContentPart(text="What is it?"), v1.ContentPart(image_url="data:,")],
        ),
        v1.ChatMessage(
            role="assistant", tool_calls=[v1.ToolCall(id="1", name="f", arguments="{}")]
        ),
        v1.ChatMessage(role="tool", tool_call_id="1", content="42"),
    ]


def test_a_text_is_the_users_only_message() -> None:
    request = requests.chat_request("Hi", {}, "m")
    assert request == v1.ChatRequest(
        model="m", messages=[v1.ChatMessage(role="user", content="Hi")]
    )


def test_tools_and_choice_of_openai_are_taken() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    request = requests.chat_request(
        [USER],
        {
            "tools": [{"type": "function", "function": function}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "chat_template_kwargs": {"thinking": False},
            "add_generation_prompt": False,
        },
        "m",
    )
    assert list(request.tools) == [
        v1.Tool(name="f", description="d", parameters='{"type": "object"}')
    ]
    assert request.tool_choice == v1.ToolChoice(function="f")
    assert request.chat_template_kwargs == '{"thinking": false}'
    assert request.HasField("add_generation_prompt") and not request.add_generation_prompt


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, v1.ResponseFormat(json_object=True)),
        ({"regex": "a+"}, v1.ResponseFormat(regex="a+")),
        ({"grammar": "root ::= x"}, v1.ResponseFormat(grammar="root ::= x")),
        (
            {"choice": ["a", "b"]},
            v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=["a", "b"])),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
            v1.ResponseFormat(json_schema=v1.ResponseFormat.JsonSchema(name="n", schema="{}")),
        ),
    ],
)
def test_response_formats(given: Any, expected: v1.ResponseFormat | None) -> None:
    request = requests.chat_request([USER], {"response_format": given}, "")
    actual = request.response_format if request.HasField("response_format") else None
    assert actual == expected


def test_predict_embed_and_tokenize_requests() -> None:
    predict = requests.predict_request("nice", {"labels": ["a", "b"], "task": "t"}, "m")
    assert predict == v1.PredictRequest(
        model_name="m", input_data="nice", labels=["a", "b"], task="t"
    )
    assert requests.embed_request("one", {}, "m").texts == ["one"]
    chat = requests.tokenize_request([USER], {"return_tokens": True}, "m")
    assert chat.chat.messages[0].content == "Hi" and chat.return_tokens
