"""Counts the bytecode instructions that Python code takes: our own, and ours and the libraries'.

Only this thread's. The event loop, the benchmarks themselves and C code are not counted: loops turn
as often as the kernel has news, and what a C function does shows in no count of instructions.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import autoglm

_OURS = str(Path(autoglm.__path__[0])) + "/"
_RIG = str(Path(__file__).parents[1]) + "/"
_LOOP = ("asyncio/base_events.py", "asyncio/events.py", "selectors.py", "_events.py")
# Fakes of ours, and what a test's own run brings along.
_OTHERS = ("autoglm/testing/", "/_pytest/", "/pluggy/", "/tracemalloc.py", "/tests/")


@dataclass(slots=True)
class Instructions:
    """What was counted inside of the context. `all` includes `own`."""

    own: int = 0
    libraries: int = 0

    @property
    def all(self) -> int:
        return self.own + self.libraries


class Counting:
    """A context in which instructions are counted, of frames that begin or go on inside of it."""

    def __init__(self) -> None:
        self.found = Instructions()
        self._kinds: dict[CodeType, Any] = {}

    def __enter__(self) -> Self:
        # A collection in the middle would run finalizers that are nobody's.
        gc.collect()
        gc.disable()
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        gc.enable()

    def _enter(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code not in self._kinds:
            self._kinds[code] = self._kind(code.co_filename)
        local = self._kinds[code]
        if local is not None:
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return local

    def _kind(self, file: str) -> Any:
        if file.startswith(_RIG) or any(part in file for part in _OTHERS):
            return None
        if file.startswith(_OURS):
            return self._own
        return None if file.endswith(_LOOP) else self._library

    def _own(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            self.found.own += 1
        return self._own

    def _library(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode":
            self.found.libraries += 1
        return self._library
