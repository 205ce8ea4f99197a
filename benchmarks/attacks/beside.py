"""The small requests of a well-behaved client: every second one on a new connection."""

from __future__ import annotations

import http.client
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import Any

import grpc
from tests.support.processes import Process

from autoglm import v1
from benchmarks.attacks.http1 import chat
from benchmarks.attacks.http2 import GENERATE
from benchmarks.neighbour import Sent

TIMEOUT_SECONDS = 20.0
_TOKENS = 2
_TEXT_LIMIT = 100


@contextmanager
def rest(key: str) -> Iterator[Sent]:
    """Yield what sends a chat and returns its status, with the body of an error."""
    kept, numbers = deque[http.client.HTTPConnection](), itertools.count()
    body = chat(_TOKENS)
    headers = {"content-type": "application/json", "x-api-key": key}

    def send(server: Process) -> str:
        connection = _connection(server)
        if next(numbers) % 2:
            # Another thread may have it.
            with suppress(IndexError):
                connection = kept.pop()
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return f"{type(error).__name__}: {error}"[:_TEXT_LIMIT]
        if kept:
            connection.close()
        else:
            kept.append(connection)
        if response.status == 200:
            return "200"
        return f"{response.status} {text.decode(errors='replace')}"[:_TEXT_LIMIT]

    yield send
    for connection in kept:
        connection.close()


def _connection(server: Process) -> http.client.HTTPConnection:
    host, port = server.http_address.split(":")
    return http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_SECONDS)


@contextmanager
def unary(key: str) -> Iterator[Sent]:
    """Yield what sends a Generate and returns its code, with the text of an error."""
    numbers = itertools.count()
    sampling = v1.SamplingParams(max_tokens=_TOKENS, ignore_eos=True)
    request = v1.GenerateRequest(model="echo", text="a b c d e", sampling_params=sampling)
    with ExitStack() as stack:
        kept = lru_cache(lambda address: stack.enter_context(_channel(address)))

        def send(server: Process) -> str:
            if next(numbers) % 2:
                return _generated(kept(server.grpc_address), request, key)
            with _channel(server.grpc_address) as channel:
                return _generated(channel, request, key)

        yield send


def _channel(address: str) -> grpc.Channel:
    # Otherwise channels to one address share a connection.
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    return grpc.insecure_channel(address, options)


def _generated(channel: grpc.Channel, request: v1.GenerateRequest, key: str) -> str:
    call: Any = channel.unary_unary(GENERATE)
    try:
        call(request.SerializeToString(), timeout=TIMEOUT_SECONDS, metadata=(("x-api-key", key),))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"[:_TEXT_LIMIT]
    return "OK"


SENDS: dict[str, Callable[[str], AbstractContextManager[Sent]]] = {"REST": rest, "gRPC": unary}
