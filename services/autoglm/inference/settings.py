"""Settings of a pod, and what they mean for each engine. Read once by the pod's app.

A `Fault` of the echo engine is parsed from `--echo-fail KIND[=N]`, or from `<|echo KIND=N|>` in a
prompt for the kinds that concern one request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import AfterValidator, AliasChoices, Field

from autoglm.api.spec.operations import Startup
from autoglm.api.uri import location_of
from autoglm.common.settings import Address, ServiceSettings, StringList, short_variable
from autoglm.common.tls import TlsFiles
from autoglm.inference.engine import Device, EngineOptions
from autoglm.validation import bounds

FaultKind = Literal["start", "after-tokens", "hang", "die-after-requests"]
_FAULT_IN_PROMPT = re.compile(r"<\|echo (after-tokens|hang)(?:=(\d+))?\|>")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """start: the engine does not come up. after-tokens: every request fails after N tokens.
    hang: every request stops giving tokens after N. die-after-requests: the engine dies when
    request N+1 comes."""

    kind: FaultKind
    count: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    token_rate: float = 0.0
    """Tokens per second of each sequence; 0 means as fast as can be."""
    prefill_rate: float = 0.0
    """Prompt tokens per second; 0 means at once."""

    @property
    def token_seconds(self) -> float:
        return 1 / self.token_rate if self.token_rate else 0.0

    def prefill_seconds(self, tokens: int) -> float:
        return tokens / self.prefill_rate if self.prefill_rate else 0.0


@dataclass(frozen=True, slots=True)
class EchoSettings:
    model_name: str = "echo"
    aliases: tuple[str, ...] = ()
    max_model_len: int = 8192
    max_num_seqs: int = 64
    kv_blocks: int = 4096
    kv_events: bool = True
    rates: Rates = Rates()
    fault: Fault | None = None


def parse_fault(text: str) -> Fault:
    """Raises ValueError with what is allowed."""
    kind, equals, count = text.partition("=")
    if kind not in get_args(FaultKind) or (equals and not count.isdigit()):
        raise ValueError(
            f"{text!r} is not KIND or KIND=N with KIND of {', '.join(get_args(FaultKind))}"
        )
    return Fault(cast(FaultKind, kind), int(count or 0))


def fault_in(prompt: str) -> Fault | None:
    found = _FAULT_IN_PROMPT.search(prompt)
    return Fault(cast(FaultKind, found[1]), int(found[2] or 0)) if found else None


def _pairs(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        name, equals, _ = value.partition("=")
        if not (name and equals):
            raise ValueError(f"{value!r} is not NAME=VALUE")
    return values


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not _HOST.fullmatch(value):
            raise ValueError(f"{value!r} is no host name: leave out scheme, port and path")
    return tuple(value.lower() for value in values)


def _fault(value: str) -> str:
    if value:
        parse_fault(value)
    return value


Pairs = Annotated[StringList, AfterValidator(_pairs)]


class InferenceSettings(ServiceSettings):
    """Settings of `autoglm inference`."""

    engine: Literal["vllm", "echo"] = "vllm"
    """vllm serves a model; echo returns the prompt's own words, for tests and load."""
    model_path: str = Field(default="", validation_alias=short_variable("MODEL_PATH"))
    """Directory of a checkpoint, or its name on a hub: ORG/NAME, or ms://ORG/NAME of ModelScope."""
    model_name: str = Field(default="", validation_alias=short_variable("MODEL_NAME"))
    """Name that clients request; the model path when empty."""
    model_alias: StringList = ()
    """Another name of the same model."""
    tokenizer: str = ""
    """Directory or hub name, where the model does not bring its own tokenizer."""
    revision: str = ""
    """Branch, tag or commit on the hub."""
    adapter: Pairs = ()
    """A LoRA adapter as NAME=PATH; clients request it by its name."""
    device: Device = Field(default="auto", validation_alias=short_variable("DEVICE"))
    """Where to compute: cpu, cuda, or auto for what the installed vLLM is built for."""
    dtype: str = ""
    """Data type of the weights, such as bfloat16; the checkpoint's own when empty."""
    quantization: str = ""
    """Quantization method, such as fp8, awq or gptq; the checkpoint's own when empty."""
    kv_cache_dtype: str = ""
    """Data type of the KV cache, such as fp8; the weights' when empty."""
    max_model_len: int | None = Field(default=None, gt=0)
    """Tokens that prompt and completion may have together; the checkpoint's own when not set."""
    max_num_seqs: int | None = Field(
        default=None,
        gt=0,
        validation_alias=AliasChoices(
            "AUTOGLM_MAX_NUM_SEQS", "AUTOGLM_MAX_BATCH_SIZE", "MAX_BATCH_SIZE"
        ),
    )
    """Requests that the engine works on at once, the largest batch; vLLM's own when not set."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of the device's memory that the engine may take."""
    tensor_parallel_size: int = Field(default=1, gt=0)
    """GPUs that each layer is split over."""
    pipeline_parallel_size: int = Field(default=1, gt=0)
    """Groups of GPUs that the layers are spread over."""
    allowed_media_domain: Annotated[StringList, AfterValidator(_hosts)] = ()
    """A host that images, audio and video of requests may be fetched from over http(s); may be
    repeated. None given, media come as data: URLs only. Redirects are not followed."""
    engine_arg: Pairs = ()
    """Any other option of vLLM's server as NAME=VALUE, such as tool_call_parser=hermes."""
    grpc_address: Address = "127.0.0.1:50051"
    """Where to serve gRPC; port 0 picks a free one."""
    http_address: Address = "127.0.0.1:8000"
    """Where to serve REST."""
    metrics_address: Address = "127.0.0.1:9090"
    """Where to serve metrics and probes, always without TLS."""
    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """Largest request to read, in bytes."""
    max_messages: int = Field(default=bounds.DEFAULT_MAX_MESSAGES, gt=0)
    """Most messages of one chat request; gateways have the same setting."""
    gather_milliseconds: float = Field(default=60.0, ge=0)
    """Longest time that tokens after the first wait for more, while many streams run; 0 is off."""
    kv_events: bool = True
    """Report to gateways which prompt blocks are in the KV cache; vLLM without data parallelism."""
    drain_delay_seconds: float = Field(default=1.0, ge=0)
    """How long new requests are still served after SIGTERM, until every gateway has noticed."""
    startup_stall_seconds: float = Field(default=Startup().stall_seconds, gt=0)
    """Seconds without progress of the engine's start (download, load, compilation, warm-up) after
    which the pod ends. A start that makes progress may take any time."""
    termination_message_file: str = "/dev/termination-log"
    """Where to write why the pod failed; written only if it exists or can be created."""
    echo_token_rate: float = Field(default=0.0, ge=0)
    """Echo engine: tokens a second for each sequence; 0 is as fast as can be."""
    echo_prefill_rate: float = Field(default=0.0, ge=0)
    """Echo engine: prompt tokens a second; 0 is at once."""
    echo_kv_blocks: int = Field(default=4096, gt=0)
    """Echo engine: KV-cache blocks of 16 tokens."""
    echo_fail: Annotated[str, AfterValidator(_fault)] = ""
    """Echo engine: fail as KIND[=N] with KIND of start, after-tokens, hang, die-after-requests."""

    @property
    def server_tls(self) -> TlsFiles:
        return TlsFiles(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def content_bounds(self) -> bounds.Bounds:
        return bounds.Bounds(messages=self.max_messages)

    @property
    def served_name(self) -> str:
        return self.model_name or location_of(self.model_path).repository[0] or self.engine

    def engine_options(self) -> EngineOptions:
        """For vLLM."""
        engine_args: dict[str, object] = {}
        if self.adapter:
            engine_args = {"enable_lora": True, "lora_modules": list(self.adapter)}
        for pair in self.engine_arg:
            name, _, text = pair.partition("=")
            engine_args[name] = _value(text)
        return EngineOptions(
            model=self.model_path,
            served_name=self.model_name,
            aliases=self.model_alias,
            tokenizer=self.tokenizer or None,
            revision=self.revision or None,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            dtype=self.dtype or None,
            quantization=self.quantization or None,
            kv_cache_dtype=self.kv_cache_dtype or None,
            gpu_memory_utilization=self.gpu_memory_utilization,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            device=self.device,
            allowed_media_domains=self.allowed_media_domain,
            engine_args=engine_args,
            kv_events=self.kv_events,
            tracing=self.traces != "none",
        )

    def echo_settings(self) -> EchoSettings:
        defaults = EchoSettings()
        return EchoSettings(
            model_name=self.served_name,
            aliases=self.model_alias,
            max_model_len=self.max_model_len or defaults.max_model_len,
            max_num_seqs=self.max_num_seqs or defaults.max_num_seqs,
            kv_blocks=self.echo_kv_blocks,
            kv_events=self.kv_events,
            rates=Rates(self.echo_token_rate, self.echo_prefill_rate),
            fault=parse_fault(self.echo_fail) if self.echo_fail else None,
        )


def _value(text: str) -> object:
    """Parse true, false, lists and mappings as JSON; everything else is vLLM's to read."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | list | dict) else text
