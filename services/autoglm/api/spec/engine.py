"""`spec.engine`: what runs the model, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from autoglm.api.schema import Part, Quantity, keyed_by

ArgName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=64)]
HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]


class EnvVar(Part):
    """One environment variable, as in a Kubernetes container."""

    name: EnvName
    """Its name."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Its value; quote numbers. Exclusive with valueFrom."""
    value_from: dict[str, Any] | None = None
    """Kubernetes' own source of a value, such as a secretKeyRef. `autoglm up` has no secrets and
    passes on the variable of the same name from its own environment."""


class Parallelism(Part):
    """How one replica is spread over devices. Their product is the number of GPUs it needs."""

    tensor: Annotated[int, Field(ge=1, le=1024)] = 1
    """Devices that share each layer; within one machine, where links are fast."""
    pipeline: Annotated[int, Field(ge=1, le=1024)] = 1
    """Groups of layers that follow one another; may cross machines."""
    data: Annotated[int, Field(ge=1, le=1024)] = 1
    """Copies of the model inside one replica, mainly for mixture-of-experts models; otherwise
    more replicas are simpler."""


class Features(Part):
    """What the engine does beyond plain generation."""

    prefix_caching: bool | None = None
    """Whether KV blocks of equal prompt beginnings are kept and shared. Absent: the engine's own
    default, which is on for text models."""


class Media(Part):
    """Where images, audio and video of requests may come from."""

    allowed_domains: Annotated[tuple[HostName, ...], Field(max_length=64)] = ()
    """Hosts that media may be fetched from over http(s), in lower case, without port or path;
    redirects are not followed. Media in data: URLs are always taken. With network.policy Strict
    the pods must be let out to them by a NetworkPolicy of your own."""


class Engine(Part):
    """What runs the model."""

    type: Literal["vllm", "echo"] = "vllm"
    """vllm serves real models. echo repeats the prompt without any weights, for trying out the
    cluster and for load tests."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^\S+$")] | None = None
    """Container image of the pods. Absent: the one the operator was installed with. `autoglm up`
    starts processes and needs none."""
    args: Annotated[dict[ArgName, Any], Field(max_length=128)] = {}
    """Further arguments of the engine by name. vLLM takes its server's options, such as
    reasoning_parser: qwen3; those with a field of their own belong there. echo takes token_rate and
    prefill_rate (tokens a second), kv_blocks (of 16 tokens) and fail (how to fail, for tests)."""
    env: Annotated[
        tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=keyed_by("name"))
    ] = ()
    """Environment variables of the engine's process."""
    parallelism: Parallelism = Parallelism()
    """How one replica is spread over devices."""
    max_num_seqs: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Most requests computed in one batch. Absent: the engine's own default; fewer keeps each
    answer fast, more raises the throughput."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Share of the device's memory (on a CPU, of the machine's) for weights and KV cache. Absent:
    the engine's own default, which takes nearly all; lower it to share a device."""
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, through which the processes of one replica talk. It counts against the
    memory limit as far as it is used. `autoglm up` uses this machine's own."""
    media: Media = Media()
    """Where images, audio and video of requests may come from."""
    features: Features = Features()
    """What the engine does beyond plain generation."""
