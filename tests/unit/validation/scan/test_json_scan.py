"""Large JSON bodies: what is cut, what is counted, and how much work it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.soak import examples

from autoglm.common.errors import InvalidRequest
from autoglm.validation.bounds import Bounds
from autoglm.validation.http_bodies import of_openai
from autoglm.validation.scan import json_scan
from autoglm.validation.scan.abridged import Abridged

CHAT = "/v1/chat/completions"


def scanned(body: bytes, bounds: Bounds | None = None) -> Abridged:
    reading = json_scan.scan(body, bounds or Bounds())
    while True:
        try:
            next(reading)
        except StopIteration as done:
            assert isinstance(done.value, Abridged)
            return done.value


def work_of(body: bytes) -> tuple[int, int]:
    """All of the work, and the most of one step."""
    total = most = 0
    try:
        for step in json_scan.scan(body):
            total, most = total + step, max(most, step)
    except InvalidRequest:
        pass
    return total, most


def many(entry: str, count: int) -> str:
    return ",".join([entry] * count)


def chat(messages: str) -> bytes:
    return f'{{"model":"m","messages":[{messages}]}}'.encode()


BIASES = ",".join(f'"{i}":1' for i in range(5000))
TEXTS = many('"x"', 5000)
OVER: dict[str, tuple[bytes, str]] = {
    "messages": (chat(many('{"role":"user","content":""}', 3000)), "messages"),
    "escaped name": (b'{"mess\\u0061ges":[%s]}' % many("{}", 3000).encode(), "messages"),
    "parts": (chat(f'{{"role":"user","content":[{many("{}", 5000)}]}}'), "messages[0].content"),
    "parts in all": (
        chat(many(f'{{"content":[{many("{}", 4000)}]}}', 3)),
        "messages[].content",
    ),
    "tool calls": (chat(f'{{}},{{"tool_calls":[{many("{}", 5000)}]}}'), "messages[1].tool_calls"),
    "tools": (b'{"tools":[%s]}' % many("{}", 2000).encode(), "tools"),
    "logit_bias": (b'{"logit_bias":{%s}}' % BIASES.encode(), "logit_bias"),
    "stop": (b'{"stop":[%s]}' % TEXTS.encode(), "stop"),
    "stop_token_ids": (b'{"stop_token_ids":[%s]}' % many("1", 2000).encode(), "stop_token_ids"),
    "labels": (b'{"labels":[%s]}' % TEXTS.encode(), "labels"),
    "prompts": (b'{"prompt":[%s]}' % TEXTS.encode(), "prompt"),
    "embeddings": (b'{"input":[%s]}' % TEXTS.encode(), "input"),
    "documents": (b'{"documents":[%s]}' % TEXTS.encode(), "documents"),
    "enum": (
        b'{"response_format":{"json_schema":{"schema":{"enum":[%s]}}}}' % TEXTS.encode(),
        "response_format.json_schema.schema.enum",
    ),
    "properties": (
        b'{"tools":[{"function":{"parameters":{"properties":{%s}}}}]}' % BIASES.encode(),
        "tools[0].function.parameters.properties",
    ),
    "tensors": (b'{"inputs":[%s]}' % many("{}", 2000).encode(), "inputs"),
    "parameters": (b'{"parameters":{%s}}' % BIASES.encode(), "parameters"),
    "a field of an API to come": (b'{"a":{"b":[%s]}}' % many("{}", 5000).encode(), "a.b"),
    "token ids": (b'{"prompt":[%s]}' % many("1", 2**21 + 1).encode(), "prompt"),
    "values in all": (b'{"a":[%s]}' % many(f"[{many('{}', 3000)}]", 100).encode(), ""),
    "a schema's bytes": (
        b'{"response_format":{"json_schema":{"schema":{"title":"%s"}}}}' % (b"x" * 300_000),
        "response_format.json_schema.schema",
    ),
    "a pattern's bytes": (
        b'{"structured_outputs":{"regex":"%s"}}' % (b"x" * 530_000),
        "structured_outputs.regex",
    ),
    "schemas' bytes in all": (
        b'{"tools":[%s]}'
        % many('{"function":{"parameters":{"title":"%s"}}}' % ("x" * 250_000), 17).encode(),
        "tools[].function.parameters",
    ),
}


@pytest.mark.parametrize(("body", "field"), OVER.values(), ids=OVER)
def test_what_is_over_its_bound_is_named_with_the_bound(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest, match=r"more than \d+") as caught:
        scanned(body)
    assert caught.value.field == field


@pytest.mark.parametrize("body", [chat(many('{"content":"x"}', 2048)), b'{"prompt":"x"}', b"[]"])
def test_what_is_within_its_bounds_stays_as_it_is(body: bytes) -> None:
    assert scanned(body) == body


GROWING: dict[str, Callable[[int], str]] = {
    "messages": lambda n: f'{{"messages":[{many("{}", n)}]}}',
    "biases": lambda n: f'{{"logit_bias":{{{many("0:0", n)}}}}}',
    "unknown": lambda n: f'{{"x":[{many("[]", n)}]}}',
    "numbers of no list of ids": lambda n: f'{{"x":[{many("1", n)}]}}',
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_work_ends_at_the_bound_however_long_the_body(make: Callable[[int], str]) -> None:
    short, long = make(30_000).encode(), make(200_000).encode()
    assert work_of(long)[0] <= work_of(short)[0] + json_scan.PIECE_BYTES


LINEAR: dict[str, Callable[[int], bytes]] = {
    "text": lambda n: json.dumps({"prompt": "x" * n}).encode(),
    "escapes": lambda n: json.dumps({"prompt": '"\\é😀' * (n // 20)}).encode(),
    "ids": lambda n: json.dumps({"prompt": [123456] * (n // 8)}).encode(),
    "white space": lambda n: b'{"a":' + b" " * n + b"1}",
    "a name": lambda n: b'{"' + b"x" * n + b'":1}',
    "images": lambda n: json.dumps({"messages": [{"content": [{"url": "A" * n}]}]}).encode(),
}


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_work_is_linear_in_the_bytes_and_no_step_is_long(make: Callable[[int], bytes]) -> None:
    (one, most_of_one), (four, most_of_four) = work_of(make(500_000)), work_of(make(2_000_000))
    assert four <= 4.1 * one
    assert max(most_of_one, most_of_four) <= json_scan.PIECE_BYTES


@pytest.mark.parametrize("make", LINEAR.values(), ids=LINEAR)
def test_what_is_decoded_does_not_grow_with_the_body(make: Callable[[int], bytes]) -> None:
    assert len(scanned(make(6_000_000))) <= 2.3 * 2**20


@pytest.fixture
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "PIECE_BYTES", 64)
    monkeypatch.setattr(json_scan, "STEP_TOKENS", 3)
    monkeypatch.setattr(json_scan, "KEPT_TEXT_BYTES", -100)
    monkeypatch.setattr(json_scan, "KEPT_NUMBERS", 8)


texts = st.text(st.sampled_from('ab"\\\né😀{}[],: '), max_size=400)
numbers = st.lists(st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9), min_size=1, max_size=80)
values = st.recursive(
    st.none() | st.booleans() | texts | numbers,
    lambda inner: (
        st.lists(st.none() | inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(("a", "b", '"c"', "d\\")), inner | st.integers(), max_size=4
        )
    ),
)


@pytest.mark.usefixtures("_short_pieces")
@settings(max_examples=examples(200), deadline=None)
@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from((None, 1)))
def test_what_is_cut_is_reported_and_nothing_else_is_lost(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps({"v": value}, ensure_ascii=ascii_only, indent=indent).encode()
    abridged = scanned(body)
    whole, left = msgspec.json.decode(body), msgspec.json.decode(abridged)
    texts_lost, numbers_lost = lost(whole, left)
    assert texts_lost == sum(abridged.cut.text.values())
    assert numbers_lost == sum(n.count - n.stand_ins for n in abridged.cut.numbers.values())


def lost(whole: Any, left: Any) -> tuple[int, int]:
    """Bytes of text, and numbers."""
    if isinstance(whole, str):
        assert whole.startswith(left)
        return len(whole.encode()) - len(left.encode()), 0
    if isinstance(whole, dict):
        assert whole.keys() == left.keys()
        pairs = [(whole[name], left[name]) for name in whole]
    elif isinstance(whole, list) and all(isinstance(n, int | float) for n in whole):
        return 0, len(whole) - len(left)
    elif isinstance(whole, list):
        pairs = list(zip(whole, left, strict=True))
    else:
        assert whole == left or isinstance(whole, int | float)
        return 0, 0
    found = [lost(*pair) for pair in pairs]
    return sum(f[0] for f in found), sum(f[1] for f in found)


@pytest.mark.parametrize("inside", [b"\xff", b'\xc3\xc3"', b"\\ud800", b"\\x", b"\x01"], ids=repr)
def test_what_is_cut_is_as_valid_as_what_is_kept(inside: bytes) -> None:
    for at in (100, 2_500_000):
        body = b'{"prompt":"' + b"x" * at + inside + b"x" * (3_000_000 - at) + b'"}'
        with pytest.raises(InvalidRequest):
            of_openai("/v1/completions", scanned(body))


def test_a_long_text_is_measured_whole() -> None:
    body = json.dumps({"model": "m", "prompt": "日\n" * 1_000_000}).encode()
    info = of_openai("/v1/completions", scanned(body))
    assert info.size == 4_000_000
    assert info.prefix == of_openai("/v1/completions", body).prefix


def test_a_long_list_of_ids_is_counted_judged_and_named_whole() -> None:
    ids = list(range(500_000))
    body = json.dumps({"model": "m", "prompt": ids}).encode()
    info, whole = of_openai("/v1/completions", scanned(body)), of_openai("/v1/completions", body)
    assert info == whole
    ids[-1] = 2**31
    with pytest.raises(InvalidRequest, match="from 0 to 2147483648") as caught:
        of_openai("/v1/completions", scanned(json.dumps({"prompt": ids}).encode()))
    assert caught.value.field == "prompt"
    with pytest.raises(InvalidRequest, match="not whole"):
        of_openai("/v1/completions", scanned(json.dumps({"prompt": [*ids, 0.5]}).encode()))


def test_short_values_are_never_cut_wherever_pieces_end() -> None:
    for pad in range(60):
        text = b'{"a":"' + b"x" * (2**21 + pad) + b'","messages":[{"role":"user"}]}'
        assert msgspec.json.decode(scanned(text))["messages"] == [{"role": "user"}]


def test_images_count_as_no_text() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:," + "A" * 3_000_000}}
    message = {"role": "user", "content": [part, {"type": "text", "text": "Which?"}]}
    body = json.dumps({"model": "m", "messages": [message]}).encode()
    info = of_openai(CHAT, scanned(body))
    assert info.size == len("Which?")
    assert info.turns and info.turns[0].media[0].url.startswith("data:,AAA")


def test_an_ordinary_body_is_not_scanned() -> None:
    assert json_scan.is_small(chat(many('{"role":"user","content":"Hello, world"}', 100)))
    assert not json_scan.is_small(chat(many("{}", 600)))
