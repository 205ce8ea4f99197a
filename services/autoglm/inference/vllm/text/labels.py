"""Computes how likely the model is to generate each of some labels.

A label is a path of tokens. After the prompt, and after the prompt and each inner node of the tree
that the labels make, the log-probabilities of exactly the next tokens are requested; a label's is
the sum along its path. Each request decodes one token after a prefix that the others share, so with
prefix caching a long text is computed once and not once a label.

Where the model chats, a path ends with the end of its turn, so that "out" gains nothing from a
model that is about to say "outage". Called by `engine`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest, TokenizeCompletionRequest
from vllm.inputs import tokens_input
from vllm.sampling_params import MAX_LOGPROB_TOKEN_IDS, RequestOutputKind, SamplingParams

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineRequest
from autoglm.inference.prediction import text_of
from autoglm.inference.vllm.request_ids import predict_id
from autoglm.inference.vllm.runtime import Runtime
from autoglm.inference.vllm.text.label_tree import END, Logprobs, Path, branches, log_sum, score
from autoglm.inference.vllm.tokenization import Tokenization


class Labels:
    """`Engine.label_logprobs`."""

    def __init__(self, runtime: Runtime, tokenization: Tokenization) -> None:
        self._runtime = runtime
        self._tokenization = tokenization
        # Tokens that end the model's turn.
        configured = runtime.llm.input_processor.generation_config_fields.get("eos_token_id")
        own = [configured] if isinstance(configured, int) else list(configured or ())
        ids = [runtime.llm.renderer.get_eos_token_id(), *own]
        self._stops = tuple(dict.fromkeys(i for i in ids if i is not None))
        self._chats = "chat" in runtime.model.tasks and bool(self._stops)

    async def logprobs(self, request: v1.PredictRequest, call: EngineRequest) -> list[float]:
        with self._runtime.translating("input_data"):
            adapter = self._runtime.find(request.model_name)
            self._runtime.require("classify")
            text = text_of(request)
            wanted: Any = TokenizeCompletionRequest(prompt=f"{text}\n")
            if "chat" in self._runtime.model.tasks:
                wanted = TokenizeChatRequest(messages=[{"role": "user", "content": text}])
            prompt = list((await self._tokenization.submit(wanted, call, "input_data")).tokens)
            paths: list[Path] = []
            for i, label in enumerate(request.labels):
                field = f"labels[{i}]"
                wanted = TokenizeCompletionRequest(prompt=label, add_special_tokens=False)
                tokens = (await self._tokenization.submit(wanted, call, field)).tokens
                if not tokens:
                    raise errors.InvalidRequest(f"{field} is empty.", field=field)
                paths.append((*tokens, END) if self._chats else tuple(tokens))
            read = await self._read_all(prompt, branches(paths), call, adapter, request.priority)
            return [score(path, read) for path in paths]

    async def _read_all(
        self,
        prompt: list[int],
        wanted: Mapping[Path, list[int]],
        call: EngineRequest,
        adapter: Any,
        priority: int,
    ) -> dict[Path, Logprobs]:
        options = {
            "lora_request": adapter,
            "trace_headers": call.trace_headers or None,
            "priority": self._runtime.priority(priority),
        }
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    prefix: group.create_task(
                        self._read(
                            [*prompt, *prefix], tokens, predict_id(call.request_id, i), options
                        )
                    )
                    for i, (prefix, tokens) in enumerate(wanted.items())
                }
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return {prefix: task.result() for prefix, task in tasks.items()}

    async def _read(
        self, prompt: list[int], tokens: list[int], request_id: str, options: Mapping[str, Any]
    ) -> Logprobs:
        """Return the log-probabilities of `tokens` as the next one."""
        ends = self._stops if END in tokens else ()
        ids = list(dict.fromkeys([*(t for t in tokens if t != END), *ends]))
        read: dict[int, float] = {}
        for i in range(0, len(ids), MAX_LOGPROB_TOKEN_IDS):
            part = ids[i : i + MAX_LOGPROB_TOKEN_IDS]
            params = SamplingParams(
                temperature=0.0,
                max_tokens=1,
                logprob_token_ids=part,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                skip_clone=True,
            )
            source = self._runtime.llm.generate(tokens_input(prompt), params, request_id, **options)
            async with aclosing(source) as outputs:
                final = [output async for output in outputs][-1].outputs[0]
            if not final.logprobs:
                raise errors.Cancelled("The request was aborted.")
            read |= {token: final.logprobs[0][token].logprob for token in part}
        return read | ({END: log_sum(read[t] for t in ends)} if ends else {})
