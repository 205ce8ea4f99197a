"""Where a gateway and its pod differ on purpose; docs/validation.md shows this table to users."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.support import parity_forms
from tests.support.parity import Difference
from tests.support.parity_bodies import LONG_STOP, body_name

_GENERATED = ("/v1/chat/completions", "/v1/completions")
_RENDERED = tuple(f"{path}/render" for path in _GENERATED)
_SAMPLED = (*_GENERATED, *_RENDERED)
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
    Difference(
        tuple(
            f"{path} {name}"
            for path in _RENDERED
            for name in (
                "stop_token_ids: [-1]",
                'structured_outputs: {"choice": []}',
                'structured_outputs: {"json": "{"}',
            )
        ),
        pod=200,
        gateway=400,
        what="a `render` of a request that the pod would not generate from",
        why="the gateway validates it as the request that it stands for",
    ),
    Difference(
        ('/v1/responses/render previous_response_id: "resp_none"',),
        pod=400,
        gateway=404,
        what="a `render` of `/v1/responses` with a `previous_response_id` that is not the caller's",
        why="as for `/v1/responses` itself, where both have 404",
    ),
)
OF_KIND: Mapping[str, tuple[Difference, ...]] = {
    "pooling": (
        Difference(
            tuple(f"/classify {name}" for name in (*_UNREADABLE, "a lone surrogate")),
            pod=404,
            gateway=400,
            what="a body that is not a JSON object, for an API that the model's server lacks",
            why="bodies are read before the pod's routes are known",
        ),
    ),
    "speech": (
        Difference(
            tuple(
                f"{path} model: {how}"
                for path in parity_forms.PATHS
                for how in ("'xxxxxxxxx…'", "not UTF-8", "twice")
            ),
            pod=404,
            gateway=400,
            what="a form with `model` twice, over 4,096 bytes or not UTF-8",
            why="parsers read it differently, and the model that is authorized must be the one "
            "that runs",
        ),
        Difference(
            tuple(f"{path} no end" for path in parity_forms.PATHS),
            pod=200,
            gateway=400,
            what="a form without its closing boundary",
            why="it may have been cut off, and the pod takes what has arrived for all of it",
        ),
    ),
}
