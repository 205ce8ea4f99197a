"""vLLM's exceptions and error bodies as ours: the one table.

Decides which class an error becomes and which field of the request it names, makes the death of the
engine a retryable 503 of vLLM's OpenAI app, and gives its unexpected errors their cause. Called by
`runtime` and `chat`; nothing else handles a vLLM exception.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError
from vllm import exceptions as vllm
from vllm.v1.engine import async_llm, core_client
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from autoglm import v1
from autoglm.common import errors

_log = logging.getLogger("autoglm.inference")
ENGINE_DEAD = "The engine has stopped; the pod restarts. Retry."
_BUSY = "The engine takes no more requests now. Retry."

# Parameters that vLLM knows under another name than the API, which has all others as they are.
_PROMPT = frozenset(
    ("input_tokens", "input_text", "prompt", "prompt_token_ids", "messages")
    + ("image_url", "audio_url", "video_url")
)
_FIELDS = {
    "max_completion_tokens": "sampling_params.max_tokens",
    "top_logprobs": "sampling_params.logprobs",
    "structured_outputs": "response_format",
}
_SAMPLING = frozenset(f.name for f in v1.SamplingParams.DESCRIPTOR.fields)
_TOP_LEVEL = frozenset(f.name for f in v1.ChatRequest.DESCRIPTOR.fields)
# What vLLM's messages speak of where they name no parameter.
_ABOUT_PROMPT = re.compile(r"out of vocabulary|maximum model length|multimodal|chat template", re.I)
_ABOUT_FORMAT = re.compile(r"grammar|regex|json schema|\bchoice\b|structured output", re.I)


def _invalid(error: Any, prompt_field: str) -> errors.AutoGLMError:
    # A chat template may reject a conversation with any message.
    rejected = isinstance(error.__cause__, TemplateError)
    parameter = "prompt" if rejected else getattr(error, "parameter", None) or ""
    # The message of a VLLMValidationError without what its __str__ adds to it.
    message = str(error.args[0]) if error.args else str(error)
    return invalid(message, parameter, prompt_field)


def _unparsed(error: ValidationError, prompt_field: str) -> errors.AutoGLMError:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(map(str, first["loc"]))
    return invalid(f"{path}: {first['msg']}", str(first["loc"][0]) if path else "", prompt_field)


def _internal(error: Exception, prompt_field: str) -> errors.AutoGLMError:
    return errors.Internal(f"vLLM: {type(error).__name__}: {error}")


_Rule = Callable[[Any, str], errors.AutoGLMError]

_TABLE: tuple[tuple[type[Exception] | tuple[type[Exception], ...], _Rule], ...] = (
    (EngineDeadError, lambda _, __: errors.EngineDead(ENGINE_DEAD)),
    (
        (vllm.QueueOverflowError, vllm.MaxQueuedTokensError),
        lambda _, __: errors.QueueFull(_BUSY),
    ),
    (vllm.RetryableRequestError, lambda e, _: errors.NoReadyEndpoint(str(e))),
    (vllm.VLLMNotFoundError, lambda e, _: errors.ModelNotFound(str(e))),
    (vllm.VLLMClientError, _invalid),
    (vllm.VLLMError, _internal),
    (NotImplementedError, lambda e, _: errors.Unimplemented(str(e))),
    (ValidationError, _unparsed),
    # vLLM's own server responds with 400 to these three; many of its checks raise nothing finer.
    (TemplateError, lambda e, _: errors.InvalidRequest(f"chat template: {e}", field="messages")),
    ((ValueError, OverflowError), _invalid),
    (Exception, _internal),
)


def translate(error: Exception, prompt_field: str, engine_is_dead: bool) -> errors.AutoGLMError:
    """Return the error that stands for `error` outside this package."""
    if isinstance(error, EngineGenerateError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    found = next(rule for kinds, rule in _TABLE if isinstance(error, kinds))(error, prompt_field)
    return errors.EngineDead(ENGINE_DEAD) if engine_is_dead and found.http_status >= 500 else found


def invalid(message: str, parameter: str, prompt_field: str) -> errors.InvalidRequest:
    """Return the error with the API's name of the field that vLLM names."""
    # Many of its messages start with it.
    first = re.match(r"\W*(\w+)", message)
    name = parameter or (first[1] if first else "")
    field = ""
    if name in _PROMPT or (not parameter and _ABOUT_PROMPT.search(message)):
        field = prompt_field
    elif name in _SAMPLING:
        field = f"sampling_params.{name}"
    elif name in _TOP_LEVEL or name in _FIELDS:
        field = _FIELDS.get(name, name)
    elif not parameter and _ABOUT_FORMAT.search(message):
        field = "response_format"
    return errors.InvalidRequest(message, field=field)


def translate_body(body: Any, prompt_field: str, engine_is_dead: bool) -> errors.AutoGLMError:
    """Return the error of an OpenAI response: `message`, `code` and `param`."""
    if body.code >= 500 and engine_is_dead:
        return errors.EngineDead(ENGINE_DEAD)
    match body.code:
        case 400 | 422:
            return invalid(body.message, body.param or "", prompt_field)
        case 404:
            return errors.ModelNotFound(body.message)
        case 501:
            return errors.Unimplemented(body.message)
        case 503:
            return errors.QueueFull(_BUSY)
        case _:
            return errors.Internal(f"vLLM: {body.message}")


class EngineStopped(EngineDeadError, vllm.GracefulHTTPError):  # type: ignore[misc]  # not typed
    """Carries the status that all of vLLM's APIs report, streams and dialects included."""

    def __init__(self, *_: Any, suppress_context: bool = False) -> None:
        vllm.GracefulHTTPError.__init__(self, ENGINE_DEAD, HTTPStatus.SERVICE_UNAVAILABLE)
        self.__suppress_context__ = suppress_context


class GenerateFailed(EngineGenerateError):  # type: ignore[misc]  # not typed
    """Names its cause, which vLLM's own class keeps from responses and from the log."""

    def __init__(self) -> None:
        super().__init__()
        _log.error("the engine failed to serve a request", exc_info=True)

    def __str__(self) -> str:
        cause = self.__cause__
        return f"{type(cause).__name__}: {cause}" if cause else "unexpected error in the engine"


def install(state: Any) -> None:
    """Make vLLM's engine client raise these errors; `state` is that of its OpenAI app.

    vLLM responds with 500 to the death of its engine and stops the server in `state.server`, which
    a pod does not have: the pod's own life cycle ends the process (`VllmEngine.wait_dead`).
    """
    for module in (async_llm, core_client):
        module.EngineDeadError = EngineStopped
    async_llm.EngineGenerateError = GenerateFailed
    state.server = SimpleNamespace(should_exit=False)
