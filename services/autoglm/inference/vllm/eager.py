"""Adapts vLLM to a CPU: leaves out what it does for GPUs, in starts and in requests.

vLLM decorates helpers such as the one that ranks logprobs with `torch.compile`, whatever
`enforce_eager` says. The first request that needs one waits for a C++ compiler for 35 s and more,
and ends the engine where there is none. On a CPU `install` leaves every such function as it is
written; vLLM's compilation of the model itself, which happens before the pod is ready, stays as
configured. vLLM also inspects the class of a model in a process of its own, so that no GPU is
initialized in the first one; its imports take ten seconds in each container that starts. On a CPU
the class is inspected where it is needed. And `install` requests the processor's matrix registers
before vLLM uses them. Called in each of vLLM's processes through the plugin in `orphan`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

# Compiles the model, in a warm-up.
_MODEL_COMPILER = "vllm.compilation."
_ORIGINAL = "_torchdynamo_orig_callable"


def install() -> None:
    """Do all of it in this process; on a CPU only."""
    import torch
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or hasattr(torch.compile, "__wrapped__"):
        return
    torch.compile = without_helpers(torch.compile)
    restore_helpers()
    registry._run_in_subprocess = call
    use_amx_if_permitted(torch.cpu)


def use_amx_if_permitted(cpu: Any) -> None:
    """Request AMX's tile registers of Linux; where it refuses, have `torch.cpu` report no AMX.

    The kernel ends a process by SIGILL that uses them without permission
    (https://docs.kernel.org/arch/x86/xstate.html). vLLM's attention uses them and requests none; it
    works only where another library has requested them earlier.
    """
    if cpu._is_amx_tile_supported() and not cpu._init_amx():
        cpu._is_amx_tile_supported = lambda: False


def call(inspect: Callable[[], Any]) -> Any:
    """Return what it returns; in place of vLLM's function that calls it in another process."""
    return inspect()


def without_helpers(compile_function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.compile` for all modules but those of vLLM that do not compile the model."""

    @functools.wraps(compile_function)
    def selective(model: Any = None, **options: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if not _is_helper(caller):
            return compile_function(model, **options)
        return model if model is not None else lambda function: function

    return selective


def restore_helpers() -> None:
    """Undo the decoration in modules that were imported earlier, under every name they use."""
    modules = [m for name, m in list(sys.modules.items()) if _is_helper(name) and m is not None]
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value) and (original := getattr(value, "__dict__", {}).get(_ORIGINAL)):
                setattr(module, name, original)


def _is_helper(module: str) -> bool:
    return module.startswith("vllm.") and not module.startswith(_MODEL_COMPILER)
