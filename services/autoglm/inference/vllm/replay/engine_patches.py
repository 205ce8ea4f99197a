"""Makes vLLM's engine resume a request after some tokens, as if it had been preempted there.

vLLM 0.32 keeps a preempted request's output tokens, computes them again and resumes; what it lacks
is a way to hand over such a request. This module patches these, and nothing else:

    Request.from_engine_core_request          appends the tokens as output tokens
    Scheduler._handle_blocked_waiting_request appends them, and advances the grammar over each, as
                                              soon as the grammar is compiled
    CachedRequestState.__post_init__          gives the worker's V1 model runner the output tokens,
                                              and a seeded CPU sampler the state after as many draws
                                              (the V2 model runner needs neither)
    StructuredOutputManager.grammar_init      compiles each grammar with the backend that validated
                                              it, where vLLM takes that of the first one for all

`install` is called in every process of vLLM, through the plugin in `orphan`, and does nothing with
a version that it was not written for: `is_installed` is False, and the front end rejects resumed
requests. Tokens travel in SamplingParams.extra_args under a name that only this pod's processes
know, as clients can reach extra_args.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

VERSIONS = ("0.32.",)
_NAME_VARIABLE = "AUTOGLM_RESUME_NAME"
_installed = False


def announce_name() -> None:
    """Called by the pod, before it starts the engine. A second engine keeps the name."""
    os.environ.setdefault(_NAME_VARIABLE, f"autoglm_resume_{secrets.token_hex(8)}")


def extra_args(token_ids: list[int]) -> dict[str, list[int]]:
    """Return the argument by which a request carries tokens that are generated already."""
    return {os.environ[_NAME_VARIABLE]: token_ids}


def resumed_ids(sampling_params: Any) -> list[int]:
    """Return the tokens of the request that are generated already."""
    given = getattr(sampling_params, "extra_args", None) or {}
    found: list[int] = given.get(os.environ.get(_NAME_VARIABLE), [])
    return found


def is_installed() -> bool:
    return _installed


def install() -> None:
    """Called by vLLM, once in each process."""
    global _installed
    import vllm

    if _installed or not vllm.__version__.startswith(VERSIONS):
        return
    _patch_request()
    _patch_scheduler()
    _patch_worker()
    _patch_grammars()
    _installed = True


def _patch_request() -> None:
    from vllm.v1.request import Request

    create = Request.from_engine_core_request

    def from_engine_core_request(cls: Any, request: Any, block_hasher: Any) -> Any:
        made = create(request, block_hasher)
        ids = resumed_ids(made.sampling_params)
        if ids:
            # They count tokens of the prompt, and vLLM asserts that no more of them are cached.
            made.prefill_stats = None
        if ids and not made.use_structured_output:
            made.append_output_token_ids(ids)
        return made

    Request.from_engine_core_request = classmethod(from_engine_core_request)


def _patch_scheduler() -> None:
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import RequestStatus

    proceed = Scheduler._handle_blocked_waiting_request
    compiling = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR

    def handle_blocked_waiting_request(self: Any, request: Any) -> bool:
        was_compiling = request.status == compiling
        if not proceed(self, request):
            return False
        # As the scheduler does with each token that is sampled.
        for token_id in resumed_ids(request.sampling_params) if was_compiling else ():
            request.append_output_token_ids(token_id)
            if not self.structured_output_manager.accept_tokens(request, [token_id]):
                request.status = compiling
                self.grammar_compile_error_reqs.add(request.request_id)
                return False
        return True

    Scheduler._handle_blocked_waiting_request = handle_blocked_waiting_request


def _patch_worker() -> None:
    from vllm.v1.worker.gpu_input_batch import CachedRequestState

    initialise = CachedRequestState.__post_init__

    def post_init(self: Any) -> None:
        initialise(self)
        if not self.output_token_ids:
            self.output_token_ids = list(resumed_ids(self.sampling_params))
        if self.generator is not None and self.generator.device.type == "cpu":
            self.generator = _cpu_generator(self)

    CachedRequestState.__post_init__ = post_init


def _patch_grammars() -> None:
    from vllm.v1.structured_output import StructuredOutputManager

    initialise = StructuredOutputManager.grammar_init

    def grammar_init(self: Any, request: Any) -> None:
        if request.structured_output_request is None:
            return
        backends = self.__dict__.setdefault("autoglm_backends", {})
        name = request.sampling_params.structured_outputs._backend
        self.backend = backends.get(name)
        initialise(self, request)
        backends[name] = self.backend

    StructuredOutputManager.grammar_init = grammar_init


def _cpu_generator(state: Any) -> Any:
    """Return the sampler's source of randomness: one draw for each output token."""
    import torch

    class Generator(torch.Generator):  # type: ignore[misc]  # torch is not typed here
        def rewind(self) -> None:
            self.manual_seed(state.sampling_params.seed)
            if state.output_token_ids:
                # In one call, as many draws of the sampler's.
                torch.randint(0, 2**31, (len(state.output_token_ids),), generator=self)

        def get_offset(self) -> int:
            return 0

        def set_offset(self, offset: int) -> None:
            """Rewind: so vLLM takes back the draw of an unfinished prefill, which fails on CPU."""
            self.rewind()

    made = Generator()
    made.rewind()
    return made
