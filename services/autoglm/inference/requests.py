"""Validates requests and identifies them to the engine. Called by servicers and the HTTP port."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar, cast

from autoglm import v1
from autoglm.common import rpc
from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.kv import block_naming
from autoglm.validation import RequestInfo, validate

T = TypeVar("T")


def check(engine: Engine, info: RequestInfo) -> None:
    """Raises InvalidRequest or ModelNotFound."""
    models = engine.models()
    known = [name for model in models for name in (model.name, *model.aliases)]
    validate(info, find(engine, info.model), known)


def begin(engine: Engine, info: RequestInfo) -> None:
    """Validate a gRPC request and name its prompt's blocks. Raises as `check` does."""
    check(engine, info)
    block_naming.name(info)


def find(engine: Engine, name: str) -> v1.Model | None:
    """Return the model or adapter of that name or alias."""
    return next((m for m in engine.models() if name == m.name or name in m.aliases), None)


def current_call() -> EngineRequest:
    """Return the call being served, as the engine needs it."""
    current = rpc.current_rpc.get()
    return EngineRequest(current.request_id, current.trace_headers)


def closing(chunks: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """End the engine's request with the block, whatever ends the block."""
    # Engines give generators; the contract speaks of iterators, as that is all most callers need.
    return aclosing(cast(AsyncGenerator[T, None], chunks))
