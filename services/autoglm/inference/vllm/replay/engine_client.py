"""vLLM's engine client with token replay: records the tokens of a stream, or resumes a broken one.

Everything that generates text in this pod calls `ReplayClient` instead of AsyncLLM; so this is
where the names of a prompt's blocks meet its tokens (`kv_events`). Without a
state of `replaying` it changes nothing. With one that names a broken stream, `generate` first gives
the outputs which that stream has had already, so that vLLM's serving classes reach the state that
they had on the other pod, and then what the engine generates from there. Built by `launch`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass
from typing import Any

from vllm.outputs import RequestOutput
from vllm.utils.async_utils import merge_async_iterators
from vllm.v1.engine.output_processor import RequestOutputCollector

from autoglm.inference.kv import cache_salt
from autoglm.inference.vllm.grammars import Grammars
from autoglm.inference.vllm.kv.events import KvEvents
from autoglm.inference.vllm.replay import engine_patches
from autoglm.inference.vllm.replay.replay_state import (
    Abilities,
    ReplayState,
    current_state,
    objection,
    objection_to_tokens,
)
from autoglm.inference.vllm.replay.restored import Primed, prime
from autoglm.validation.openai_stream import ResumedChoice

# In extra_args, for `_add_started` to find what belongs to a request.
_START = "autoglm_start"
# In place of a number of cached tokens.
_UNKNOWN = -1


class StepwiseCollector(RequestOutputCollector):  # type: ignore[misc]  # vLLM is not typed
    """Keeps outputs that are not read yet separate, where vLLM's own class merges them."""

    def put(self, output: Any) -> None:
        self.waiting.append(output)
        self.ready.set()

    async def get(self) -> Any:
        while not self.waiting:
            self.ready.clear()
            await self.ready.wait()
        return self.get_nowait()

    def get_nowait(self) -> Any:
        output = self.waiting.popleft() if self.waiting else None
        if isinstance(output, Exception):
            raise output
        return output

    @classmethod
    def become(cls, collector: Any) -> deque[Any]:
        """Turn a collector of vLLM's that is still empty into one of these."""
        collector.__class__ = cls
        collector.waiting = deque()
        waiting: deque[Any] = collector.waiting
        return waiting


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of `generate`."""

    replay: ReplayState
    prompt: Any
    params: Any
    request_id: str
    options: dict[str, Any]

    @property
    def choices(self) -> dict[int, ResumedChoice]:
        """Return the delivered tokens of each choice."""
        given = self.replay.choices or {}
        return {i: given.get(i, ResumedChoice(i)) for i in range(self.params.n or 1)}

    def output(self, completions: list[Any]) -> RequestOutput:
        ids = self.prompt["prompt_token_ids"]
        return RequestOutput(
            self.request_id, self.prompt.get("prompt"), ids, None, completions, finished=False
        )


@dataclass(frozen=True, slots=True)
class _Start:
    """The initial state in the front end of a request that is about to be added."""

    replay: ReplayState
    restored: Primed | None = None


def salted(prompt: Any) -> Any:
    """Return the prompt with the cache salt of the request being served, where it has one."""
    if isinstance(prompt, str):
        prompt = {"prompt": prompt}
    if not isinstance(prompt, Mapping):
        return prompt
    if "decoder_prompt" in prompt:
        return {**prompt, "decoder_prompt": salted(prompt["decoder_prompt"])}
    salt = cache_salt.effective(prompt.get("cache_salt"))
    return {**prompt, "cache_salt": salt} if salt else prompt


class ReplayClient:
    """Has all attributes of the AsyncLLM in it."""

    def __init__(
        self,
        llm: Any,
        abilities: Abilities,
        kv_events: KvEvents | None = None,
        grammars: Grammars | None = None,
    ) -> None:
        self._llm = llm
        self._grammars = grammars
        self._kv_events = kv_events
        self._abilities = abilities
        self._starts: dict[str, _Start] = {}
        self._numbers = itertools.count()
        self._add_request = llm.output_processor.add_request
        llm.output_processor.add_request = self._add_started

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[Any, None]:
        prompt = salted(prompt)
        if self._kv_events is not None:
            self._kv_events.requested(prompt, options.get("lora_request"))
        replay = current_state()
        outputs: AsyncGenerator[Any, None] = (
            self._llm.generate(prompt, sampling_params, request_id, **options)
            if replay is None
            else self._recorded(_Request(replay, prompt, sampling_params, request_id, options))
        )
        if self._grammars is None or sampling_params.structured_outputs is None:
            return outputs
        return self._checked(self._grammars, sampling_params, outputs)

    def encode(self, prompt: Any, *details: Any, **options: Any) -> AsyncGenerator[Any, None]:
        outputs: AsyncGenerator[Any, None] = self._llm.encode(salted(prompt), *details, **options)
        return outputs

    async def _checked(
        self, grammars: Grammars, params: Any, outputs: AsyncGenerator[Any, None]
    ) -> AsyncGenerator[Any, None]:
        async with aclosing(outputs):
            await grammars.check(params)
            async for output in outputs:
                yield output

    async def _recorded(self, request: _Request) -> AsyncGenerator[Any, None]:
        replay = request.replay
        source = self._start(request) if replay.choices is None else self._resumed(request)
        async with aclosing(source) as outputs:
            async for output in outputs:
                if not replay.is_replaying:
                    for completion in output.outputs:
                        replay.record(completion.index, completion.token_ids)
                yield output

    async def _resumed(self, request: _Request) -> AsyncGenerator[Any, None]:
        replay, params = request.replay, request.params
        if reason := objection(self._abilities, params, is_stepwise=replay.is_stepwise):
            raise replay.reject(reason)
        restored = {i: await self._primed(request, c) for i, c in request.choices.items()}
        # Makes the serving classes send the roles of choices that have not begun.
        yield request.output([])
        for choice in restored.values():
            for step in choice.steps if replay.is_stepwise else choice.whole():
                yield request.output([step])
        replay.is_replaying = False
        async with aclosing(self._continued(request, restored)) as outputs:
            async for output in outputs:
                yield output

    async def _primed(self, request: _Request, choice: ResumedChoice) -> Primed:
        params, prompt_ids = request.params, request.prompt["prompt_token_ids"]
        tokenizer = self._llm.renderer.tokenizer
        restored = await prime(tokenizer, params, prompt_ids, choice.index, choice.token_ids)
        if choice.finished:
            restored.finish(choice.index)
            return restored
        # The tokens that end a choice, which vLLM adds to the parameters later.
        resolved = copy(params)
        resolved.stop_token_ids = list(params.stop_token_ids or ())
        resolved._all_stop_token_ids = set()
        resolved.update_from_generation_config(
            self._llm.input_processor.generation_config_fields,
            self._llm.renderer.get_eos_token_id(),
        )
        stops = {*resolved.stop_token_ids, resolved.eos_token_id} - {None}
        reason = objection_to_tokens(self._abilities, params, len(prompt_ids), choice, stops)
        if restored.stop_string is not None and not reason:
            reason = "its text holds a stop string, yet its end was not delivered"
        if reason:
            raise request.replay.reject(reason)
        return restored

    async def _continued(
        self, request: _Request, restored: dict[int, Primed]
    ) -> AsyncGenerator[Any, None]:
        """Send one request to the engine for each unfinished choice, as vLLM splits them."""
        indices = [i for i, c in request.choices.items() if not c.finished]
        sources = [self._start(request, i, restored[i]) for i in indices]
        unfinished = len(sources)
        if not sources:
            return
        async with aclosing(merge_async_iterators(*sources)) as outputs:
            async for position, output in outputs:
                unfinished -= output.finished
                output.finished = unfinished == 0
                for completion in output.outputs:
                    completion.index = indices[position]
                yield output

    async def _start(
        self, request: _Request, index: int = 0, restored: Primed | None = None
    ) -> AsyncGenerator[Any, None]:
        params = copy(request.params)
        key = f"{request.request_id} {next(self._numbers)}"
        params.extra_args = {**(params.extra_args or {}), _START: key}
        if restored is not None:
            params.n = 1
            params.seed = None if params.seed is None else params.seed + index
            ids = [i for step in restored.steps for i in step.token_ids]
            params.extra_args |= engine_patches.extra_args(ids)
        self._starts[key] = _Start(request.replay, restored)
        outputs = self._llm.generate(request.prompt, params, request.request_id, **request.options)
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    if restored is not None and restored.steps:
                        # An engine that starts from the beginning reports how much of the prompt
                        # was cached; one that resumes does not. The patches exclude it, but a wrong
                        # response would be worse than an error.
                        if output.num_cached_tokens != _UNKNOWN:
                            raise request.replay.reject("the engine restarted the request")
                        output.num_cached_tokens = 0
                    yield output
        finally:
            del self._starts[key]

    def _add_started(self, request: Any, *details: Any, **named: Any) -> None:
        """Add a request, in place of OutputProcessor.add_request."""
        self._add_request(request, *details, **named)
        extra = getattr(request.sampling_params, "extra_args", None) or {}
        start = self._starts.get(extra.get(_START, ""))
        state = self._llm.output_processor.request_states.get(request.request_id)
        if start is None or state is None:
            return
        if start.replay.is_stepwise and not isinstance(state.queue, StepwiseCollector):
            start.replay.backlogs.append(StepwiseCollector.become(state.queue))
        if start.restored is not None:
            state.detokenizer = start.restored.detokenizer
            state.logprobs_processor = start.restored.logprobs
            state.sent_tokens_offset = len(start.restored.steps)
            if start.restored.steps:
                state.num_cached_tokens = _UNKNOWN


def abilities(llm: Any) -> Abilities:
    """Return what this engine can do for resumed requests."""
    from vllm.platforms import current_platform

    config = llm.vllm_config
    speculates = config.speculative_config is not None
    # The V2 runner draws by seed and position, the V1 runner on a CPU once a token.
    draws_once = current_platform.is_cpu() and not config.model_config.use_fp64_gumbel
    return Abilities(
        is_patched=engine_patches.is_installed(),
        vocabulary=config.model_config.get_vocab_size(),
        max_model_len=config.model_config.max_model_len,
        is_seed_replayable=not speculates and (config.use_v2_model_runner or draws_once),
        has_stepwise_outputs=not speculates and config.scheduler_config.stream_interval == 1,
    )
