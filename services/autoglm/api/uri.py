"""Reads where a model is: a path, a name on a hub, or a URI with a scheme. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

PATH, HUB = "path", "hf"
PODS_LOAD: Final = "a hub name (ORG/NAME, hf://ORG/NAME) or a path"
"""What a pod loads, for messages."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# With the quantization of a GGUF file, as vLLM takes it.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model is."""

    scheme: str
    """`path`, `hf` for a name on the hub, or the scheme of the URI."""
    name: str
    """The path, the name on the hub, or the URI without its scheme."""


def location_of(uri: str) -> Location:
    """Return the location that a URI of a manifest or a command names."""
    if found := _SCHEME.fullmatch(uri):
        return Location(found[1], found[2])
    return Location(PATH if uri.startswith(("/", "./", "../", "~")) else HUB, uri)


def problem_of_uri(uri: str) -> str:
    """Return why pods cannot load a URI, with what they can load; empty where they can."""
    found = location_of(uri)
    if found.scheme == PATH:
        return ""
    if found.scheme != HUB:
        return (
            f"{found.scheme}:// cannot be loaded; give {PODS_LOAD}, or copy the model to a path "
            f"with `autoglm pull`"
        )
    if not _HUB_NAME.fullmatch(found.name):
        return f"is no name of a hub; give {PODS_LOAD}"
    return ""


def for_engine(uri: str) -> str:
    """Return a URI as the engine takes it: names of the hub have no scheme."""
    found = location_of(uri)
    return found.name if found.scheme == HUB else uri
