"""Parses HOST:PORT and hides passwords in URLs. Imports nothing, so core installs can use it."""

from __future__ import annotations

import re

_USER_INFO = re.compile(r"//[^/@\s]*@")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT, such as 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def without_user_info(text: str) -> str:
    """Return the text with user and password of each URL in it replaced, as in `//***@host`."""
    return _USER_INFO.sub("//***@", text)
