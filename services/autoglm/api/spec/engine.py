"""`spec.engine`: the engine that runs the model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from autoglm.api.schema import IMAGE, Part, Quantity, keyed_by

ArgName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
# The rules report a malformed name in a sentence; the CRD has the pattern.
Image = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=r"^\S+$", json_schema_extra={"pattern": IMAGE}),
]
MaxNumSeqs = Annotated[int, Field(ge=1, le=1_000_000)]
MemoryShare = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]


class EnvVar(Part):
    """One environment variable, as in a Kubernetes container."""

    name: EnvName
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Value of the variable; quote numbers. Exclusive with valueFrom."""
    value_from: dict[str, Any] | None = None
    """Source of the value as in Kubernetes, such as a secretKeyRef. `autoglm up` reads Secrets and
    ConfigMaps of its manifests, and else the variable of the same name of its environment."""


class Parallelism(Part):
    """Distribution of one replica over tensor * pipeline * data GPUs."""

    tensor: Annotated[int, Field(ge=1, le=1024)] | None = None
    """GPUs that share each layer; on one machine, where links are fast. Absent: all GPUs of
    spec.profile, divided by pipeline * data; 1 without a profile."""
    pipeline: Annotated[int, Field(ge=1, le=1024)] = 1
    """Pipeline parallelism: number of stages of consecutive layers. All stages of a replica run in
    one pod, so on one node."""
    data: Annotated[int, Field(ge=1, le=1024)] = 1
    """Copies of the model in one replica, mainly for mixture-of-experts models; for other models
    more replicas are simpler."""

    @property
    def devices(self) -> int:
        """Return the GPUs of one replica."""
        return (self.tensor or 1) * self.pipeline * self.data


class Features(Part):
    """Features of the engine."""

    prefix_caching: bool | None = None
    """Whether KV blocks of equal prefixes are cached and shared. Absent: the engine's default,
    which is on for text models."""


class Media(Part):
    """Sources of images, audio and video in requests."""

    allowed_domains: Annotated[tuple[HostName, ...], Field(max_length=64)] = ()
    """Hosts from which media may be fetched over http(s), in lower case, without port or path;
    redirects are not followed. Media in data: URLs are always accepted. With network.policy Strict
    you also need a NetworkPolicy of your own that allows egress to them."""


class Engine(Part):
    """The engine that runs the model."""

    type: Literal["vllm", "echo"] = "vllm"
    """vllm serves models. echo repeats the prompt and needs no weights, for trying out a cluster
    and for load tests."""
    image: Image | None = None
    """Container image of the pods; with one of its own, names of vLLM's quantization methods and
    arguments are not checked. Absent: the operator's setting. `autoglm up` starts processes
    and needs none."""
    args: Annotated[dict[ArgName, Any], Field(max_length=128)] = {}
    """Further arguments of the engine by name. vllm accepts the options of vLLM's server, such as
    reasoning_parser: qwen3, except those that are fields of this resource. echo accepts token_rate
    and prefill_rate (tokens per second), kv_blocks (of 16 tokens) and fail (a fault for tests, as
    KIND[=N], such as after-tokens=5).
    """
    env: Annotated[
        tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=keyed_by("name"))
    ] = ()
    """Environment variables of the engine's process."""
    parallelism: Parallelism = Parallelism()
    """How one replica is distributed over GPUs."""
    max_num_seqs: MaxNumSeqs | None = None
    """Maximum number of requests in one batch. Absent: the engine's default. A lower number reduces
    latency, a higher one raises
    throughput."""
    gpu_memory_utilization: MemoryShare | None = None
    """Share of the device's memory (on a CPU, of the machine's) for weights and KV cache. Absent:
    the engine's default, which is nearly all; lower it to share a device."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, through which the processes of one replica communicate. Used pages count
    against the memory limit. `autoglm up` uses the machine's."""
    media: Media = Media()
    """Sources of images, audio and video in requests."""
    features: Features = Features()
    """Features of the engine."""
