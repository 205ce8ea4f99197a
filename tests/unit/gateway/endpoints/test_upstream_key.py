"""The key of third-party servers: what a file may hold, and where it never shows."""

import pytest

from autoglm.gateway.endpoints.upstream_key import UpstreamKey, key_of_file


@pytest.mark.parametrize("text", [b"sk-1", b"sk-1\n", b"  sk-1 \r\n"])
def test_one_line_is_the_key(text: bytes) -> None:
    assert key_of_file(text) == "sk-1"


@pytest.mark.parametrize("text", [b"", b"\n", b"sk-1\nsk-2", b"Bearer sk-1", b"sk\x00", b"sk-\xff"])
def test_a_file_without_one_key_is_wrong_and_not_quoted(text: bytes) -> None:
    with pytest.raises(ValueError, match="one line") as caught:
        key_of_file(text)
    assert "sk" not in str(caught.value)


def test_headers_present_the_key_as_it_is_now() -> None:
    key = UpstreamKey()
    assert not key.headers
    key.set("one")
    assert key.headers == {"authorization": "Bearer one"}
    key.set("two")
    assert key.headers == {"authorization": "Bearer two"}
    assert "two" not in repr(key)
