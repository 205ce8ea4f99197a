"""Fields of APIs that generate no text: vectors, scores, labels, renderings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.parity_body import ABSENT, Values

_QUESTION = {"type": "noul", "instructions": "Is it?"}
_CHOICE = {"type": "choice", "instructions": "Which?", "criteria": {"a": "A", "b": None}}
EMBEDDINGS: Values = {
    "model": [ABSENT, "no-such-model"],
    "input": [ABSENT, "", [], ["a", "b"], [1, 2], [[1], [2]], 5, None],
    "encoding_format": ["float", "base64", "x"],
    "dimensions": [8, 0, -1, "x"],
    "truncate_prompt_tokens": [1, -2],
}
SCORE: Values = {"model": [ABSENT, "no-such-model"], "text_1": [ABSENT, ["a"], 5]}
RERANK: Values = {
    "model": [ABSENT, "no-such-model"],
    "documents": [ABSENT, [], "x"],
    "top_n": [1, -1],
}
POOLED: Values = {"model": [ABSENT, "no-such-model"], "input": [ABSENT, [], 5]}
EMBED: Values = {
    "model": [ABSENT, "no-such-model"],
    "texts": [ABSENT, [], "x", ["a", "b"]],
    "input_type": ["query", 5],
    "embedding_types": [["float"], ["other"]],
}
SCORING: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "query": [ABSENT, None, "", [1, 2], [-1], [10**9], 5],
    "items": [ABSENT, None, [], "x", ["", "b"], [[1], [2, 3]], [[1], "a"], [[10**9]], [5]],
    "label_token_ids": [ABSENT, [], [5], [-1], [10**9], ["x"], "x", None, [5] * 30],
    "apply_softmax": [False, "x"],
    "item_first": [True, "x"],
    "add_special_tokens": [False, "x"],
    "cache_salt": ["salt", "", 5],
    "priority": [0, 1, "x", 2**70],
    "unknown_field": [1],
}
GOOD_SCORING: Mapping[str, Any] = {"query": "hi", "items": ["a", "b"], "label_token_ids": [5, 6]}
LABELS: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "state": [ABSENT, None, "", {"a": [1]}, 5],
    "questions": [
        ABSENT,
        None,
        {},
        [],
        "x",
        {"": _QUESTION},
        {"q": {}},
        {"q": {"type": "other"}},
        {"q": _QUESTION, "r": _CHOICE},
        {"q": _CHOICE | {"criteria": {}}},
        {"q": _CHOICE | {"criteria": {f"o{n}": None for n in range(30)}}},
        {"q": {"type": "score", "criteria": ["low", "high"]}},
        {"q": {"type": "score", "criteria": ["low"]}},
        {"q": _QUESTION | {"unknown": 1}},
        {str(n): _QUESTION for n in range(65)},
    ],
    "instructions": ["be kind", 5],
    "images": [["data:image/png;base64,AAAA"], [], "x"],
    "chat_template_kwargs": [{"enable_thinking": True}, {"a": 1}, "x"],
    "cache_salt": ["salt", "", 5],
    "priority": [1, "x", 2**70],
    "unknown_field": [1],
}
GOOD_LABELS: Mapping[str, Any] = {"state": "It is so.", "questions": {"q": _QUESTION}}
_TOKENS = {"choices": [{"index": 0, "token_ids": [5, 6], "finish_reason": "stop"}]}
_CHUNKS: Values = {
    "model": [ABSENT, None, "", "no-such-model", 5],
    "stream": [False, True, "x"],
    "unknown_field": [1],
}
_RESPONSES: tuple[Any, ...] = (
    ABSENT,
    None,
    {},
    {"choices": []},
    {"choices": [{"index": 0}]},
    {"choices": [{"index": 0, "token_ids": []}]},
    {"choices": [{"index": 0, "token_ids": [-1]}]},
    {"choices": [{"index": 0, "token_ids": [10**9]}]},
    {"choices": [{"index": 0, "token_ids": ["x"]}]},
    _TOKENS | {"output_mode": "text"},
    "x",
    5,
)
DERENDER_CHAT: Values = {
    **_CHUNKS,
    "generate_response": _RESPONSES,
    "prompt_tokens": [3, -1, "x"],
    "prompt_token_ids": [[1, 2], [-1], [10**9], "x"],
    "chat_request": [None, {"messages": [{"role": "user", "content": "hi"}]}, {}, "x"],
}
GOOD_DERENDER_CHAT: Mapping[str, Any] = {"generate_response": _TOKENS}
DERENDER_COMPLETION: Values = {
    **_CHUNKS,
    "generate_responses": [ABSENT, [], *([r] for r in _RESPONSES if r is not ABSENT), _TOKENS],
    "prompt_tokens": [[3], [3, 4], 3, ["x"]],
    "prompt_token_ids": [[[1, 2]], [[1], [2]], [[10**9]], "x"],
    "completion_request": [None, {"prompt": "hi"}, {}, "x"],
}
GOOD_DERENDER_COMPLETION: Mapping[str, Any] = {"generate_responses": [_TOKENS]}
STREAMED_DERENDER: tuple[Mapping[str, Any], ...] = (
    {"stream": True, "generate_chunk": _TOKENS},
    {"stream": True, "generate_chunk": _TOKENS, "stream_state": {"prev_tokens": ["x"]}},
    {"stream": True, "generate_chunk": _TOKENS, "stream_state": {"output_chunk_lens": [5]}},
    {"stream": True, "generate_chunk": {}},
)
# Fields of generating APIs that are given to `render` as well: those of the prompt, and bounds.
_OF_RENDER = (
    *("model", "messages", "prompt", "input", "system", "instructions", "truncate_prompt_tokens"),
    *("tools", "tool_choice", "add_generation_prompt", "continue_final_message", "n", "stream"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "temperature", "top_k", "stop"),
    *("stop_token_ids", "logit_bias", "structured_outputs", "previous_response_id"),
)


def rendered(good: Mapping[str, Any], values: Values) -> tuple[Mapping[str, Any], Values]:
    """A row of `render` from the one of the API that the prompt is for."""
    return good, {name: values[name] for name in _OF_RENDER if name in values}
