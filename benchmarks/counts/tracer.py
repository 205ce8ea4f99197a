"""Counts the bytecode instructions that Python code takes: our own, and ours and the libraries'.

The event loop, the benchmarks themselves and C code are not counted: loops turn
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


def _kind(file: str) -> str:
    """Whose code it is; empty for what is not counted."""
    if file.startswith(_RIG) or any(part in file for part in _OTHERS):
        return ""
    if file.startswith(_OURS):
        return "own"
    return "" if file.endswith(_LOOP) else "libraries"


class Counting:
    """A context in which instructions are counted."""

    def __init__(self) -> None:
        self.found = Instructions()
        self._kinds: dict[CodeType, str] = {}

    def __enter__(self) -> Self:
        # A collection in the middle would run finalizers of other code.
        gc.collect()
        gc.disable()
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        gc.enable()

    def _kind_of(self, code: CodeType) -> str:
        kind = self._kinds.get(code)
        if kind is None:
            kind = self._kinds[code] = _kind(code.co_filename)
        return kind

    if sys.version_info >= (3, 12):
        # Opcode events of `settrace` are incomplete from 3.12 on.
        def _begin(self) -> None:
            monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION
            monitoring.use_tool_id(monitoring.PROFILER_ID, "autoglm counts")
            monitoring.register_callback(monitoring.PROFILER_ID, event, self._instruction)
            monitoring.set_events(monitoring.PROFILER_ID, event)

        def _end(self) -> None:
            sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
            sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)

        def _instruction(self, code: CodeType, _: int) -> object:
            kind = self._kind_of(code)
            if not kind:
                return sys.monitoring.DISABLE
            setattr(self.found, kind, getattr(self.found, kind) + 1)
            return None
    else:

        def _begin(self) -> None:
            self._before = sys.gettrace()
            sys.settrace(self._enter)

        def _end(self) -> None:
            sys.settrace(self._before)

        def _enter(self, frame: FrameType, event: str, _: object) -> Any:
            kind = self._kind_of(frame.f_code)
            if not kind:
                return None
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
            return self._own if kind == "own" else self._library

        def _own(self, frame: FrameType, event: str, _: object) -> Any:
            if event == "opcode":
                self.found.own += 1
            return self._own

        def _library(self, frame: FrameType, event: str, _: object) -> Any:
            if event == "opcode":
                self.found.libraries += 1
            return self._library
