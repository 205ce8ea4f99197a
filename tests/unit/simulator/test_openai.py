import json
from typing import Any

import pytest

from autoglm.common import errors
from autoglm.simulator import openai_json, tokenizer
from autoglm.simulator.openai import PromptEcho, prompt_echo

PROMPT = "one two"


def echo_of(**fields: Any) -> PromptEcho:
    body = json.dumps({"model": "echo", "prompt": PROMPT, "echo": True} | fields).encode()
    found = prompt_echo(*openai_json.generate_request(body))
    assert found is not None
    return found


def choice(index: int, text: str, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": None, "logprobs": logprobs}


def test_only_the_first_chunk_of_each_completion_has_the_prompt() -> None:
    echo = echo_of(n=2)
    texts = [echo.before(choice(i, t))["text"] for i, t in [(0, "a"), (1, "b"), (0, "c"), (1, "d")]]
    assert texts == [f"{PROMPT}a", f"{PROMPT}b", "c", "d"]


def test_with_no_tokens_to_generate_the_prompt_is_all() -> None:
    echo = echo_of(max_tokens=0)
    assert [echo.before(choice(0, "x"))["text"] for _ in range(2)] == [PROMPT, ""]


def test_logprobs_cover_the_prompt_whose_first_token_has_none() -> None:
    own = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}
    found = echo_of(logprobs=1).before(choice(0, "a", own | {"text_offset": []}))["logprobs"]
    ids = tokenizer.encode(PROMPT)
    assert found["tokens"] == [*(tokenizer.decode([i]) for i in ids), "a"]
    assert (found["token_logprobs"][0], found["token_logprobs"][-1]) == (None, -1.0)
    assert None not in found["token_logprobs"][1:]


def test_a_truncated_prompt_is_echoed_as_truncated() -> None:
    last = tokenizer.decode(tokenizer.encode(PROMPT)[-1:])
    assert echo_of(truncate_prompt_tokens=1).before(choice(0, ""))["text"] == last


def test_a_resumed_stream_is_rejected() -> None:
    with pytest.raises(errors.ResumeImpossible):
        echo_of(autoglm_resume={"choices": []})
