"""vLLM's outputs as the API's messages. Pure; called for every token, so it does little.

Used by `generation`; `chat_results` does the same for the serving classes of the OpenAI API.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoglm import v1
from autoglm.common import errors

# Some JSON clients have no infinity; vLLM's own API stops here too.
_LEAST_LOGPROB = -9999.0

FINISH_REASONS: dict[str | None, v1.FinishReason] = {
    None: v1.FINISH_REASON_UNSPECIFIED,
    "stop": v1.FINISH_REASON_STOP,
    "length": v1.FINISH_REASON_LENGTH,
    "tool_calls": v1.FINISH_REASON_TOOL_CALLS,
    "abort": v1.FINISH_REASON_ABORT,
    "repetition": v1.FINISH_REASON_STOP,
}


def finish_reason(reason: str | None) -> v1.FinishReason:
    if reason == "error":
        raise errors.NoReadyEndpoint("The engine failed on this request only. Retry.")
    return FINISH_REASONS[reason]


def chunk(request_id: str, completion: Any, top: int) -> v1.GenerateChunk:
    """Convert the new tokens of one completion."""
    made = v1.GenerateChunk(
        id=request_id,
        index=completion.index,
        text=completion.text,
        token_ids=completion.token_ids,
    )
    if completion.logprobs:
        made.logprobs.extend(token_logprobs(completion.token_ids, completion.logprobs, top))
    if completion.finish_reason is not None:
        made.finish_reason = finish_reason(completion.finish_reason)
        made.stop_reason = stop_reason(completion.stop_reason)
    return made


def completion(output: Any, top: int) -> v1.Completion:
    """Convert one finished completion."""
    return v1.Completion(
        index=output.index,
        text=output.text,
        token_ids=output.token_ids,
        logprobs=token_logprobs(output.token_ids, output.logprobs, top),
        finish_reason=finish_reason(output.finish_reason),
        stop_reason=stop_reason(output.stop_reason),
    )


def stop_reason(reason: int | str | None) -> str:
    return "" if reason is None else str(reason)


def token_logprobs(
    token_ids: Sequence[int], positions: Sequence[Any] | None, top: int
) -> list[v1.TokenLogprob]:
    """Return an entry a token, none if not requested; `positions` map token ids to Logprobs."""
    made = []
    for token_id, position in zip(token_ids, positions or (), strict=False):
        if position is None:
            continue
        entry = _entry(token_id, position[token_id])
        likeliest = [(i, p) for i, p in position.items() if p.rank is not None and p.rank <= top]
        likeliest.sort(key=lambda item: item[1].rank)
        entry.top_logprobs.extend(_entry(i, p) for i, p in likeliest)
        made.append(entry)
    return made


def _entry(token_id: int, found: Any) -> v1.TokenLogprob:
    return v1.TokenLogprob(
        token_id=token_id,
        token=found.decoded_token or "",
        logprob=max(found.logprob, _LEAST_LOGPROB),
        rank=found.rank or 0,
    )


def usage(output: Any, completion_tokens: int) -> v1.Usage:
    return v1.Usage(
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=completion_tokens,
        cached_tokens=output.num_cached_tokens or 0,
    )


def timing(stats: Any) -> v1.Timing | None:
    """Convert vLLM's timestamps; 0 stands for a moment that never came."""
    if stats is None or not stats.last_token_ts:
        return None
    return v1.Timing(
        queue_seconds=stats.scheduled_ts - stats.queued_ts,
        prefill_seconds=stats.first_token_ts - stats.scheduled_ts,
        decode_seconds=stats.last_token_ts - stats.first_token_ts,
    )
