"""Every API that uses tokens is estimated by its prompt and its longest output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.validation import Billing, Operation, of_openai
from autoglm.validation.http_apis import INFERENCE_POSTS, MODEL, Body
from autoglm.validation.request_info import utf8_size

WORDS = "word " * 400  # 500 tokens by four bytes each
USER = {"role": "user", "content": WORDS}
BLOCKS = {"role": "user", "content": [{"type": "text", "text": WORDS}]}
SCHEMA = {"type": "object", "properties": {"x": {"description": WORDS}}}


def info_of(path: str, **fields: Any) -> Any:
    return of_openai(path, msgspec.json.encode({"model": "m", **fields}))


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 50, "n": 2}, 600),
        (
            "/v1/chat/completions",
            {"messages": [USER], "tools": [{"function": {"name": "f", "parameters": SCHEMA}}]},
            1000,
        ),
        ("/v1/messages", {"messages": [USER], "max_tokens": 70}, 570),
        (
            "/v1/messages",
            {
                "system": [{"type": "text", "text": WORDS}],
                "messages": [BLOCKS, USER],
                "tools": [{"name": "f", "input_schema": SCHEMA}],
                "max_tokens": 70,
            },
            2070,
        ),
        ("/v1/responses", {"input": WORDS, "max_output_tokens": 30}, 530),
        ("/v1/responses", {"input": [USER, BLOCKS], "max_output_tokens": 30}, 1030),
        (
            "/v1/responses",
            {"input": "x", "instructions": WORDS, "tools": [{"parameters": SCHEMA}]},
            1000,
        ),
        ("/v1/embeddings", {"input": [[1, 2, 3], [4]]}, 4),
        ("/v1/embeddings", {"messages": [USER]}, 500),
        ("/v1/rerank", {"query": WORDS, "documents": [WORDS, WORDS]}, 2000),
        ("/v1/score", {"text_1": WORDS, "text_2": WORDS}, 1000),
        ("/v1/score", {"text_1": WORDS, "text_2": [WORDS] * 3}, 3000),
        ("/v1/score", {"text_1": [WORDS] * 2, "text_2": [WORDS] * 2}, 2000),
        ("/v1/score", {"queries": WORDS, "documents": [WORDS]}, 1000),
        ("/classify", {"input": [WORDS]}, 500),
        ("/classify", {"messages": [USER]}, 500),
        ("/pooling", {"input": [1] * 7}, 7),
        ("/v2/models/a/b/generate", {"text_input": WORDS, "parameters": {"max_tokens": 5}}, 505),
        ("/v2/inference", {"model_name": "m", "input_data": WORDS, "max_tokens": 5}, 505),
    ],
)
def test_estimate_is_the_prompt_and_the_longest_output(
    path: str, fields: dict[str, Any], tokens: int
) -> None:
    assert tokens <= info_of(path, **fields).estimated_tokens <= tokens * 1.05 + 10


@pytest.mark.parametrize(
    "api",
    # What forms cost is tested with them.
    [api for api in INFERENCE_POSTS if api.body is not Body.FORM],
    ids=lambda api: api.path,
)
def test_no_api_is_estimated_at_nothing_unless_it_is_free(api: Any) -> None:
    path = api.path.replace(MODEL, "m")
    fields: dict[str, Any] = {"data": "what the table does not know " * 9}
    found = of_openai(path, msgspec.json.encode({"model": "m", **fields, "messages": []}))
    assert (found.estimated_tokens > 60) == (api.billing is Billing.TOKENS)
    assert (found.operation, found.billing) == (api.operation, api.billing)


def test_an_api_that_is_in_no_table_costs_its_body() -> None:
    body = msgspec.json.encode({"model": "m", "anything": "x" * 4000})
    found = of_openai("/v9/new", body)
    assert (found.model, found.billing) == ("m", Billing.BODY)
    assert found.estimated_tokens == -(-len(body) // 4)


def test_media_count_nothing_beside_text() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "A" * 10**6}}
    message = {"role": "user", "content": [image, {"type": "text", "text": WORDS}]}
    assert info_of("/v1/messages", messages=[message], max_tokens=1).estimated_tokens < 520


def test_chats_of_all_dialects_name_their_prefix_alike() -> None:
    system, tool = "You are terse. " * 40, {"name": "f"}
    turns = [{"role": "user", "content": WORDS}, {"role": "assistant", "content": "ok"}]
    messages = info_of("/v1/messages", system=system, messages=turns, max_tokens=1).prefix
    assert (
        messages
        == info_of(
            "/v1/chat/completions", messages=[{"role": "system", "content": system}, *turns]
        ).prefix
    )
    assert messages == info_of("/v1/responses", instructions=system, input=turns).prefix
    assert messages.is_continued
    with_tool = info_of("/v1/messages", system=system, messages=turns, tools=[tool]).prefix
    assert with_tool.opening != messages.opening


def test_operation_of_messages_and_responses_is_chat() -> None:
    assert info_of("/v1/messages", messages=[USER]).operation is Operation.CHAT
    assert info_of("/v1/responses", input="x").operation is Operation.CHAT


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/v1/chat/completions", lambda data: {"type": "image_url", "image_url": {"url": data}}),
        ("/v1/messages", lambda data: {"type": "image", "source": {"type": "url", "url": data}}),
    ],
)
def test_an_image_without_text_is_not_estimated_by_its_encoding(
    path: str, part: Callable[[str], dict[str, Any]]
) -> None:
    small, large = (
        info_of(path, messages=[{"role": "user", "content": [part("data:," + "A" * size)]}])
        for size in (10, 100_000)
    )
    assert 0 < small.prompt_tokens == large.prompt_tokens < 2_000


@given(st.text())
def test_the_size_of_a_text_is_that_of_its_utf_8(text: str) -> None:
    assert utf8_size(text) == len(text.encode())
