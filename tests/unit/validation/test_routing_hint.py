"""What a client says of its request in metadata."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autoglm import v1
from autoglm.validation import Operation, RequestInfo, of_chat, of_generate, validate
from autoglm.validation.routing_hint import MOST_BLOCKS, read_hint, write_hint

MODEL = v1.Model(name="glm", max_model_len=10**6)


def chat(text: str, **more: Any) -> RequestInfo:
    messages = [v1.ChatMessage(role="user", content=text)]
    return of_chat(v1.ChatRequest(model="glm", messages=messages, **more), streaming=True)


@given(text=st.text(min_size=1, max_size=2000), most=st.integers(1, 1000), n=st.integers(1, 8))
def test_what_admission_and_routing_need_is_read_as_it_was(text: str, most: int, n: int) -> None:
    sampling = v1.SamplingParams(max_tokens=most, n=n)
    said = chat(text, sampling_params=sampling, session_id="s", priority=-3)
    read = read_hint(write_hint(said), streaming=True)
    assert read is not None
    assert (read.model, read.session, read.priority) == ("glm", "s", -3)
    assert (read.operation, read.streaming) == (Operation.CHAT, True)
    assert read.estimated_tokens == said.estimated_tokens
    assert read.prefix == said.prefix


def test_token_ids_are_counted_exactly() -> None:
    ids = v1.TokenIds(ids=range(1000))
    said = of_generate(v1.GenerateRequest(model="glm", token_ids=ids))
    read = read_hint(write_hint(said), streaming=False)
    assert read is not None and read.prompt_tokens == 1000


def test_a_long_prompt_is_named_by_its_beginning() -> None:
    said = chat("word " * 20_000)
    read = read_hint(write_hint(said), streaming=True)
    assert read is not None
    assert read.prefix.blocks == said.prefix.blocks[:MOST_BLOCKS]
    assert len(write_hint(said)) < 1024


def test_what_is_valid_stays_so() -> None:
    read = read_hint(write_hint(chat("Hello")), streaming=True)
    assert read is not None
    validate(read, MODEL, ("glm",))


def test_requests_that_cannot_be_sent_in_short_say_nothing() -> None:
    assert write_hint(chat("x", priority=2**31 - 1)) != b""
    assert write_hint(RequestInfo(Operation.EMBED, "glm")) == b""
    assert write_hint(RequestInfo(Operation.CHAT, "")) == b""
    assert write_hint(RequestInfo(Operation.CHAT, "m" * 256)) == b""


@given(st.binary(max_size=200))
def test_any_other_bytes_are_nothing_or_a_hint(data: bytes) -> None:
    read = read_hint(data, streaming=False)
    assert read is None or read.model
