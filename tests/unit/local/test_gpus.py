"""Each replica gets devices of its own, as far as there are enough."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.local.gpus import Gpus, find, uses_gpus

FOUR = Gpus(("0", "1", "2", "3"), ("A", "A", "B", "B"))


class NvmlError(Exception):
    """What NVML raises."""


def nvml(*names: str, has_driver: bool = True) -> Any:
    """A fake of the module pynvml."""

    def init() -> None:
        if not has_driver:
            raise NvmlError("Driver Not Loaded")

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda index: names[index],
    )


def amdsmi(*names: str) -> Any:
    """A fake of the module amdsmi."""
    return SimpleNamespace(
        AmdSmiException=RuntimeError,
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: list(names),
        amdsmi_get_gpu_asic_info=lambda handle: {"market_name": handle},
    )


@pytest.fixture(autouse=True)
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pynvml", "amdsmi"):
        monkeypatch.setitem(sys.modules, name, None)


def test_devices_of_nvml_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("NVIDIA L4", "NVIDIA L4"))
    assert find({}) == Gpus(("0", "1"), ("NVIDIA L4", "NVIDIA L4"), "CUDA_VISIBLE_DEVICES")


def test_devices_of_amd_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", amdsmi("MI300X"))
    assert find({}) == Gpus(("0",), ("MI300X",), "HIP_VISIBLE_DEVICES")


def test_only_devices_that_the_environment_lists_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml("A", "B", "C"))
    assert find({"CUDA_VISIBLE_DEVICES": "2, 0"}).ids == ("2", "0")
    assert find({"CUDA_VISIBLE_DEVICES": "2, 0"}).names == ("C", "A")
    assert find({"CUDA_VISIBLE_DEVICES": ""}).ids == ()


def test_a_machine_without_devices_or_driver_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find({}) == Gpus()
    monkeypatch.setitem(sys.modules, "pynvml", nvml("A", has_driver=False))
    assert find({}) == Gpus()
    assert Gpus().place(1, ()) == ()


def test_replicas_get_devices_of_their_own() -> None:
    first = FOUR.place(2, ())
    assert first == ("0", "1")
    assert FOUR.place(2, first) == ("2", "3")


def test_a_replica_beyond_all_devices_shares_those_with_the_fewest() -> None:
    assert FOUR.place(1, ("0", "1", "2", "3", "0")) == ("1",)


@given(st.integers(1, 8), st.lists(st.integers(1, 4), max_size=8))
def test_no_device_is_shared_while_one_is_free(devices: int, counts: list[int]) -> None:
    gpus = Gpus(tuple(map(str, range(devices))), ("A",) * devices)
    taken: list[str] = []
    for count in counts:
        found = gpus.place(count, taken)
        assert len(set(found)) == len(found) == min(count, devices)
        free = set(gpus.ids) - set(taken)
        assert set(found) <= free or free <= set(found)
        taken += found


def test_too_few_devices_are_one_sentence() -> None:
    assert FOUR.too_few({"chat": (2, 2)}) == ""
    assert FOUR.too_few({"chat": (2, 2), "embed": (1, 1)}) == (
        "too few GPUs: chat 2 x 2 and embed 1 x 1 is 5, and this machine has 4 (A, B); "
        "lower spec.replicas or spec.engine.parallelism"
    )
    assert Gpus().too_few({"chat": (2, 2)}) == ""


def test_a_process_that_names_its_devices_keeps_them() -> None:
    assert uses_gpus(["HF_TOKEN"])
    assert not uses_gpus(["CUDA_VISIBLE_DEVICES"])
