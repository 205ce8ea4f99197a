"""Starts vLLM in this process: arguments, environment, engine, OpenAI app.

Decides what a CPU needs and how traces reach the process's own provider. Never opens a port and
never installs a tracer provider. Called once by the pod's app.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoglm.common.errors import ResumeImpossible
from autoglm.inference.engine import EngineOptions
from autoglm.inference.vllm.arguments import command_line, given_options
from autoglm.inference.vllm.failure.orphan import announce_pod
from autoglm.inference.vllm.failure.postmortem import EngineLog, attach
from autoglm.inference.vllm.replay.engine_patches import announce_name

if TYPE_CHECKING:
    from autoglm.inference.vllm.engine import VllmEngine
    from autoglm.inference.vllm.kv.events import KvEvents

_GIB = 2**30
# What decides in vLLM whether the model is compiled; a CPU runs it as written unless one is given.
_COMPILATION = frozenset({"enforce_eager", "compilation_config", "optimization_level"})


async def start(options: EngineOptions) -> VllmEngine:
    """Return a running engine. Raises what vLLM raises; see `root_cause`."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    announce_pod()
    announce_name()
    log = EngineLog()
    try:
        # Import and start take seconds; the process must serve probes and handle signals meanwhile.
        launched = await asyncio.to_thread(_launch, options, log)
    except BaseException as error:
        attach(error, log.first_failure())
        log.close()
        raise
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
    from autoglm.inference.vllm.kv.events import KvEvents
    from autoglm.inference.vllm.load import SchedulerMeter

    media.install()
    # Of an engine that was started before in this process.
    envs.disable_envs_cache()
    arguments = _parse(options, log)
    meters: list[SchedulerMeter] = []

    def build_meter(config: Any, index: int) -> SchedulerMeter:
        meters.append(SchedulerMeter(config, index))
        return meters[-1]

    engine_args = AsyncEngineArgs.from_cli_args(arguments)
    kv_events = KvEvents() if options.kv_events and _can_read_events(engine_args) else None
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


def _can_read_events(engine_args: Any) -> bool:
    """Return whether the pod may read KV-cache events: one engine, and no other reader."""
    return (
        engine_args.kv_events_config is None
        and engine_args.enable_prefix_caching is not False
        and engine_args.data_parallel_size == 1
    )


def _parse(options: EngineOptions, log: EngineLog) -> Any:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.logger import DEFAULT_LOGGING_CONFIG
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser())
    parser.error = _reject
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
    _fit_device(options, arguments)
    return arguments


def _reject(message: str) -> None:
    """Raise, in place of the parser, which prints a usage of 900 lines and exits."""
    raise ValueError(f"vLLM does not take these arguments: {message}")


def _fit_device(options: EngineOptions, arguments: Any) -> None:
    from vllm.platforms import current_platform

    found = current_platform.device_type
    if options.device not in ("auto", found):
        raise ValueError(f"device {options.device} was requested, but vLLM runs on {found} here")
    unset = options.gpu_memory_utilization is None and arguments.kv_cache_memory_bytes is None
    if found == "cpu" and unset and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        arguments.kv_cache_memory_bytes = _cpu_kv_cache_bytes()
    if found == "cpu" and _COMPILATION.isdisjoint(given_options(options)):
        arguments.enforce_eager = True


def _cpu_kv_cache_bytes() -> int:
    """vLLM would take 92 % of the machine's memory, and not start where less is free."""
    from vllm.utils.cpu_resource_utils import get_memory_node_info, get_visible_memory_node

    free = int(get_memory_node_info(get_visible_memory_node()[0]).available_memory)
    return min(4 * _GIB, max(_GIB // 4, free // 16))


async def _serve(options: EngineOptions, log: EngineLog, launched: _Launched) -> VllmEngine:
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    from autoglm.inference.vllm import grammars, response_ids
    from autoglm.inference.vllm.engine import VllmEngine
    from autoglm.inference.vllm.failure import fatal
    from autoglm.inference.vllm.models import describe
    from autoglm.inference.vllm.replay.engine_client import ReplayClient, abilities
    from autoglm.inference.vllm.runtime import Runtime

    llm, arguments, kv_events = launched.llm, launched.arguments, launched.kv_events
    _quieten()
    if options.tracing:
        _join_traces(llm)
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
    fatal.install()
    grammars.install()
    fatal.complete(app.state)
    response_ids.install(app.state)
    model = await asyncio.to_thread(describe, options, llm, app.state, tasks)
    return VllmEngine(Runtime(llm=llm, app=app, model=model), launched.meters, log, kv_events)


def _join_traces(llm: Any) -> None:
    """Make vLLM create its request spans, through the provider that this process already has.

    An endpoint given at construction would replace the provider; set now, it only says that trace
    headers are wanted.
    """
    llm.observability_config.otlp_traces_endpoint = "the provider of this process"
    llm.output_processor.tracing_enabled = True


def _quieten() -> None:
    """Drop tracebacks that vLLM logs for streams that it rejects because of a client's error."""
    for name in ("chat_completion", "completion"):
        logger = logging.getLogger(f"vllm.entrypoints.openai.{name}.serving")
        logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    from vllm.exceptions import VLLMClientError

    known = VLLMClientError, ResumeImpossible
    return not (record.exc_info and isinstance(record.exc_info[1], known))
