"""`spec.model`: weights, served names and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import SET, ModelName, Part, Quantity, keyed_by

Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
ContextLength = Annotated[int, Field(ge=1, le=100_000_000)]
_DNS_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
Method = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Quantization(Part):
    """Number formats of weights and KV cache. The engine checks that its version and the hardware
    support them."""

    method: Method | None = None
    """Quantization of the weights by the engine's name, such as fp8, awq or gptq. Absent: as in the
    checkpoint's configuration."""
    kv_cache_dtype: Method | None = None
    """Number format of the KV cache, such as fp8. Absent: the model's format, which is exact; fp8
    halves the memory of long contexts at some loss of quality."""


class Adapter(Part):
    """A LoRA adapter, served with the model under a name of its own."""

    name: ModelName
    """The model name of the adapter in requests."""
    uri: Text
    """Location of its weights: a hub name, or a path as in spec.model.uri."""


class Cache(Part):
    """Volume for downloaded weights. `autoglm up` uses the local hub cache."""

    type: Literal["emptyDir", "pvc", "hostPath"] = "emptyDir"
    """emptyDir lives as long as the pod, so each replica downloads the weights. pvc is a
    PersistentVolumeClaim that replicas share: an existing one by claimName, or one that the
    operator creates with the given size. hostPath is a directory of the node, which outlives
    pods; the baseline and restricted Pod Security Standards reject it."""
    claim_name: Annotated[str, Field(max_length=253, pattern=_DNS_NAME)] | None = None
    """Name of an existing PersistentVolumeClaim in the resource's namespace; ReadWriteMany if
    replicas run on several nodes. For pvc only, instead of size."""
    size: Quantity | None = None
    """Size of the PersistentVolumeClaim NAME-weights, which the operator creates, and which is
    deleted with the resource. It may grow where the StorageClass allows expansion, and not shrink.
    Loading a changed model needs room for both. For pvc only, instead of claimName."""
    storage_class_name: Annotated[str, Field(max_length=253, pattern=_DNS_NAME)] | None = None
    """StorageClass of the claim that the operator creates. Absent: the cluster's default.
    Immutable."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] | None = None
    """Access mode of the claim that the operator creates. Absent: ReadWriteMany, for replicas on
    any node; ReadWriteOnce keeps all replicas on one node. Immutable."""
    path: Annotated[str, Field(max_length=1024, pattern=r"^/[^\s:]*$")] | None = None
    """Directory of the node; created if missing. Required for hostPath, invalid for other types."""
    size_limit: Quantity | None = None
    """Size limit of the volume; a pod that exceeds it is evicted. For emptyDir only. Absent: 320
    GiB for each GPU of a replica, into which the weights have to fit."""


class Model(Part):
    """The model to serve."""

    uri: Text | None = None
    """Location of the weights: a name on the Hugging Face hub (zai-org/GLM-4-9B-0414) or on
    ModelScope (ms://OWNER/MODEL[@REVISION]), an absolute path, or a path starting with ./ or ../
    relative to the manifest file (`autoglm up` only). Required, except for the echo engine, which
    has no weights."""
    revision: Text | None = None
    """Branch, tag or commit on the hub; of ms:// either here or in uri. Absent: the default branch,
    which may change between two starts; set a commit to serve the same weights everywhere."""
    served_name: ModelName | None = None
    """The model name in requests. Absent: metadata.name. Immutable, since clients depend on it; add
    an alias instead."""
    aliases: Annotated[tuple[ModelName, ...], Field(max_length=32, json_schema_extra=SET)] = ()
    """Other names of the same model in requests."""
    tokenizer: Text | None = None
    """Location of the tokenizer, if it is not with the weights: a hub name or a path as in uri."""
    max_model_len: ContextLength | None = None
    """Most tokens of prompt and completion together. Absent: the checkpoint's context length; a
    smaller value needs less KV cache per request."""
    quantization: Quantization = Quantization()
    """Number formats of weights and KV cache."""
    cache: Cache = Cache()
    """Volume for downloaded weights."""
    adapters: Annotated[
        tuple[Adapter, ...], Field(max_length=64, json_schema_extra=keyed_by("name"))
    ] = ()
    """LoRA adapters loaded with the model."""
