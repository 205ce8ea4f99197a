"""The model of a form with a file is the one that every parser reads, or the form is rejected."""

from __future__ import annotations

import pytest

from autoglm.common.errors import InvalidRequest
from autoglm.validation import Operation, of_openai
from autoglm.validation.scan.form import MAX_PARTS

PATH = "/v1/audio/transcriptions"
KIND = "multipart/form-data; boundary=b0"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def field(name: str, value: bytes | str) -> tuple[bytes, bytes]:
    data = value.encode() if isinstance(value, str) else value
    return f'Content-Disposition: form-data; name="{name}"'.encode(), data


def form(*parts: tuple[bytes, bytes]) -> bytes:
    text = b"".join(b"--b0\r\n" + head + b"\r\n\r\n" + value + b"\r\n" for head, value in parts)
    return text + b"--b0--\r\n"


AUDIO = (FILE, b"\x00\r\n--b1\r\n" * 64_000)


def test_the_model_is_read_and_the_file_is_estimated() -> None:
    info = of_openai(PATH, form(AUDIO, field("model", "whisper"), field("stream", "true")), KIND)
    assert (info.model, info.streaming) == ("whisper", True)
    assert info.operation is Operation.TRANSCRIBE
    assert info.estimated_tokens == 64_000 * 9 // 640


def test_a_form_without_a_model_names_none_and_is_not_free() -> None:
    info = of_openai(PATH, form(field("language", "en")), KIND)
    assert info.model == ""
    assert info.estimated_tokens > 0


def test_names_of_files_may_be_of_any_language() -> None:
    name = b'form-data; name="file"; filename="a"; filename*=utf-8\'\'%C3%A9.wav'
    info = of_openai(PATH, form((b"content-disposition: " + name, b"x"), field("model", "w")), KIND)
    assert info.model == "w"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form(field("model", "a"), field("model", "b")), KIND),
        (form((FILE.replace(b'"file"', b'"model"'), b"x")), KIND),
        (form(field("model", b"\xff")), KIND),
        (form(field("model", "x" * 5000)), KIND),
        (form((b"Content-Disposition: form-data; name=model", b"x")), KIND),
        (form((b'Content-Disposition: form-data; name="a\\"model"', b"x")), KIND),
        (form((field("a", "")[0] + b"\r\n" + field("model", "")[0], b"x")), KIND),
        (form(*(field(str(n), "x") for n in range(MAX_PARTS + 1))), KIND),
        (form(AUDIO)[:-8], KIND),
        (b"preamble\r\n" + form(AUDIO), KIND),
        (b"", KIND),
        (form(AUDIO), ""),
        (b'{"model": "m"}', "application/json"),
        (form(AUDIO), "multipart/form-data"),
    ],
)
def test_what_two_parsers_may_read_differently_is_rejected(body: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest):
        of_openai(PATH, body, kind)
