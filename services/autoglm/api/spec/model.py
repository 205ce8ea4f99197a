"""`spec.model`: which weights, under which names, with which limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import SET, ModelName, Part, Quantity, keyed_by

Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
_DNS_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
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


class Cache(Part):
    """Where a pod keeps downloaded weights. `autoglm up` uses this machine's own cache."""

    type: Literal["emptyDir", "pvc", "hostPath"] = "emptyDir"
    """emptyDir lives as long as the pod, so each replica downloads for itself. pvc is a
    PersistentVolumeClaim that replicas share. hostPath is a directory of the node, which outlives
    pods; the baseline and restricted Pod Security Standards refuse it."""
    claim_name: Annotated[str, Field(max_length=253, pattern=_DNS_NAME)] | None = None
    """Name of the PersistentVolumeClaim, in the resource's namespace; ReadWriteMany where replicas
    run on several nodes. For pvc only, and required there."""
    path: Annotated[str, Field(max_length=1024, pattern=r"^/[^\s:]*$")] | None = None
    """Directory of the node; made when missing. For hostPath only, and required there."""
    size_limit: Quantity | None = None
    """Most that may be kept; a pod that goes over it is evicted. For emptyDir only. Absent: as much
    as the node's disk holds."""


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
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=32, json_schema_extra=SET)] = ()
    """Further names that mean the same model."""
    tokenizer: Text | None = None
    """Where the tokenizer is, when not beside the weights: a hub name or a path as in uri."""
    max_model_len: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Most tokens of prompt and answer together. Absent: the checkpoint's own context length; set
    a smaller one to need less KV cache a request."""
    quantization: Quantization = Quantization()
    """How weights and KV cache are stored."""
    cache: Cache = Cache()
    """Where a pod keeps downloaded weights."""
    adapters: Annotated[
        tuple[Adapter, ...], Field(max_length=64, json_schema_extra=keyed_by("name"))
    ] = ()
    """LoRA adapters loaded with the model."""
