"""Fills the documents of `envoy.yaml`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from string import Template
from textwrap import indent

_INSERT = re.compile(r"^( *)# insert (\w+)\n", re.MULTILINE)
_COMMENT = re.compile(r"^ *#(?! insert ).*\n", re.MULTILINE)
_PART = re.compile(r"^--- # (\w+).*\n", re.MULTILINE)


def filled(name: str, parts: Mapping[str, Iterable[str]] | None = None, /, **values: object) -> str:
    """Return a document of the template with its values as JSON, and with its parts inserted.

    Raises KeyError if the document has a name without a value.
    """
    found = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}
    text = Template(_documents()[name]).substitute(found)
    return _INSERT.sub(lambda at: "".join(indent(x, at[1]) for x in (parts or {})[at[2]]), text)


@cache
def _documents() -> Mapping[str, str]:
    """Return the documents of the template by name; only the bootstrap keeps its comments."""
    text = files("autoglm.gateway.envoy").joinpath("envoy.yaml").read_text("utf-8")
    first, *rest = _PART.split(text)
    parts = {
        name: _COMMENT.sub("", part).strip() + "\n"
        for name, part in zip(rest[::2], rest[1::2], strict=True)
    }
    return {"bootstrap": first, **parts}
