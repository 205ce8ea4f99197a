"""Bodies of the APIs that take a form with a file, good and wrong, for one served model."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Iterable, Mapping, Sequence

from tests.support.parity_body import JSON, Body

PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")
BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FIELDS: Mapping[str, Sequence[str]] = {
    "model": ["", "no-such-model", "x" * 5000],
    "language": ["en", "", "xx"],
    "prompt": ["Hello", "x" * 5000],
    "response_format": ["json", "text", "verbose_json", "srt", "x"],
    "temperature": ["0", "0.5", "2.5", "-1", "x"],
    "stream": ["true", "false", "x"],
    "seed": ["7", "x"],
    "top_p": ["0.5", "2"],
    "max_completion_tokens": ["3", "0", "-1", "x"],
    "unknown_field": ["1"],
}
Parts = Iterable[tuple[str, bytes]]


def recording(seconds: float = 0.5) -> bytes:
    """A WAV file of silence, in the rate that speech models take."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(bytes(2 * int(16_000 * seconds)))
    return file.getvalue()


def form_bodies() -> list[Body]:
    """The second path shares its fields with the first, so that few of their values are sent."""
    some = {name: FIELDS[name] for name in ("model", "response_format")}
    given = zip(PATHS, (FIELDS, some), strict=True)
    return [
        Body(f"{path} {name}", path, *sent)
        for path, fields in given
        for name, sent in _bodies(fields)
    ]


def _bodies(fields: Mapping[str, Sequence[str]]) -> Iterable[tuple[str, tuple[bytes, str]]]:
    # Without a language vLLM has the model say it, which one with weights of chance cannot.
    good = {"file": recording(), "model": b"tiny-glm", "language": b"en"}
    good["max_completion_tokens"] = b"3"
    yield "good", (_form(good.items()), FORM)
    for name in ("file", "model"):
        yield f"{name}: absent", (_form((k, v) for k, v in good.items() if k != name), FORM)
    for name, values in fields.items():
        for value in values:
            shown = value if len(value) < 100 else f"{value[:9]}…"
            yield f"{name}: {shown!r}", (_form({**good, name: value.encode()}.items()), FORM)
    yield "file: not audio", (_form({**good, "file": b"text"}.items()), FORM)
    yield "file: empty", (_form({**good, "file": b""}.items()), FORM)
    yield "model: not UTF-8", (_form({**good, "model": b"\xff"}.items()), FORM)
    yield "model: twice", (_form([*good.items(), ("model", b"no-such-model")]), FORM)
    yield "no parts", (_form(()), FORM)
    yield "empty", (b"", FORM)
    yield "no form", (b"text", FORM)
    yield "no end", (_form(good.items())[:-8], FORM)
    yield "no boundary", (_form(good.items()), "multipart/form-data")
    yield "another boundary", (_form(good.items()), "multipart/form-data; boundary=other")
    yield "JSON", (json.dumps({"model": "tiny-glm"}).encode(), JSON)
    yield "no content-type", (_form(good.items()), "")


def _form(parts: Parts) -> bytes:
    return b"".join(_part(*part) for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def _part(name: str, value: bytes) -> bytes:
    file = '; filename="a.wav"\r\ncontent-type: audio/wav' if name == "file" else ""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"
