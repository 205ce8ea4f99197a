"""The bytes of attacks over HTTP/2, and the reader of a server's frames."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from benchmarks.attacks import http2
from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from autoglm import v1


def frames(data: bytes) -> Iterator[Frame]:
    data = data.removeprefix(http2.PREFACE)
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        data = data[9 + length :]
        yield frame


def first(writes: Iterator[bytes], count: int) -> list[Frame]:
    """The frames of the first writes behind the opening."""
    next(writes)
    return [frame for data in islice(writes, count) for frame in frames(data)]


def test_a_connection_opens_with_preface_settings_and_acknowledgement() -> None:
    data = http2.opening({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    settings, ack = frames(data)
    assert data.startswith(http2.PREFACE)
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
    assert "ACK" in ack.flags


def test_a_rapid_reset_resets_each_stream_that_it_opens() -> None:
    sent = first(http2.rapid_reset(""), 2)
    opened = [frame.stream_id for frame in sent if isinstance(frame, HeadersFrame)]
    reset = [frame.stream_id for frame in sent if isinstance(frame, RstStreamFrame)]
    assert opened == reset == list(range(1, 401, 2))


@pytest.mark.parametrize(
    ("bound", "writes", "kind"),
    [
        ("RESETS", http2.rapid_reset, RstStreamFrame),
        ("WATCHES", http2.watches, DataFrame),
        ("CONTINUATIONS", http2.continuation_flood, ContinuationFrame),
        ("PINGS", http2.ping_flood, PingFrame),
        ("SETTINGS", http2.settings_flood, SettingsFrame),
        ("BOMBS", http2.hpack_bomb, HeadersFrame),
        ("UNREAD_STREAMS", http2.zero_window, DataFrame),
    ],
)
def test_an_attack_is_bounded_in_count(
    bound: str, writes: http2.Writes, kind: type[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, bound, 300)
    rest = writes("key")
    next(rest)
    assert sum(isinstance(frame, kind) for data in rest for frame in frames(data)) == 300


def test_the_block_of_a_continuation_flood_never_ends() -> None:
    head, *rest = first(http2.continuation_flood(""), 4)
    assert isinstance(head, HeadersFrame)
    assert all(isinstance(frame, ContinuationFrame) for frame in rest)
    assert not any("END_HEADERS" in frame.flags for frame in (head, *rest))
    assert isinstance(rest[0], ContinuationFrame)
    fields = list(Decoder(max_header_list_size=1 << 20).decode(head.data + rest[0].data, raw=True))
    assert (b"x-filler", b"y" * 100) in fields


def test_each_block_of_the_hpack_bomb_decodes_to_thousands_of_times_its_size() -> None:
    decoder = Decoder(max_header_list_size=1 << 26)
    for frame in first(http2.hpack_bomb(""), 3):
        assert isinstance(frame, HeadersFrame)
        assert len(frame.data) <= http2.FRAME_BYTES
        names = [name for name, _ in decoder.decode(frame.data, raw=True)]
        assert names.count(b"x-bomb") == http2.BOMB_REFERENCES + 1


def test_streams_without_a_window_request_a_long_response() -> None:
    writes = http2.zero_window("secret")
    opening = next(writes)
    assert any(
        SettingsFrame.INITIAL_WINDOW_SIZE in f.settings
        for f in frames(opening)
        if isinstance(f, SettingsFrame)
    )
    head, data = frames(next(writes))
    assert isinstance(head, HeadersFrame)
    assert isinstance(data, DataFrame)
    assert (b"x-api-key", b"secret") in list(Decoder().decode(head.data, raw=True))
    request = v1.GenerateRequest.FromString(data.data[5:])
    assert request.sampling_params.max_tokens == http2.UNREAD_TOKENS


def test_the_reader_yields_statuses_resets_and_goaways_from_any_pieces() -> None:
    encoder = Encoder()
    data = b"".join(
        (
            SettingsFrame(0).serialize(),
            HeadersFrame(
                1, encoder.encode([(":status", "200")]), flags=["END_HEADERS"]
            ).serialize(),
            HeadersFrame(
                1, encoder.encode([("grpc-status", "16")]), flags=["END_HEADERS"]
            ).serialize(),
            HeadersFrame(
                3, encoder.encode([(":status", "431")]), flags=["END_HEADERS"]
            ).serialize(),
            RstStreamFrame(5, error_code=ErrorCodes.REFUSED_STREAM).serialize(),
            GoAwayFrame(0, 5, ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings").serialize(),
        )
    )
    expected = [
        "UNAUTHENTICATED",
        "431",
        "RST_STREAM REFUSED_STREAM",
        "GOAWAY ENHANCE_YOUR_CALM too_many_pings",
    ]
    for size in (1, 7, len(data)):
        reader = http2.Reader()
        pieces = (data[at : at + size] for at in range(0, len(data), size))
        assert [status for piece in pieces for status in reader.feed(piece)] == expected


def test_a_frame_that_is_none_is_named_and_dropped_with_what_follows() -> None:
    short = b"\x00\x00\x01\x03\x00\x00\x00\x00\x01x"
    (status,) = http2.Reader().feed(short + GoAwayFrame(0).serialize())
    assert status.startswith("unreadable frame")
