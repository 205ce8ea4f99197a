"""Judges schemas, patterns and grammars before vLLM sees them: on threads, within a time limit.

vLLM validates a constraint on the event loop of its API and compiles it in the engine, where a
failure is an internal error of the request, and one that never ends keeps others waiting. Here the
same validation and compilation run first, so that what the engine compiles is known to compile in
time. xgrammar and llguidance release the GIL while they work. A rejected constraint is remembered,
and so is what vLLM makes of an accepted one. Called by `engine_client`.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.structured_output.request import get_structured_output_key

from autoglm.common.lru import LruCache

SECONDS = 5.0
# Of constraints that are remembered, and of those that may wait for a thread.
_MOST_KNOWN = 1024
_MOST_WAITING = 32
# Into a grammar that llguidance has taken.
_TRIED_TOKENS = 8
_SHOWN_CHARACTERS = 300
_ACCEPTED = "_autoglm_accepted"
_BACKENDS = {
    "xgrammar": ("backend_xgrammar", "XgrammarBackend"),
    "guidance": ("backend_guidance", "GuidanceBackend"),
    "outlines": ("backend_outlines", "OutlinesBackend"),
    "lm-format-enforcer": ("backend_lm_format_enforcer", "LMFormatEnforcerBackend"),
}

# What vLLM makes of a constraint: its StructuredOutputsParams; or why it is rejected.
Verdict: TypeAlias = Any


class Grammars:
    """`judge` is synchronous and slow: it returns what vLLM makes of SamplingParams, or raises."""

    def __init__(
        self, judge: Callable[[Any], Any], seconds: float = SECONDS, threads: int | None = None
    ) -> None:
        self._judge = judge
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(threads or _threads(), "grammar")
        self._known: LruCache[bytes, Verdict] = LruCache(_MOST_KNOWN)
        self._judging: dict[bytes, asyncio.Task[Verdict]] = {}

    async def check(self, params: Any) -> None:
        """Replace the constraint of `params` by what vLLM made of it.

        Raises VLLMValidationError for one that is wrong or takes too long, and QueueOverflowError
        where too many others wait.
        """
        constraint = params.structured_outputs
        if constraint.all_constraints_none() or constraint.json_object is False:
            # vLLM's to reject, which takes no time.
            return
        key = _key(constraint)
        verdict = self._known.get(key)
        if verdict is None:
            verdict = await asyncio.shield(self._task(key, params))
        if isinstance(verdict, Exception):
            raise verdict
        params.structured_outputs = copy.copy(verdict)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _task(self, key: bytes, params: Any) -> asyncio.Task[Verdict]:
        """Return the task that judges a constraint, one for all requests with it."""
        task = self._judging.get(key)
        if task is None:
            if len(self._judging) >= _MOST_WAITING:
                raise QueueOverflowError
            task = asyncio.create_task(self._verdict(key, params), name="grammar")
            self._judging[key] = task
            task.add_done_callback(lambda _: self._judging.pop(key))
        return task

    async def _verdict(self, key: bytes, params: Any) -> Verdict:
        field = _field(params.structured_outputs)
        judged = copy.copy(params)
        judged.structured_outputs = copy.copy(params.structured_outputs)
        running = self._pool.submit(self._judge, judged)
        try:
            async with asyncio.timeout(self._seconds):
                verdict: Verdict = await asyncio.wrap_future(running)
        except TimeoutError:
            if running.cancelled():
                # It has waited for a thread, which is no fault of its own.
                raise QueueOverflowError from None
            verdict = VLLMValidationError(
                f"{field} does not compile within {self._seconds:g} s; simplify it",
                parameter=field,
            )
        except Exception as error:
            reason = str(error.args[0]) if error.args else type(error).__name__
            reason = reason[:_SHOWN_CHARACTERS]
            verdict = VLLMValidationError(
                f"{field} cannot be used: {reason}; correct or simplify it", parameter=field
            )
        self._known.put(key, verdict)
        return verdict


class Judge:
    """vLLM's own validation and compilation, with compilers that keep nothing."""

    def __init__(self, config: Any, tokenizer: Any) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._backends: dict[str, Any] = {}

    def __call__(self, params: Any) -> Any:
        """Return what vLLM makes of the constraint. Raises any exception for one that is wrong."""
        config = self._config
        _VALIDATE(params, config.model_config, config.structured_outputs_config, self._tokenizer)
        constraint = params.structured_outputs
        stops = params.all_stop_token_ids or None
        kind, text = get_structured_output_key(constraint)
        backend = self.backend(constraint._backend)
        _try(backend, backend.compile_grammar(kind, text, stop_token_ids=stops))
        setattr(constraint, _ACCEPTED, True)
        return constraint

    def warm_up(self) -> None:
        """Build the backend that most constraints need; a large vocabulary takes seconds."""
        configured = self._config.structured_outputs_config.backend
        self.backend("xgrammar" if configured == "auto" else configured)

    def backend(self, name: str) -> Any:
        """Return the one that the engine uses under this name."""
        if name not in self._backends:
            module, class_name = _BACKENDS[name]
            kind = getattr(import_module(f"vllm.v1.structured_output.{module}"), class_name)
            size = self._config.model_config.get_vocab_size()
            backend = kind(self._config, tokenizer=self._tokenizer, vocab_size=size)
            if name == "xgrammar":
                from xgrammar import GrammarCompiler

                info = backend.compiler.compile_regex("a").tokenizer_info
                backend.compiler = GrammarCompiler(
                    info, max_threads=_threads(), cache_enabled=False
                )
            self._backends[name] = backend
        return self._backends[name]


def _try(backend: Any, grammar: Any) -> None:
    """Walk into the grammar a little: llguidance meets bounds of its own only on the way."""
    mask = backend.allocate_token_bitmask(1)
    grammar.fill_bitmask(mask, 0)
    matcher = getattr(grammar, "ll_matcher", None)
    if matcher is None:
        return
    # Its words end up in our error, not in the log with the whole grammar.
    grammar.printed_error = True
    for _ in range(_TRIED_TOKENS):
        bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
        if bits.any():
            grammar.accept_tokens("", [int(bits.argmax())])
            grammar.fill_bitmask(mask, 0)
        if problem := matcher.get_error():
            raise ValueError(problem.splitlines()[0])


def _threads() -> int:
    """Return the number of threads to use; the engine needs the rest."""
    return max(2, (os.cpu_count() or 1) // 2)


_VALIDATE = SamplingParams._validate_structured_outputs


def install() -> None:
    """Make vLLM take the constraints that were accepted as they are."""

    def validate_unless_accepted(self: Any, *details: Any) -> None:
        if not getattr(self.structured_outputs, _ACCEPTED, False):
            _VALIDATE(self, *details)

    SamplingParams._validate_structured_outputs = validate_unless_accepted


def _key(constraint: Any) -> bytes:
    try:
        kind, text = get_structured_output_key(constraint)
    except RecursionError:
        raise VLLMValidationError(
            "response_format nests too deeply; simplify the schema", parameter="response_format"
        ) from None
    options = (
        constraint.disable_any_whitespace,
        constraint.disable_additional_properties,
        constraint.whitespace_pattern,
    )
    return sha256(f"{kind} {options} {text}".encode("utf-8", "surrogatepass")).digest()


def _field(constraint: Any) -> str:
    """Return the client's name of it; schemas of tools that must be called are response_format."""
    kinds = ("json", "json_object", "structural_tag")
    is_format = any(getattr(constraint, kind) is not None for kind in kinds)
    return "response_format" if is_format else "structured_outputs"
