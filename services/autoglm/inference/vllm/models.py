"""Describes the served model and its adapters. Called by `launch` once and by `engine`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from autoglm import v1
from autoglm.inference.engine import EngineOptions

# How byte-level BPE writes the 256 bytes as characters: printable ones as they are, the rest moved
# up to U+0100 and beyond.
_PRINTABLE = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_BYTE_LEVEL = frozenset(map(chr, _PRINTABLE | set(range(0x100, 0x144))))
_LENGTHENING = ("ByteLevel", "Prepend")
_SENTENCEPIECE_SPACE = "\u2581"


def describe(options: EngineOptions, llm: Any, state: Any, tasks: Sequence[str]) -> v1.Model:
    """Return the model. Takes long for a large vocabulary: not for the event loop."""
    config = llm.model_config
    tokenizer = llm.renderer.tokenizer
    generates = "generate" in tasks
    # A conversation is put into one prompt by a template.
    template = state.online_renderer.chat_template or getattr(tokenizer, "chat_template", None)
    able = {
        "generate": generates,
        "chat": generates and bool(template),
        "classify": generates,
        "embed": "embed" in tasks,
        "tokenize": True,
    }
    return v1.Model(
        name=options.served_name or options.model,
        aliases=options.aliases,
        max_model_len=config.max_model_len,
        max_token_bytes=bytes_bound(tokenizer),
        tasks=[name for name, is_able in able.items() if is_able],
        uri=options.model,
        dtype=str(config.dtype).removeprefix("torch."),
        quantization=config.quantization or "",
        engine="vllm",
        created=int(time.time()),
        resumable=generates,
    )


def describe_adapter(model: v1.Model, name: str, path: str) -> v1.Model:
    adapter = v1.Model(name=name, parent=model.name, uri=path)
    described = v1.Model()
    described.CopyFrom(model)
    described.ClearField("aliases")
    described.MergeFrom(adapter)
    return described


def bytes_bound(tokenizer: Any) -> int:
    """Return the most bytes of text that a token stands for; 0 where nothing bounds them.

    Only byte-level tokenizers keep every byte: others drop or replace some, normalizers may make
    text shorter, and added tokens may take the white space around them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return 0
    pre = backend.pre_tokenizer
    steps = pre if _name(pre) == "Sequence" else (pre,)
    if not any(_name(step) == "ByteLevel" for step in steps):
        return 0
    if backend.normalizer is not None and _name(backend.normalizer) not in _LENGTHENING:
        return 0
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    if any(token.lstrip or token.rstrip for token in added):
        return 0
    return longest_token(tokenizer.get_vocab())


def _name(part: Any) -> str:
    return type(part).__name__


def longest_token(vocabulary: Iterable[str]) -> int:
    """Bytes of text that the longest entry stands for."""
    sizes = (
        len(token)
        if _BYTE_LEVEL.issuperset(token)
        else len(token.replace(_SENTENCEPIECE_SPACE, " ").encode(errors="replace"))
        for token in vocabulary
    )
    return max(sizes, default=0)
