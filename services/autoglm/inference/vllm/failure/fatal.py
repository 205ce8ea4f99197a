"""Makes the death of vLLM's engine a retryable 503 of its OpenAI app.

vLLM responds with 500 to it and stops the server it keeps in `app.state.server`, which a pod does
not have: the pod's own life cycle ends the process (`VllmEngine.wait_dead`). Called by `launch`.
"""

from __future__ import annotations

from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine import async_llm, core_client
from vllm.v1.engine.exceptions import EngineDeadError

from autoglm.inference.vllm.exceptions import ENGINE_DEAD


class EngineStopped(EngineDeadError, GracefulHTTPError):  # type: ignore[misc]  # vLLM is not typed
    """Carries the status that all of vLLM's APIs report, streams and dialects included."""

    def __init__(self, *_: Any, suppress_context: bool = False) -> None:
        GracefulHTTPError.__init__(self, ENGINE_DEAD, HTTPStatus.SERVICE_UNAVAILABLE)
        self.__suppress_context__ = suppress_context


def install() -> None:
    """Make vLLM's engine client raise EngineStopped."""
    for module in (async_llm, core_client):
        module.EngineDeadError = EngineStopped


def complete(state: Any) -> None:
    """Give the app the server whose end vLLM requests when the engine is dead."""
    state.server = SimpleNamespace(should_exit=False)
