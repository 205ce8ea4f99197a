"""Reads a request's body, of any size, without holding up the event loop.

A large body is first read in steps, one for each turn of the loop, and abridged; what is left is
decoded here, or, where it has many values, on a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

from google.protobuf.message import Message

from autoglm.validation.bounds import DEFAULT, Bounds
from autoglm.validation.http_apis import is_form
from autoglm.validation.http_bodies import of_openai
from autoglm.validation.request_info import RequestInfo
from autoglm.validation.rules import with_checked_constraints
from autoglm.validation.scan import json_scan, proto_scan
from autoglm.validation.scan.abridged import Abridged
from autoglm.validation.scan.form import scan_form

T = TypeVar("T")
# An abridged body within both is decoded on the loop: that takes less than 5 ms.
_INLINE_BYTES, _INLINE_ENTRIES = 64 * 1024, 1024
# JSON has no values but its entries: its text is decoded at some 500 MB a second.
_INLINE_JSON_BYTES = 256 * 1024
SWITCH_SECONDS = 0.001
"""How long a thread may compute while another one waits, for `sys.setswitchinterval`."""
# One: more would take the loop's time, as they all run Python.
_thread = ThreadPoolExecutor(1, thread_name_prefix="validation")
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def read_openai(
    path: str, body: bytes | memoryview, bounds: Bounds = DEFAULT, content_type: str = ""
) -> RequestInfo:
    """Return the facts of a body. Raises InvalidRequest if it is malformed or over a bound."""
    if is_form(path):
        return await in_steps(scan_form(bytes(body), content_type))
    if json_scan.is_small(body):
        return of_openai(path, bytes(body))
    return await read_abridged(path, await abridge(body, bounds))


async def abridge(body: bytes | memoryview, bounds: Bounds = DEFAULT) -> bytes:
    """Return the body, abridged if it is large. Raises InvalidRequest if it is over a bound."""
    if json_scan.is_small(body):
        return bytes(body)
    return await in_steps(json_scan.scan(body, bounds))


async def read_abridged(path: str, body: bytes) -> RequestInfo:
    """Return the facts of a body that is small or abridged."""
    if isinstance(body, Abridged):
        return await off_loop(body, lambda: of_openai(path, body), _INLINE_JSON_BYTES)
    return of_openai(path, body)


async def read_message(
    kind: type[Message],
    read: Callable[[bytes], RequestInfo],
    payload: bytes | memoryview,
    bounds: Bounds = DEFAULT,
) -> RequestInfo:
    """Return the facts of a protobuf message; `read` takes it abridged."""
    if proto_scan.is_small(payload, kind):
        return read(bytes(payload))
    abridged = await in_steps(proto_scan.scan(payload, kind, bounds))
    return await off_loop(abridged, lambda: read(abridged))


async def in_steps(reading: Generator[int, None, T]) -> T:
    """Run it to its end; of all that run, one takes a step in a turn of the loop."""
    loop = asyncio.get_running_loop()
    turn = _turns.setdefault(loop, asyncio.Lock())
    while True:
        async with turn:
            try:
                next(reading)
            except StopIteration as done:
                value: T = done.value
                return value
            await asyncio.sleep(0)


async def off_loop(
    abridged: Abridged, read: Callable[[], RequestInfo], inline_bytes: int = _INLINE_BYTES
) -> RequestInfo:
    """Read here if it takes little time, otherwise on the thread."""
    if len(abridged) <= inline_bytes and abridged.entries <= _INLINE_ENTRIES:
        return read()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_thread, lambda: with_checked_constraints(read()))
