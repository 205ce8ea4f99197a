"""Keeps a stream's tokens in vLLM's front end while they are not read. Called by `engine`.

For every token of every stream vLLM makes a chunk, and merges it with the one that still waits to
be taken: a fifth of the front end's work with 32 streams. Its `stream_interval` makes none until
there are so many tokens; here that number follows the reader instead. Tokens are detokenised and
checked for stop strings all the same, and the end of a request is never held. Streams whose parsers
must see each token by itself are not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoglm.inference.vllm.replay.engine_client import StepwiseCollector
from autoglm.inference.vllm.request_ids import stream_ids

# More tokens than any context has.
_NEVER = 1 << 40


def states(processor: Any, request_id: str) -> Iterator[Any]:
    """Yield vLLM's `RequestState` of each completion that still runs."""
    for name in stream_ids(request_id):
        for internal in processor.external_req_ids.get(name, ()):
            state = processor.request_states[internal]
            if not isinstance(state.queue, StepwiseCollector):
                yield state


def hold(state: Any) -> None:
    """Make no chunks. All tokens up to now have been in one."""
    if state.stream_interval == 1:
        state.sent_tokens_offset = state.detokenizer.num_output_tokens()
        # The first token of a stream is not held: it is sent at once.
        if state.sent_tokens_offset:
            state.stream_interval = _NEVER


def release(state: Any) -> None:
    """One chunk of what was held, and one for each token from now on."""
    if state.stream_interval != _NEVER:
        return
    state.stream_interval = 1
    held = state.detokenizer.output_token_ids[state.sent_tokens_offset :]
    if held:
        state.queue.put(state.make_request_output(held, None, None, None))
