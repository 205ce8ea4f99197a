"""Restores the state of vLLM's front end after some tokens: text, stop strings, logprobs.

`prime` feeds tokens that exist already to a detokenizer and a logprobs processor of vLLM's, as if
they had just been generated, and keeps what they gave. Decides nothing. Called by `engine_client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from vllm.outputs import CompletionOutput
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.outputs import LogprobsLists

# Tokens between two moments at which other requests get their turn.
_TURN = 128


@dataclass(slots=True)
class Primed:
    """`steps` are the outputs, one a token; `stop_string` is one that they hold."""

    detokenizer: Any
    logprobs: Any
    steps: list[Any]
    stop_string: str | None = None

    def finish(self, index: int) -> None:
        """Mark the last step as the end of the choice."""
        if not self.steps:
            self.steps.append(CompletionOutput(index, "", [], None, None))
        self.steps[-1].finish_reason = "stop"

    def whole(self) -> list[Any]:
        """Return all steps as one, or none."""
        if not self.steps:
            return []
        last = self.steps[-1]
        made = CompletionOutput(
            index=last.index,
            text="".join(s.text for s in self.steps),
            token_ids=[i for s in self.steps for i in s.token_ids],
            cumulative_logprob=None,
            logprobs=None if last.logprobs is None else self.logprobs.logprobs[:],
            finish_reason=last.finish_reason,
        )
        return [made]


async def prime(
    tokenizer: Any, params: Any, prompt_ids: Sequence[int], index: int, token_ids: Sequence[int]
) -> Primed:
    request: Any = SimpleNamespace(
        request_id="", prompt_token_ids=prompt_ids, prompt_embeds=None, sampling_params=params
    )
    tokenizer = tokenizer if params.detokenize else None
    restored = Primed(
        IncrementalDetokenizer.from_new_request(tokenizer, request),
        LogprobsProcessor.from_new_request(tokenizer, request),
        [],
    )
    scores = restored.logprobs
    is_scored = scores.logprobs is not None
    for position, token_id in enumerate(token_ids):
        if position % _TURN == _TURN - 1:
            await asyncio.sleep(0)
        restored.stop_string = (
            restored.detokenizer.update([token_id], False) or restored.stop_string
        )
        if is_scored:
            # Their values have been delivered; what follows depends on the tokens alone.
            one = (np.array([[token_id]]), np.zeros((1, 1)), np.ones(1, dtype=int), None)
            scores._update_sample_logprobs(LogprobsLists(*one))
        step = CompletionOutput(
            index=index,
            text=restored.detokenizer.get_next_output_text(False, True),
            token_ids=[token_id],
            cumulative_logprob=None,
            logprobs=scores.logprobs[-1:] if is_scored else None,
        )
        restored.steps.append(step)
    return restored
