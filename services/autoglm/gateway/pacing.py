"""How a resource's `spec.routing.timeouts` bound a call. Used by the relay.

The whole of a call ends by its deadline, which `bounded` brings forward. The first token and the
silence between chunks are watched for streams only: of an answer in one piece neither can be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace

from autoglm.common.errors import DeadlineExceeded
from autoglm.gateway.call import Call, Reply
from autoglm.gateway.resources import Rules


def bounded(call: Call, rules: Rules) -> Call:
    """The call with the earlier of its own deadline and the resource's."""
    total = rules.total_seconds
    if total is None or call.deadline <= call.started + total:
        return call
    return replace(call, deadline=call.started + total)


async def paced(reply: Awaitable[Reply], call: Call, rules: Rules, now: float) -> Reply:
    """The reply once it has begun. Raises DeadlineExceeded where it is slower than the rules."""
    if call.ask is None or not call.ask.streaming:
        return await reply
    first, limit = rules.first_token_seconds, None
    if first is not None:
        limit = max(0.0, call.started + first - now)
    async with _Within(limit, f"no first token of {call.model!r} within {first} s"):
        begun = await reply
    if rules.chunk_seconds is not None:
        begun.chunks = _paced_chunks(begun.chunks, call.model, rules.chunk_seconds)
    return begun


async def _paced_chunks(
    chunks: AsyncIterator[bytes], model: str, seconds: float
) -> AsyncIterator[bytes]:
    silence = f"{model!r} sent no chunk for {seconds} s, so the answer is incomplete"
    while True:
        async with _Within(seconds, silence):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


class _Within:
    """A timeout that says what it was for; no limit with None."""

    def __init__(self, seconds: float | None, sentence: str) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._sentence = sentence

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._timeout.__aexit__(*error)  # type: ignore[arg-type]  # passed on as it came
        except TimeoutError as late:
            raise DeadlineExceeded(f"{self._sentence}; ask again, or raise the limit") from late
