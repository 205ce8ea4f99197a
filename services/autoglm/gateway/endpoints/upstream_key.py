"""The API key that is sent to third-party OpenAI servers instead of the caller's credential."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from autoglm.common.rpc import AUTHORIZATION

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def key_of_file(text: bytes) -> str:
    """Parse a key file of one line. Raises ValueError, which quotes no part of it."""
    try:
        key = text.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or not key.isprintable() or " " in key:
        raise ValueError("it is not one line of visible ASCII characters; write the key alone")
    return key


class UpstreamKey:
    """The current key. `headers` present it to an upstream; empty without a key."""

    def __init__(self, key: str = "") -> None:
        self.headers = _NO_HEADERS
        self.set(key)

    def set(self, key: str) -> None:
        """Replace the key; an empty one removes it."""
        self.headers = MappingProxyType({AUTHORIZATION: f"Bearer {key}"}) if key else _NO_HEADERS

    def __repr__(self) -> str:
        """Return a text without the key."""
        return f"UpstreamKey(is_set={bool(self.headers)})"
