"""How busy the engine is, from vLLM's scheduler and from the requests this process has submitted.

The scheduler reports after each step, so a request just submitted is not in its figures yet; the
output processor knows it at once. Never calls the engine process. Read by `engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from autoglm.inference.engine import EngineLoad


class SchedulerMeter(StatLoggerBase):  # type: ignore[misc]  # vLLM is not followed by mypy
    """The last figures of one engine's scheduler."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.running = 0
        self.kv_cache_usage = 0.0

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.kv_cache_usage = scheduler_stats.kv_cache_usage

    def log_engine_initialized(self) -> None:
        """Nothing to say; vLLM's own loggers do."""


def read_load(llm: Any, meters: Sequence[SchedulerMeter], adapters: Sequence[str]) -> EngineLoad:
    states = llm.output_processor.request_states
    unfinished = len(states)
    running = min(unfinished, sum(m.running for m in meters))
    # The scheduler reports nothing after an abort, so its last figure may be of requests now gone.
    usage = sum(m.kv_cache_usage for m in meters) / len(meters) if unfinished else 0.0
    cache = llm.vllm_config.cache_config
    return EngineLoad(
        running=running,
        waiting=unfinished - running,
        kv_cache_usage=usage,
        tokens_in_flight=sum(s.prompt_len + s.stats.num_generation_tokens for s in states.values()),
        max_num_seqs=llm.vllm_config.scheduler_config.max_num_seqs * len(meters),
        num_kv_blocks=cache.num_gpu_blocks or 0,
        kv_block_size=cache.block_size or 0,
        adapters=tuple(adapters),
    )
