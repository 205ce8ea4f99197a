"""Where a gateway and its pod differ on purpose; docs/validation.md shows this table to users."""

from __future__ import annotations

import json

from tests.support.parity import Difference
from tests.support.parity_bodies import LONG_STOP, body_name

_SAMPLED = ("/v1/chat/completions", "/v1/completions")
_UNREADABLE = ("empty", "not JSON", "null", "a list", "a number", "not UTF-8")

GENERATING: tuple[Difference, ...] = (
    Difference(
        tuple(f'{path} logit_bias: {{"5": {bias}}}' for path in _SAMPLED for bias in (101, -101)),
        pod=200,
        gateway=400,
        what="`logit_bias` over 100 or under -100",
        why="OpenAI's API has these bounds; vLLM takes the bound itself and does not report it",
    ),
    Difference(
        tuple(f"{path} top_k: {2**40}" for path in _SAMPLED),
        pod=200,
        gateway=400,
        what="`top_k` of more than 32 bits",
        why="the field of gRPC has 32 bits, and both APIs have the same bounds",
    ),
    Difference(
        tuple(f"{path} temperature: true" for path in _SAMPLED),
        pod=200,
        gateway=400,
        what="`true` or `false` for a number",
        why="vLLM takes them for 1 and 0, which no client means",
    ),
    Difference(
        tuple(body_name(path, f"stop: {json.dumps(LONG_STOP)}") for path in _SAMPLED),
        pod=200,
        gateway=400,
        what="a `stop` string of more than 4,096 characters",
        why="each token's text is searched for it",
    ),
    Difference(
        ("/tokenize messages: []", '/tokenize messages: "x"'),
        pod=200,
        gateway=400,
        what="`/tokenize` with a `prompt` and with `messages` that are wrong",
        why="vLLM takes the field that is right and ignores the other one",
    ),
)
POOLING: tuple[Difference, ...] = (
    Difference(
        tuple(f"/classify {name}" for name in (*_UNREADABLE, "a lone surrogate")),
        pod=404,
        gateway=400,
        what="a body that is not a JSON object, for an API that the model's server lacks",
        why="bodies are read before the pod's routes are known",
    ),
)
