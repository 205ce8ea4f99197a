"""Large protobuf messages: what is cut, what is counted, and how much work it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from autoglm import v1
from autoglm.common.errors import InvalidRequest
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import of_chat, of_embed, of_generate, of_oip, of_predict
from autoglm.validation.scan.abridged import Abridged
from autoglm.validation.scan.json_scan import PIECE_BYTES
from autoglm.validation.scan.proto_scan import is_small, scan


def scanned(request: Message) -> Abridged:
    reading = scan(request.SerializeToString(), type(request))
    while True:
        try:
            next(reading)
        except StopIteration as done:
            assert isinstance(done.value, Abridged)
            return done.value


def work_of(request: Message) -> tuple[int, int]:
    total = most = 0
    try:
        for step in scan(request.SerializeToString(), type(request)):
            total, most = total + step, max(most, step)
    except InvalidRequest:
        pass
    return total, most


def chat(count: int, **message: object) -> v1.ChatRequest:
    return v1.ChatRequest(model="m", messages=[v1.ChatMessage(role="user", **message)] * count)  # type: ignore[arg-type]


def sampling(**given: object) -> v1.GenerateRequest:
    return v1.GenerateRequest(model="m", text="x", sampling_params=v1.SamplingParams(**given))  # type: ignore[arg-type]


def tensor(**contents: object) -> oip.ModelInferRequest.InferInputTensor:
    return oip.ModelInferRequest.InferInputTensor(
        name="x",
        contents=oip.InferTensorContents(**contents),  # type: ignore[arg-type]
    )


PART = v1.ContentPart(text="x")
OVER: dict[str, tuple[Message, str]] = {
    "messages": (chat(3000), "messages"),
    "parts": (chat(1, parts=[PART] * 5000), "messages[0].parts"),
    "parts in all": (chat(3, parts=[PART] * 4000), "messages[].parts"),
    "tools": (v1.ChatRequest(tools=[v1.Tool(name="f")] * 2000), "tools"),
    "schemas' bytes in all": (
        v1.ChatRequest(tools=[v1.Tool(name="f", parameters="x" * 250_000)] * 17),
        "tools[].parameters",
    ),
    "logit_bias": (
        sampling(logit_bias=dict.fromkeys(range(5000), 1.0)),
        "sampling_params.logit_bias",
    ),
    "stop": (sampling(stop=["x"] * 100), "sampling_params.stop"),
    "stop_token_ids": (sampling(stop_token_ids=[1] * 2000), "sampling_params.stop_token_ids"),
    "texts": (v1.EmbedRequest(texts=["x"] * 5000), "texts"),
    "choices": (
        v1.ChatRequest(
            response_format=v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=["x"] * 5000))
        ),
        "response_format.choice.values",
    ),
    "labels": (v1.PredictRequest(labels=["x"] * 2000), "labels"),
    "chat to tokenize": (
        v1.TokenizeRequest(chat=v1.ChatMessages(messages=chat(3000).messages)),
        "chat.messages",
    ),
    "token ids": (
        v1.GenerateRequest(token_ids=v1.TokenIds(ids=[7] * (2**21 + 1))),
        "token_ids.ids",
    ),
    "tensors": (oip.ModelInferRequest(inputs=[tensor()] * 2000), "inputs"),
    "values of a tensor": (
        oip.ModelInferRequest(inputs=[tensor(fp32_contents=[0.5] * (2**21 + 1))]),
        "inputs[0].contents.fp32_contents",
    ),
}


@pytest.mark.parametrize(("request_", "field"), OVER.values(), ids=OVER)
def test_what_is_over_its_bound_is_named_with_the_bound(request_: Message, field: str) -> None:
    with pytest.raises(InvalidRequest, match=r"more than \d+") as caught:
        scanned(request_)
    assert caught.value.field == field


def test_every_field_counts_so_that_none_is_free() -> None:
    payload = v1.GenerateRequest(priority=1).SerializeToString() * 200_000
    with pytest.raises(InvalidRequest, match="the body has more than 131072 values"):
        list(scan(payload, v1.GenerateRequest))


@pytest.mark.parametrize(
    "request_",
    [
        chat(2048, content="x"),
        sampling(logit_bias={1: 2.0}, stop=["a"]),
        v1.GenerateRequest(token_ids=v1.TokenIds(ids=range(200_000))),
        v1.ChatRequest(messages=[v1.ChatMessage(content="x" * 1_000_000)]),
        oip.ModelInferRequest(inputs=[tensor(int_contents=[1, 2])], raw_input_contents=[b"x"]),
    ],
)
def test_what_is_within_its_bounds_stays_as_it_is(request_: Message) -> None:
    assert scanned(request_) == request_.SerializeToString()


GROWING: dict[str, Callable[[int], Message]] = {
    "messages": chat,
    "parts": lambda n: chat(1, parts=[PART] * n),
    "texts": lambda n: v1.EmbedRequest(texts=["x"] * n),
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_work_ends_at_the_bound_however_long_the_message(make: Callable[[int], Message]) -> None:
    assert work_of(make(100_000)) == work_of(make(10_000))


LINEAR: dict[str, Callable[[int], Message]] = {
    "text": lambda n: v1.GenerateRequest(text="é" * (n // 2)),
    "ids": lambda n: v1.GenerateRequest(token_ids=v1.TokenIds(ids=[500] * (n // 2))),
    "an image": lambda n: chat(1, parts=[v1.ContentPart(image_url="data:," + "A" * n)]),
    "a tensor": lambda n: oip.ModelInferRequest(inputs=[tensor(fp32_contents=[0.5] * (n // 4))]),
}


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_work_is_linear_in_the_bytes_and_no_step_is_long(make: Callable[[int], Message]) -> None:
    # What stays as it is was not read at all.
    base, two, three = (work_of(make(n)) for n in (1_000_000, 2_000_000, 3_000_000))
    assert three[0] - base[0] <= 2.2 * (two[0] - base[0]) + PIECE_BYTES
    assert three[1] <= PIECE_BYTES
    assert len(scanned(make(3_000_000))) <= 1.5 * 2**20


def test_what_is_cut_is_counted() -> None:
    text = v1.GenerateRequest(model="m", text="日本" * 600_000)
    info = of_generate(v1.GenerateRequest.FromString(kept := scanned(text)), cut=kept.cut)
    assert (info.size, info.model) == (3_600_000, "m")
    assert info.prefix == of_generate(text).prefix

    ids = v1.GenerateRequest(model="m", token_ids=v1.TokenIds(ids=range(700_000)))
    info = of_generate(v1.GenerateRequest.FromString(kept := scanned(ids)), cut=kept.cut)
    assert info == of_generate(ids)

    long = chat(3, parts=[v1.ContentPart(text="x" * 900_000)])
    info = of_chat(v1.ChatRequest.FromString(kept := scanned(long)), cut=kept.cut)
    assert info.size == 2_700_000

    texts = v1.EmbedRequest(model="m", texts=["é" * 300_000] * 4)
    assert of_embed(v1.EmbedRequest.FromString(kept := scanned(texts)), cut=kept.cut).size == (
        2_400_000
    )
    predict = v1.PredictRequest(input_data="x" * 2_000_000, labels=["a"])
    kept = scanned(predict)
    assert of_predict(v1.PredictRequest.FromString(kept), cut=kept.cut).size == 2_000_000


def test_a_long_raw_tensor_is_measured_whole() -> None:
    text = ("é" * 1_000_000).encode()
    raw = len(text).to_bytes(4, "little") + text
    request = oip.ModelInferRequest(
        model_name="m",
        inputs=[
            oip.ModelInferRequest.InferInputTensor(name="text_input", datatype="BYTES", shape=[1])
        ],
        raw_input_contents=[raw],
    )
    kept = scanned(request)
    assert of_oip(oip.ModelInferRequest.FromString(kept), cut=kept.cut).size == len(text)


@pytest.mark.parametrize("tail", [b"\x0a", b"\x0a\x7f", b"\x0b", b"\x0f", b"\xff" * 11])
def test_what_is_no_message_is_refused(tail: bytes) -> None:
    with pytest.raises(InvalidRequest, match="check its encoding"):
        list(scan(v1.GenerateRequest(text="x").SerializeToString() + tail, v1.GenerateRequest))


def test_text_that_is_cut_has_to_be_utf8() -> None:
    good = v1.GenerateRequest(text="x" * 3_000_000).SerializeToString()
    with pytest.raises(InvalidRequest, match="text is not UTF-8"):
        list(scan(good[:-1] + b"\xff", v1.GenerateRequest))


@pytest.mark.parametrize(
    ("request_", "small"),
    [
        (chat(20, content="x" * 400), True),
        (chat(100), True),
        (chat(800), False),
        (chat(20, content="x" * 1000), False),
        (v1.GenerateRequest(token_ids=v1.TokenIds(ids=range(2000))), False),
        (v1.TokenizeRequest(chat=v1.ChatMessages(messages=chat(800).messages)), False),
    ],
)
def test_an_ordinary_message_is_not_scanned(request_: Message, small: bool) -> None:
    assert is_small(request_.SerializeToString(), type(request_)) == small
