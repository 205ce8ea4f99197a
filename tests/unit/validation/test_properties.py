"""Whatever a client sends, the validator responds with its own errors only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.soak import examples

from autoglm import v1, validation
from autoglm.common.errors import InvalidRequest, ModelNotFound, RequestTooLarge
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import RequestInfo, openai_types

MODEL = v1.Model(name="m", max_model_len=64, max_token_bytes=8)
EXPECTED = (InvalidRequest, ModelNotFound, RequestTooLarge)
PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/v2/inference",
    "/v2/models/m/infer",
    "/v1/rerank",
]
FIELDS = sorted(
    {
        field
        for body in vars(openai_types).values()
        if isinstance(body, type) and issubclass(body, msgspec.Struct)
        for field in body.__struct_fields__
    }
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(
    lambda body: msgspec.json.encode({"model": "m"} | body)
)


def judged(info: RequestInfo) -> None:
    validation.validate(info, MODEL, ["m"])
    assert info.estimated_tokens >= 0


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(PATHS), BODIES | st.binary(max_size=60))
def test_json_bodies_raise_nothing_else(path: str, body: bytes) -> None:
    with contextlib.suppress(*EXPECTED):
        judged(validation.of_openai(path, body))


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_protobuf_messages_raise_nothing_else(body: bytes, streaming: bool) -> None:
    readers: tuple[Callable[[bytes], RequestInfo], ...] = (
        lambda b: validation.of_generate(v1.GenerateRequest.FromString(b), streaming=streaming),
        lambda b: validation.of_chat(v1.ChatRequest.FromString(b), streaming=streaming),
        lambda b: validation.of_embed(v1.EmbedRequest.FromString(b)),
        lambda b: validation.of_predict(v1.PredictRequest.FromString(b)),
        lambda b: validation.of_tokenize(v1.TokenizeRequest.FromString(b)),
        lambda b: validation.of_oip(oip.ModelInferRequest.FromString(b), streaming=streaming),
    )
    for read in readers:
        with contextlib.suppress(DecodeError, *EXPECTED):
            judged(read(body))


PARAMS = st.builds(
    v1.SamplingParams,
    n=st.none() | st.integers(0, 200),
    temperature=st.none() | st.floats(width=32),
    top_p=st.none() | st.floats(width=32),
    top_k=st.none() | st.integers(-5, 5),
    repetition_penalty=st.none() | st.floats(width=32),
    max_tokens=st.none() | st.integers(0, 2**32 - 1),
    min_tokens=st.none() | st.integers(0, 2**32 - 1),
    logit_bias=st.dictionaries(st.integers(0, 2**32 - 1), st.floats(width=32), max_size=2),
    stop=st.lists(st.text(max_size=3), max_size=3),
)


@given(PARAMS)
def test_what_passes_is_in_range(params: v1.SamplingParams) -> None:
    info = validation.of_generate(v1.GenerateRequest(model="m", text="x", sampling_params=params))
    try:
        judged(info)
    except EXPECTED as error:
        assert error.field
        return
    assert 0 <= params.temperature <= 2
    assert not params.HasField("top_p") or 0 < params.top_p <= 1
    assert not params.HasField("max_tokens") or 1 <= params.max_tokens <= MODEL.max_model_len
    assert all(params.stop)
