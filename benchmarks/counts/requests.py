"""What requests, chunks and open streams cost a gateway, on both data planes."""

from __future__ import annotations

import asyncio
import base64
import gc
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from autoglm.client.requests import hint_metadata
from autoglm.common import rpc
from autoglm.common.status import USAGE_TRAILER, write_usage
from autoglm.gateway.envoy import access_log_pb2 as access_log
from benchmarks.counts.gateway import STREAM, UNARY, Rig, rig
from benchmarks.counts.tracer import Counting, Instructions
from benchmarks.counts.wires import HttpClient, Turns, one

Found = dict[str, float]
SHORT, LONG = 10, 60
_WARM = 3
_OPEN = 40
_END = b"0\r\n\r\n"
_RIG = str(Path(__file__).parent / "*")


async def embedded() -> Found:
    found: Found = {}
    async with rig() as made:
        found |= _named("grpc unary, instructions of a request", await _counted(_grpc(made, UNARY)))
        found |= _named("rest unary, instructions of a request", await _counted(_rest(made)))
    for wire, send in (("grpc", lambda made: _grpc(made, STREAM)), ("rest", _rest)):
        costs = []
        for chunks in (SHORT, LONG):
            async with rig(chunks) as made:
                costs.append(await _counted(send(made)))
        found |= _per_chunk(f"{wire} stream", *costs)
    return found | {
        f"{wire} stream, bytes held while it is open": held
        for wire, held in (await open_streams()).items()
    }


async def open_streams() -> dict[str, float]:
    """Bytes of Python's memory for an open stream of the embedded plane, over each wire."""
    found = {}
    for wire, start in (("grpc", _open_grpc), ("rest", _open_rest)):
        async with rig(SHORT) as made:
            found[wire] = await _held(made, start)
    return found


async def envoy() -> Found:
    """Envoy's part is played: what it would send to the picker, and its log entry at the end."""
    found: Found = {}
    for name, hinted in (("body read", False), ("hint", True)):
        async with rig(SHORT, "envoy") as made:
            cost = await _counted(partial(_picked, made, made.envoy(), hinted))
            found |= _named(f"envoy, instructions of a request, {name}", cost)
    return found


def _named(name: str, cost: Instructions) -> Found:
    return {f"{name}, own": cost.own, f"{name}, all": cost.all}


def _per_chunk(name: str, short: Instructions, long: Instructions) -> Found:
    more = LONG - SHORT
    each = Instructions(
        round((long.own - short.own) / more), round((long.libraries - short.libraries) / more)
    )
    first = Instructions(short.own - SHORT * each.own, short.libraries - SHORT * each.libraries)
    return {
        **_named(f"{name}, instructions of a chunk", each),
        **_named(f"{name}, instructions besides chunks", first),
    }


async def _counted(send: Callable[[], Awaitable[object]]) -> Instructions:
    """Of one request, once connections, metrics' children and caches are made."""
    for _ in range(_WARM):
        await send()
    with Counting() as counting:
        await send()
    return counting.found


def _grpc(made: Rig, method: str) -> Callable[[], Awaitable[object]]:
    return lambda: made.grpc(method, made.context())


def _rest(made: Rig) -> Callable[[], Awaitable[object]]:
    client, request = made.client(), made.request(stream=bool(made.chunks))
    end = _END if made.chunks else b"}]}"
    return lambda: client.request(request, end)


# Open streams.


async def _held(made: Rig, start: Callable[[Rig], Awaitable[Any]]) -> float:
    """Bytes for each of some streams that are past their first chunk, without what the rig has."""
    closers = [await start(made)]
    made.grpc_pods.hold.clear()
    made.http_pods.hold.clear()
    tracemalloc.start()
    try:
        before = _bytes()
        closers += [await start(made) for _ in range(_OPEN)]
        return round((_bytes() - before) / _OPEN)
    finally:
        tracemalloc.stop()
        made.grpc_pods.hold.set()
        made.http_pods.hold.set()
        for close in closers:
            await close()


def _bytes() -> int:
    gc.collect()
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, _RIG)])
    return sum(trace.size for trace in taken.traces)


async def _open_grpc(made: Rig) -> Callable[[], Awaitable[None]]:
    context = made.context()
    task = asyncio.create_task(made.grpc(STREAM, context))
    while not context.messages:
        await Turns(1)

    async def close() -> None:
        await task

    return close


async def _open_rest(made: Rig) -> Callable[[], Awaitable[None]]:
    client = made.client()
    task = asyncio.create_task(client.request(made.request(stream=True), _END))
    while b"token" not in client.received:
        await Turns(1)

    async def close() -> None:
        await task

    return close


# The picker.


async def _picked(made: Rig, envoy: HttpClient, hinted: bool) -> None:
    """A request from Envoy's check to its report of the end."""
    request, key = made.generate(), f"call-{made.exchanges.opened}"
    headers = {
        "host": "x",
        "content-type": "application/grpc",
        rpc.CALL_HEADER: key,
        "x-api-key": made.key,
    }
    message, body = request.SerializeToString(), b""
    if hinted:
        headers |= {k: base64.b64encode(v).decode() for k, v in hint_metadata(request).items()}
    else:
        body = struct.pack(">BI", 0, len(message)) + message
    lines = [f"{k}: {v}" for k, v in (headers | {"content-length": str(len(body))}).items()]
    head = "\r\n".join([f"POST /autoglm.v1.Inference/{STREAM} HTTP/1.1", *lines, "", ""])
    await envoy.request(head.encode() + body, b"\r\n\r\n")
    await made.ends.StreamAccessLogs(one(_report(key)), None)
    while len(made.exchanges):
        await Turns(1)


def _report(key: str) -> Any:
    message = access_log.StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.request.request_headers[rpc.CALL_HEADER] = key
    entry.response.response_code.value = 200
    entry.response.response_trailers["grpc-status"] = "0"
    entry.response.response_trailers[USAGE_TRAILER] = write_usage(4, 4, ("stop",))
    entry.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(1)
    entry.common_properties.duration.FromMilliseconds(2)
    return message
