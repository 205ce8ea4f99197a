"""Which functions of vLLM's modules are compiled."""

import sys
from types import FunctionType, ModuleType
from typing import Any

import pytest

from autoglm.inference.vllm import eager


def double(x: int) -> int:
    return 2 * x


def compile_function(model: Any = None, **options: Any) -> Any:
    """In place of `torch.compile`."""
    return "compiled" if model is not None else lambda function: "compiled"


def compiled_in(module: str) -> tuple[Any, Any]:
    """What a call and a decorator in `module` make of `double`."""
    selective = eager.without_helpers(compile_function)
    code = "called, decorated = compile(double, dynamic=True), compile(dynamic=True)(double)"
    names: dict[str, Any] = {"__name__": module, "compile": selective, "double": double}
    exec(code, names)
    return names["called"], names["decorated"]


def test_a_helper_of_vllm_stays_as_written() -> None:
    assert compiled_in("vllm.v1.sample.ops.logprobs") == (double, double)


@pytest.mark.parametrize("module", ["vllm.compilation.wrapper", "transformers.x", "vllmother.x"])
def test_the_model_and_other_libraries_still_compile(module: str) -> None:
    assert compiled_in(module) == ("compiled", "compiled")


def test_what_was_decorated_earlier_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    decorated = FunctionType(double.__code__, {})
    decorated._torchdynamo_orig_callable = double  # type: ignore[attr-defined]  # as torch does
    module = ModuleType("vllm.helper")
    module.triple, module.other = decorated, 5  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "vllm.helper", module)

    eager.restore_helpers()

    assert module.triple is double
    assert module.other == 5


class Cpu:
    """In place of `torch.cpu`."""

    def __init__(self, has_amx: bool, permits: bool) -> None:
        self.requests = 0
        self._has_amx, self._permits = has_amx, permits

    def _is_amx_tile_supported(self) -> bool:
        return self._has_amx

    def _init_amx(self) -> bool:
        self.requests += 1
        return self._permits


@pytest.mark.parametrize(
    ("has_amx", "permits", "used"),
    [(True, True, True), (True, False, False), (False, False, False)],
)
def test_amx_is_used_where_linux_permits_it(has_amx: bool, permits: bool, used: bool) -> None:
    cpu = Cpu(has_amx, permits)

    eager.use_amx_if_permitted(cpu)

    assert cpu._is_amx_tile_supported() is used
    assert cpu.requests == has_amx
