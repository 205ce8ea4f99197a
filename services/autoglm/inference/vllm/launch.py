"""Starts vLLM in this process: arguments, environment, engine, OpenAI app.

Decides the names and the order of vLLM's arguments, what a CPU needs, and how traces reach the
process's own provider; values and defaults are vLLM's to judge. Never opens a port and never
installs a tracer provider. Called once by the pod's app.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoglm.common.errors import ResumeImpossible
from autoglm.inference.engine import EngineOptions
from autoglm.inference.startup import Startup
from autoglm.inference.vllm.failure.orphan import announce_pod
from autoglm.inference.vllm.failure.postmortem import EngineLog, attach
from autoglm.inference.vllm.progress import watch
from autoglm.inference.vllm.replay.engine_patches import announce_name

if TYPE_CHECKING:
    from autoglm.inference.vllm.engine import VllmEngine
    from autoglm.inference.vllm.kv.events import KvEvents

_GIB = 2**30
# What decides in vLLM whether the model is compiled; a CPU runs it as written unless one is given.
_COMPILATION = frozenset({"enforce_eager", "compilation_config", "optimization_level"})
# Options of vLLM that EngineOptions has a field for.
_OWN = {
    "model": "model",
    "served_model_name": "served_name and aliases",
    "tokenizer": "tokenizer",
    "revision": "revision",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "dtype": "dtype",
    "quantization": "quantization",
    "kv_cache_dtype": "kv_cache_dtype",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "tensor_parallel_size": "tensor_parallel_size",
    "pipeline_parallel_size": "pipeline_parallel_size",
    "allowed_media_domains": "allowed_media_domains",
}


async def start(options: EngineOptions, startup: Startup | None = None) -> VllmEngine:
    """Return a running engine, noting its progress. Raises what vLLM raises; see `root_cause`."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    announce_pod()
    announce_name()
    log = EngineLog()
    watching = asyncio.create_task(
        watch(startup or Startup(time.monotonic()), options, log.messages)
    )
    # Imports make a million objects that stay; traversing them meanwhile takes a fifth of the time.
    gc.disable()
    try:
        # Import and start take seconds; the process must serve probes and handle signals meanwhile.
        launched = await asyncio.to_thread(_launch, options, log)
    except BaseException as error:
        attach(error, log.first_failure())
        log.close()
        raise
    finally:
        gc.enable()
        watching.cancel()
    try:
        return await _serve(options, log, launched)
    except BaseException:
        await asyncio.to_thread(launched.llm.shutdown)
        if launched.kv_events is not None:
            await launched.kv_events.close()
        log.close()
        raise


@dataclass(frozen=True, slots=True)
class _Launched:
    """vLLM's engine, and what it was started with."""

    llm: Any
    arguments: Any
    meters: list[Any]
    kv_events: KvEvents | None


def _launch(options: EngineOptions, log: EngineLog) -> _Launched:
    from vllm import envs
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from autoglm.inference.vllm import media
    from autoglm.inference.vllm.engine import SchedulerMeter
    from autoglm.inference.vllm.kv.events import KvEvents

    media.install()
    # Of an engine that was started before in this process.
    envs.disable_envs_cache()
    arguments = _parse(options, log)
    meters: list[SchedulerMeter] = []

    def build_meter(config: Any, index: int) -> SchedulerMeter:
        meters.append(SchedulerMeter(config, index))
        return meters[-1]

    engine_args = AsyncEngineArgs.from_cli_args(arguments)
    # The pod may read KV-cache events of one engine, and where there is no other reader.
    reads_events = (
        options.kv_events
        and engine_args.kv_events_config is None
        and engine_args.enable_prefix_caching is not False
        and engine_args.data_parallel_size == 1
    )
    kv_events = KvEvents() if reads_events else None
    with ExitStack() as unless_started:
        if kv_events is not None:
            engine_args.kv_events_config = kv_events.config
            unless_started.callback(kv_events.remove_directory)
        llm = AsyncLLM.from_engine_args(engine_args, stat_loggers=[build_meter])
        unless_started.pop_all()
    # vLLM reads the environment several times a token; its engine process enables the same cache.
    envs.enable_envs_cache()
    log.skip()
    return _Launched(llm, arguments, meters, kv_events)


def _parse(options: EngineOptions, log: EngineLog) -> Any:
    """Return vLLM's own arguments. Raises ValueError."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.logger import DEFAULT_LOGGING_CONFIG
    from vllm.platforms import current_platform
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    def reject(message: str) -> None:
        """In place of the parser's own way, which prints a usage of 900 lines and exits."""
        raise ValueError(f"vLLM does not take these arguments: {message}")

    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = reject
    arguments = parser.parse_args(command_line(options))
    validate_parsed_serve_args(arguments)
    arguments.enable_request_id_headers = True
    if arguments.tool_parser_plugin:
        ToolParserManager.import_tool_parser(arguments.tool_parser_plugin)
    if arguments.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)
    # A logging configuration of the user's own is kept.
    if not any(getattr(arguments, n, None) for n in ("log_config_file", "logging_config")):
        arguments.log_config_file = log.configure(DEFAULT_LOGGING_CONFIG)
    found = current_platform.device_type
    if options.device not in ("auto", found):
        raise ValueError(f"device {options.device} was requested, but vLLM runs on {found} here")
    if found != "cpu":
        return arguments
    unset = options.gpu_memory_utilization is None and arguments.kv_cache_memory_bytes is None
    if unset and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

        # vLLM would take 92 % of the machine's memory, and not start where less is free.
        free = int(get_memory_node_info(get_visible_memory_node()[0]).available_memory)
        arguments.kv_cache_memory_bytes = min(4 * _GIB, max(_GIB // 4, free // 16))
    if _COMPILATION.isdisjoint(_given_options(options)):
        arguments.enforce_eager = True
    return arguments


def command_line(options: EngineOptions) -> list[str]:
    """Return arguments for vLLM's parser. Raises ValueError for an option that is given twice."""
    extra = _given_options(options)
    if twice := sorted(_OWN.keys() & extra.keys()):
        raise ValueError("; ".join(f"engine_args.{n}: set {_OWN[n]} instead" for n in twice))
    own = {name: getattr(options, name) for name in _OWN if name != "served_model_name"}
    own["allowed_media_domains"] = options.allowed_media_domains or None
    own["served_model_name"] = [options.served_name or options.model, *options.aliases]
    return list(_arguments(own | extra))


def _given_options(options: EngineOptions) -> dict[str, object]:
    """vLLM's own options that were given, by name in snake case."""
    return {name.lstrip("-").replace("-", "_"): v for name, v in options.engine_args.items()}


def _arguments(settings: Mapping[str, object]) -> Iterator[str]:
    def text(value: object) -> str:
        return json.dumps(value) if isinstance(value, Mapping) else str(value)

    for name, value in settings.items():
        flag = name.replace("_", "-")
        match value:
            case None:
                continue
            case True:
                yield f"--{flag}"
            case False:
                yield f"--no-{flag}"
            case list() | tuple():
                yield f"--{flag}"
                yield from map(text, value)
            case _:
                yield f"--{flag}={text(value)}"


async def _serve(options: EngineOptions, log: EngineLog, launched: _Launched) -> VllmEngine:
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    from autoglm.inference.vllm import exceptions, grammars, request_ids
    from autoglm.inference.vllm.engine import VllmEngine
    from autoglm.inference.vllm.models import describe
    from autoglm.inference.vllm.replay.engine_client import ReplayClient, abilities
    from autoglm.inference.vllm.runtime import Runtime

    llm, arguments, kv_events = launched.llm, launched.arguments, launched.kv_events
    # Drops tracebacks that vLLM logs for streams that it rejects because of a client's error.
    for name in ("chat_completion", "completion"):
        logging.getLogger(f"vllm.entrypoints.openai.{name}.serving").addFilter(_is_news)
    if options.tracing:
        # Makes vLLM create its request spans, through the provider that this process already has.
        # An endpoint given at construction would replace the provider; set now, it only says that
        # trace headers are wanted.
        llm.observability_config.otlp_traces_endpoint = "the provider of this process"
        llm.output_processor.tracing_enabled = True
    cache = llm.vllm_config.cache_config
    if kv_events is not None and cache.enable_prefix_caching:
        kv_events.start(cache.block_size, cache.num_gpu_blocks or 0)
    tasks = await llm.get_supported_tasks()
    judge = grammars.Judge(llm.vllm_config, llm.input_processor.tokenizer)
    if "generate" in tasks and llm.input_processor.tokenizer is not None:
        await asyncio.to_thread(judge.warm_up)
    llm = ReplayClient(llm, abilities(llm), kv_events, grammars.Grammars(judge))
    app = build_app(arguments, tasks, llm.model_config)
    await init_app_state(llm, app.state, arguments, tasks)
    exceptions.install(app.state)
    grammars.install()
    request_ids.install(app.state)
    model = await asyncio.to_thread(describe, options, llm, app.state, tasks)
    return VllmEngine(Runtime(llm=llm, app=app, model=model), launched.meters, log, kv_events)


def _is_news(record: logging.LogRecord) -> bool:
    from vllm.exceptions import VLLMClientError

    known = VLLMClientError, ResumeImpossible
    return not (record.exc_info and isinstance(record.exc_info[1], known))
