import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import v1
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import of_chat, of_generate, of_oip, of_openai, prefix_hash
from autoglm.validation.prefix_hash import BLOCK_BYTES, BLOCK_TOKENS, MOST_BLOCKS, Prefix

SYSTEM = "You are a careful assistant. " * 40
LONG = "word " * 400


def shared(one: Prefix, two: Prefix) -> int:
    pairs = zip(one.blocks, two.blocks, strict=False)
    return next(
        (n for n, (a, b) in enumerate(pairs) if a != b), min(map(len, (one.blocks, two.blocks)))
    )


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.binary(max_size=2000))
def test_texts_share_exactly_the_blocks_of_their_common_beginning(
    common: bytes, one: bytes, two: bytes
) -> None:
    first, second = common + one, common + two
    same = next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    assert shared(prefix_hash.of_text(first), prefix_hash.of_text(second)) == same // BLOCK_BYTES


def test_a_block_is_named_by_all_in_front_of_it() -> None:
    one, two = prefix_hash.of_text("a" * 1024), prefix_hash.of_text("b" + "a" * 1023)
    assert len(set(one.blocks) | set(two.blocks)) == 8


def test_names_are_the_same_in_every_process() -> None:
    assert prefix_hash.of_text("a" * BLOCK_BYTES).blocks == (16833520765656318756,)


def test_tokens_are_counted_by_id() -> None:
    ids = list(range(1000))
    assert len(prefix_hash.of_token_ids(ids).blocks) == 1000 // BLOCK_TOKENS
    assert shared(prefix_hash.of_token_ids(ids), prefix_hash.of_token_ids([*ids[:130], 7])) == 2


def test_names_are_bounded() -> None:
    text = prefix_hash.of_text("x" * (BLOCK_BYTES * MOST_BLOCKS + 5000))
    token_ids = prefix_hash.of_token_ids([1] * (BLOCK_TOKENS * MOST_BLOCKS * 2))
    assert len(text.blocks) == len(token_ids.blocks) == MOST_BLOCKS


def test_no_prompt_has_no_names() -> None:
    assert prefix_hash.of_text("") == prefix_hash.of_chat([]) == Prefix()
    assert prefix_hash.of_token_ids([]) == Prefix()


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def chat(*contents: Any, **fields: Any) -> Prefix:
    roles = ["system", "user", "assistant", "user"]
    messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return of_openai("/v1/chat/completions", body(messages=messages, **fields)).prefix


def test_turns_of_a_conversation_share_history_and_opening() -> None:
    one, two = chat(SYSTEM, LONG), chat(SYSTEM, LONG, "answer", LONG)
    assert shared(one, two) == len(one.blocks) and one.opening == two.opening
    assert chat(SYSTEM, "another question").opening != one.opening


def test_tools_stand_in_front() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": LONG, "parameters": {}}}
    assert shared(chat(SYSTEM, LONG), chat(SYSTEM, LONG, tools=[tool])) == 0


def test_calls_of_tools_are_part_of_the_history() -> None:
    def said(arguments: str) -> Prefix:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]}]
        return of_openai("/v1/chat/completions", body(messages=messages)).prefix

    assert shared(said(LONG), said("other" + LONG)) == 0


def test_one_text_in_parts_is_the_same_text() -> None:
    assert chat(SYSTEM, [{"type": "text", "text": LONG}]) == chat(SYSTEM, LONG)


def test_grpc_and_rest_name_a_prompt_alike() -> None:
    messages = [
        v1.ChatMessage(role="system", content=SYSTEM),
        v1.ChatMessage(role="user", content=LONG),
    ]
    assert of_chat(v1.ChatRequest(messages=messages)).prefix == chat(SYSTEM, LONG)
    text = of_generate(v1.GenerateRequest(text=LONG)).prefix
    assert text == of_openai("/v1/completions", body(prompt=LONG)).prefix
    assert text == of_openai("/v1/completions", body(prompt=[LONG, "b"])).prefix
    assert text == of_openai("/v1/responses", body(input=LONG)).prefix
    assert text == of_openai("/v2/models/m/infer", body(text_input=LONG)).prefix
    tensor = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [LONG]}
    assert text == of_openai("/v2/models/m/infer", body(inputs=[tensor])).prefix
    raw = oip.ModelInferRequest(model_name="m")
    raw.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    raw.raw_input_contents.append(len(LONG).to_bytes(4, "little") + LONG.encode())
    assert text == of_oip(raw).prefix
    ids = list(range(500))
    tokens = of_generate(v1.GenerateRequest(token_ids=v1.TokenIds(ids=ids))).prefix
    assert tokens == of_openai("/v1/completions", body(prompt=ids)).prefix
    assert shared(tokens, prefix_hash.of_text(b"".join(i.to_bytes(4, "little") for i in ids))) == 0


@pytest.mark.parametrize(
    "items",
    [
        [{"type": "function_call_output", "output": "x"}],
        [{"role": "user", "content": "x" * 999}],
        [-1],
    ],
)
def test_responses_items_are_named_whatever_they_are(items: list[Any]) -> None:
    assert of_openai("/v1/responses", body(input=items)).prefix.opening
