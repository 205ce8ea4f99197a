"""The names that the pinned vLLM knows, as scripts/generate_engine_facts recorded them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Names of one version of vLLM."""

    version: str
    quantization: tuple[str, ...]
    kv_cache_dtypes: tuple[str, ...]
    arguments: frozenset[str]
    """In snake case."""


@cache
def engine_facts() -> EngineFacts:
    """Return the names of the pinned vLLM."""
    text = resources.files(__package__).joinpath("engine_facts.json").read_text(encoding="utf-8")
    found = json.loads(text)
    return EngineFacts(
        version=found["vllm"],
        quantization=tuple(found["quantization"]),
        kv_cache_dtypes=tuple(found["kvCacheDtype"]),
        arguments=frozenset(found["arguments"]),
    )


def closest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean X? ` for the most similar name, empty where none is similar."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]}? " if near else ""
