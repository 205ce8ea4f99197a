"""A stream that breaks anywhere and is resumed elsewhere: nothing is lost, doubled or restarted."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import v1
from autoglm.gateway.proxy.recovery import NotResumable, Transcript
from autoglm.gateway.proxy.transcripts import KINDS, GrpcTranscript, SseTranscript

GENERATE = KINDS["/autoglm.v1.Inference/GenerateStream"]
CHAT = KINDS["/autoglm.v1.Inference/ChatStream"]
BODY = b'{"model":"m","prompt":"x","stream":true}  '
REQUEST = v1.GenerateRequest(model="m", text="x").SerializeToString()

# Outputs as (token, text); a token may have no text, as half a character has none.
outputs = st.lists(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(["", "a", " b", "\n\n", "ü"]))),
    min_size=1,
    max_size=3,
)
Outputs = list[list[tuple[int, str]]]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def event(payload: object) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def sse(said: Outputs, body: bytes) -> bytes:
    """A pod's whole stream for the request, a token an event, its role first."""
    resumed = json.loads(body).get("autoglm_resume", {"choices": []})["choices"]
    known = {c["index"]: c for c in resumed}
    out = []
    for index, tokens in enumerate(said):
        begun = known.get(index)
        if begun and begun["finished"]:
            continue
        if not begun:
            out.append(event({"choices": [{"index": index, "delta": {"role": "assistant"}}]}))
        skipped = len(begun["token_ids"]) if begun else 0
        assert not begun or begun["token_ids"] == [t for t, _ in tokens[:skipped]]
        for place in range(skipped, max(len(tokens), 1)):
            ids, text = ([tokens[place][0]], tokens[place][1]) if tokens else ([], "")
            reason = "stop" if place + 1 >= len(tokens) else None
            comment = b': autoglm-tokens {"index":%d,"ids":%s}\n' % (index, str(ids).encode())
            choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
            out.append(comment + event({"choices": [choice]}))
    return b"".join(out) + b"data: [DONE]\n\n"


@given(outputs, st.lists(st.integers(0, 10**6), max_size=3), st.lists(st.integers(0, 10**6)))
def test_an_event_stream_cut_anywhere_any_number_of_times_is_whole(
    said: Outputs, losses: list[int], places: list[int]
) -> None:
    transcript, got, body = SseTranscript(10**6), b"", BODY
    for loss in [*losses, None]:
        whole = sse(said, body)
        arrived = whole if loss is None else whole[: loss % (len(whole) + 1)]
        got += b"".join(transcript.feed(chunk) for chunk in cut(arrived, places))
        if transcript.is_complete():
            break
        body = transcript.resumption(BODY)
    undisturbed = b"".join(
        part + b"\n\n"
        for part in (p.split(b"}\n")[-1] for p in sse(said, BODY)[:-2].split(b"\n\n"))
    )
    assert got == undisturbed and transcript.rest() == b""


def grpc(said: Outputs, payload: bytes) -> list[bytes]:
    request = v1.GenerateRequest.FromString(payload)
    assert (request.model, request.text) == ("m", "x")
    known = {c.index: c for c in request.resume.choices}
    out = []
    for index, tokens in enumerate(said):
        begun = known.get(index, v1.ResumedChoice())
        assert list(begun.token_ids) == [t for t, _ in tokens[: len(begun.token_ids)]]
        for place in range(len(begun.token_ids), len(tokens)):
            token, text = tokens[place]
            reason = v1.FINISH_REASON_STOP if place + 1 == len(tokens) else 0
            chunk = v1.GenerateChunk(index=index, text=text, token_ids=[token])
            chunk.finish_reason = reason  # type: ignore[assignment]  # 0 is unspecified
            out.append(chunk)
    if not out:
        out.append(v1.GenerateChunk())
    out[-1].usage.completion_tokens = sum(map(len, said))
    return [chunk.SerializeToString() for chunk in out]


@given(outputs, st.lists(st.integers(0, 10**6), max_size=3))
def test_a_grpc_stream_that_breaks_anywhere_is_whole(said: Outputs, losses: list[int]) -> None:
    transcript, got, payload = GrpcTranscript(GENERATE, 10**6), [], REQUEST
    for loss in [*losses, None]:
        whole = grpc(said, payload)
        arrived = whole if loss is None else whole[: loss % (len(whole) + 1)]
        got += [transcript.feed(chunk) for chunk in arrived]
        if transcript.is_complete():
            break
        payload = transcript.resumption(REQUEST)
    assert got == grpc(said, REQUEST)


def test_memory_is_bounded_and_long_streams_are_not_resumed() -> None:
    transcript = GrpcTranscript(GENERATE, 1000)
    for token in range(5000):
        transcript.feed(v1.GenerateChunk(text="x" * 100, token_ids=[token]).SerializeToString())
        assert sum(map(len, transcript._raw)) <= 65 * 1024
    with pytest.raises(NotResumable, match="more than 1000 tokens"):
        transcript.resumption(REQUEST)


@pytest.mark.parametrize(
    ("transcript", "chunk", "request_"),
    [
        (GrpcTranscript(GENERATE, 9), v1.GenerateChunk(text="a").SerializeToString(), REQUEST),
        (
            GrpcTranscript(CHAT, 9),
            v1.ChatChunk(delta=v1.ChatMessage(content="a")).SerializeToString(),
            b"",
        ),
        (SseTranscript(9), event({"choices": [{"delta": {"content": "a"}}]}), BODY),
        (SseTranscript(9), event({"choices": [{"text": "a"}]}), BODY),
    ],
)
def test_a_pod_that_names_no_tokens_is_not_resumed(
    transcript: Transcript, chunk: bytes, request_: bytes
) -> None:
    assert transcript.feed(chunk) == chunk
    with pytest.raises(NotResumable, match="token ids"):
        transcript.resumption(request_)


def test_a_request_that_resumes_another_stream_is_not_resumed() -> None:
    resume = v1.Resume(choices=[v1.ResumedChoice(token_ids=[1])])
    request = v1.GenerateRequest(model="m", text="x", resume=resume)
    transcript = GrpcTranscript(GENERATE, 9)
    transcript.feed(v1.GenerateChunk(text="a", token_ids=[2]).SerializeToString())
    with pytest.raises(NotResumable):
        transcript.resumption(request.SerializeToString())


def test_a_role_that_was_sent_is_not_sent_again() -> None:
    transcript = GrpcTranscript(CHAT, 9)
    transcript.feed(v1.ChatChunk(delta=v1.ChatMessage(role="assistant")).SerializeToString())
    request = v1.ChatRequest.FromString(transcript.resumption(b""))
    assert request.resume == v1.Resume(choices=[v1.ResumedChoice()])


def test_a_dead_engines_words_in_an_event_stream_are_a_loss_and_other_errors_are_not() -> None:
    transcript = SseTranscript(9)
    refusal = event({"error": {"code": "invalid_request", "message": "no"}})
    assert transcript.feed(refusal) == refusal
    said = event({"choices": [{"index": 0, "text": ""}]})
    dead = event({"error": {"code": "engine_dead", "message": "it died"}})
    assert transcript.feed(said + dead + b"data: [DONE]\n\n") == said
    assert transcript.failure == "it died" and not transcript.is_complete()
