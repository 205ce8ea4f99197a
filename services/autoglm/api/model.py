"""`spec.model`: which weights, under which names, with which limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autoglm.api.schema import ModelName, Part

Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
Method = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Quantization(Part):
    """How numbers are stored. The engine checks the method against its version and hardware."""

    method: Method | None = None
    """Quantization of the weights in the engine's own words, such as fp8, awq or gptq. Absent: what
    the checkpoint's own configuration says."""
    kv_cache_dtype: Method | None = None
    """Number format of the KV cache, such as fp8. Absent: the model's own, which is exact; fp8
    halves the memory of long contexts at some loss of quality."""


class Adapter(Part):
    """A LoRA adapter, served beside the model under a name of its own."""

    name: ModelName
    """The model name by which clients ask for the adapter."""
    uri: Text
    """Where its weights are: a hub name, or a path as in spec.model.uri."""


class Model(Part):
    """What is served."""

    uri: Text | None = None
    """Where the weights are: a hub name (zai-org/GLM-4-9B-0414), an absolute path, or a path
    starting with ./ or ../ relative to the manifest file (`autoglm up` only). Required, except by
    the echo engine, which has no weights."""
    revision: Text | None = None
    """Branch, tag or commit on the hub. Absent: the default branch, which may change between two
    starts; set a commit to serve the same weights everywhere."""
    served_name: ModelName | None = None
    """The model name in requests. Absent: metadata.name. It can't change later, since clients
    depend on it; add an alias instead."""
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=32)] = ()
    """Further names that mean the same model."""
    tokenizer: Text | None = None
    """Where the tokenizer is, when not beside the weights: a hub name or a path as in uri."""
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Most tokens of prompt and answer together. Absent: the checkpoint's own context length; set
    a smaller one to need less KV cache a request."""
    quantization: Quantization = Quantization()
    """How weights and KV cache are stored."""
    adapters: Annotated[tuple[Adapter, ...], Field(max_length=64)] = ()
    """LoRA adapters loaded with the model."""
