"""Completions of one prompt, straight from AsyncLLM: nothing between its tokens and our chunks.

Decides how long a prompt and its completion may be, as vLLM's /v1/completions does. Called by
`engine`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from vllm.entrypoints.serve.utils.api_utils import get_max_tokens
from vllm.renderers import TokenizeParams
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineRequest
from autoglm.inference.vllm import sampling
from autoglm.inference.vllm.replay import replay_state
from autoglm.inference.vllm.runtime import Runtime
from autoglm.inference.vllm.text import results
from autoglm.validation.request_info import COMPLETION_MAX_TOKENS

# Those that a model's generation_config may set.
_MODEL_DEFAULTS = ("repetition_penalty", "temperature", "top_p", "top_k", "min_p")


@dataclass(frozen=True, slots=True)
class _Submission:
    outputs: Any
    adapter: Any
    top: int
    prompt_top: int


class Generation:
    """`Engine.generate` and `Engine.generate_stream`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        defaults = runtime.llm.model_config.get_diff_sampling_param()
        self._defaults = {k: v for k, v in defaults.items() if k in _MODEL_DEFAULTS}
        self._stops = list(defaults.get("stop_token_ids") or ())

    async def complete(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> v1.GenerateResponse:
        with self._runtime.translating(_prompt_field(request)):
            replay_state.reject_unary(request)
            sent = await self._submit(request, call, RequestOutputKind.FINAL_ONLY)
            async with aclosing(sent.outputs) as outputs:
                final = [output async for output in outputs][-1]
            return v1.GenerateResponse(
                id=call.request_id,
                model=self._runtime.served_name(sent.adapter),
                completions=[
                    results.completion(c, sent.top)
                    for c in sorted(final.outputs, key=lambda c: c.index)
                ],
                usage=results.usage(final, sum(len(c.token_ids) for c in final.outputs)),
                timing=results.timing(final.metrics),
                prompt_logprobs=results.token_logprobs(
                    final.prompt_token_ids, final.prompt_logprobs, sent.prompt_top
                ),
            )

    async def stream(
        self, request: v1.GenerateRequest, call: EngineRequest
    ) -> AsyncIterator[v1.GenerateChunk]:
        with self._runtime.translating(_prompt_field(request)):
            replay = replay_state.of_message(request)
            with replay_state.replaying(replay):
                sent = await self._submit(request, call, RequestOutputKind.DELTA)
            completion_tokens = 0
            async with aclosing(sent.outputs) as outputs:
                async for output in outputs:
                    last = len(output.outputs) - 1 if output.finished else -1
                    for i, completion in enumerate(output.outputs):
                        completion_tokens += len(completion.token_ids)
                        if replay.is_replaying:
                            continue
                        chunk = results.chunk(call.request_id, completion, sent.top)
                        if i == last:
                            chunk.usage.CopyFrom(results.usage(output, completion_tokens))
                            if timing := results.timing(output.metrics):
                                chunk.timing.CopyFrom(timing)
                        yield chunk

    async def _submit(
        self, request: v1.GenerateRequest, call: EngineRequest, kind: Any
    ) -> _Submission:
        adapter = self._runtime.find(request.model)
        self._runtime.require("generate")
        given = sampling.given(request.sampling_params)
        if kind is RequestOutputKind.DELTA and "prompt_logprobs" in given:
            raise errors.InvalidRequest(
                "prompt_logprobs are not available in a stream; call Generate.",
                field="sampling_params.prompt_logprobs",
            )
        top, prompt_top = given.get("logprobs", 0), given.get("prompt_logprobs", 0)
        llm = self._runtime.llm
        given_prompt: dict[str, Any] = {"prompt": request.text}
        if _prompt_field(request) == "token_ids":
            given_prompt = {"prompt_token_ids": list(request.token_ids.ids)}
            if not request.token_ids.ids:
                raise errors.InvalidRequest("token_ids must not be empty.", field="token_ids")
        elif not request.text:
            problem = "Set text or token_ids to what is to be completed."
            raise errors.InvalidRequest(problem, field="text")
        keep = given.pop("truncate_prompt_tokens", None)
        max_tokens = given.pop("max_tokens", COMPLETION_MAX_TOKENS)
        context = llm.model_config.max_model_len
        limits = TokenizeParams(
            max_total_tokens=context,
            max_output_tokens=max_tokens,
            truncate_prompt_tokens=keep,
            truncation_side="left" if keep is not None else None,
            max_total_tokens_param="max_model_len",
            max_output_tokens_param="max_tokens",
        )
        parsed = parse_model_prompt(llm.model_config, given_prompt)
        (prompt,) = await llm.renderer.render_cmpl_async([parsed], limits)
        prompt_len = len(prompt["prompt_token_ids"])
        if prompt_len >= context:
            raise errors.InvalidRequest(
                f"The prompt has {prompt_len} tokens and leaves no room for a completion: "
                f"{self._runtime.model.name} takes {context} tokens in all.",
                field=_prompt_field(request),
            )
        given["stop_token_ids"] = [*given.get("stop_token_ids", ()), *self._stops]
        wanted = sampling.constraint(request.response_format)
        params = SamplingParams(
            **self._defaults | given,
            max_tokens=get_max_tokens(context, max_tokens, prompt_len, {}),
            structured_outputs=StructuredOutputsParams(**wanted) if wanted else None,
            output_kind=kind,
            skip_clone=True,
        )
        outputs = llm.generate(
            prompt,
            params,
            call.request_id,
            lora_request=adapter,
            trace_headers=call.trace_headers or None,
            priority=self._runtime.priority(request.priority),
            session_id=request.session_id or None,
        )
        return _Submission(outputs, adapter, top, prompt_top)


def _prompt_field(request: v1.GenerateRequest) -> str:
    return request.WhichOneof("prompt") or "text"
