import json
from typing import Any

import pytest

from autoglm.common import errors
from autoglm.simulator import openai_json

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "echo", "prompt": "hi"}
EFFECTS: dict[str, Any] = {
    "allowed_token_ids": [1],
    "bad_words": ["hi"],
    "best_of": 2,
    "chat_template": "{{ messages }}",
    "logprob_token_ids": [1],
    "prompt_embeds": "AAAA",
    "prompt_logprobs": 0,
    "repetition_detection": {"max_pattern_size": 4},
    "return_prompt_text": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "suffix": "end",
    "truncation_side": "right",
    "use_beam_search": True,
}


def completion(**fields: Any) -> Any:
    return openai_json.generate_request(json.dumps(COMPLETION | fields).encode())[0]


def chat(**fields: Any) -> Any:
    return openai_json.chat_request(json.dumps(CHAT | fields).encode())[0]


@pytest.mark.parametrize("read", [completion, chat])
@pytest.mark.parametrize(("name", "value"), EFFECTS.items(), ids=EFFECTS)
def test_a_field_that_would_change_the_response_is_rejected_by_name(
    read: Any, name: str, value: Any
) -> None:
    with pytest.raises(errors.Unimplemented, match=name) as caught:
        read(**{name: value})
    assert caught.value.field == name


@pytest.mark.parametrize(
    "fields",
    [
        dict.fromkeys(EFFECTS),
        {"best_of": 1, "n": 1},
        {"suffix": "", "bad_words": [], "use_beam_search": False, "return_token_ids": False},
        {"truncation_side": "left", "truncate_prompt_tokens": 2},
        {"unknown_to_vllm": 1},
    ],
)
def test_a_field_that_requests_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert completion(**fields).text == "hi"
    assert chat(**fields).messages[0].content == "hi"


def test_chat_rejects_echo() -> None:
    with pytest.raises(errors.Unimplemented) as caught:
        chat(echo=True)
    assert caught.value.field == "echo"


@pytest.mark.parametrize("name", ["regex", "grammar", "structural_tag"])
def test_a_grammar_is_rejected_by_name(name: str) -> None:
    with pytest.raises(errors.Unimplemented) as caught:
        completion(structured_outputs={name: "x"})
    assert caught.value.field == f"structured_outputs.{name}"


@pytest.mark.parametrize("schema", [{"type": "integer"}, '{"type": "integer"}'])
def test_structured_outputs_reach_the_engine(schema: object) -> None:
    found = completion(structured_outputs={"json": schema}).response_format
    assert json.loads(found.json_schema.schema) == {"type": "integer"}
    found = completion(structured_outputs={"choice": ["a", "b"]}).response_format
    assert list(found.choice.values) == ["a", "b"]
