"""Runs `autoglm ARGUMENTS` and records the lines of its package that execute.

    python traced.py PACKAGE_DIRECTORY ARGUMENTS...

On standard input `start` begins a recording, and `stop` ends it and writes `{file: [lines]}` as one
line of JSON that starts with `traced ` to standard output. Needs nothing but the package.
"""

from __future__ import annotations

import json
import sys
import threading
from types import FrameType
from typing import Any


class Recorder:
    """A trace function for `sys.settrace`."""

    def __init__(self, directory: str) -> None:
        self._prefix = directory.rstrip("/") + "/"
        self._lines: dict[str, set[int]] | None = None

    def start(self) -> None:
        self._lines = {}

    def stop(self) -> dict[str, list[int]]:
        lines, self._lines = self._lines or {}, None
        start = len(self._prefix)
        return {file[start:]: sorted(found) for file, found in sorted(lines.items())}

    def enter(self, frame: FrameType, event: str, _: object) -> Any:
        if self._lines is None or not frame.f_code.co_filename.startswith(self._prefix):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        lines = self._lines
        if lines is None:
            return None
        if event == "line":
            lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self._line


def _follow(recorder: Recorder) -> None:
    for command in sys.stdin:
        if command.strip() == "start":
            recorder.start()
        else:
            print("traced " + json.dumps(recorder.stop()), flush=True)


def main() -> None:
    directory, *arguments = sys.argv[1:]
    recorder = Recorder(directory)
    threading.Thread(target=_follow, args=(recorder,), daemon=True).start()
    from autoglm.cli import main as run

    threading.settrace(recorder.enter)
    sys.settrace(recorder.enter)
    sys.argv = ["autoglm", *arguments]
    run()


if __name__ == "__main__":
    main()
