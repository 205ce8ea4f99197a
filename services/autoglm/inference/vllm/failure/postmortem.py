"""Finds out why an engine did not start or has died.

vLLM's engine and its workers are processes of their own; an exception there reaches this process as
"see root cause above", meaning the log. So their errors are logged into a file as well, which is
read when it matters. Decides nothing about remedies; `autoglm.inference.diagnosis` does.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_RECORD = "\x1e"
_FORMAT = f"{_RECORD}%(process)d %(message)s"
_HEADER = "The engine process said:\n"
_TRACEBACK = "Traceback (most recent call last):"


class UntilStarted(logging.Filter):
    """Passes records until a file exists; runs in vLLM's processes."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self._marker = Path(marker)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._marker.exists()


class EngineLog:
    """Errors that vLLM logs in processes other than this one, and all messages of its start."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="autoglm-engine-")
        self._errors = Path(self._directory.name, "errors.log")
        self.messages = Path(self._directory.name, "messages.log")
        """What vLLM logs until `skip`, by which its start is followed."""
        self._started = Path(self._directory.name, "started")
        self._read_from = 0

    def configure(self, default: Mapping[str, Any]) -> str:
        """Write a logging configuration like vLLM's own that fills this log; return its path."""
        config = copy.deepcopy(dict(default))
        config["formatters"]["postmortem"] = {"format": _FORMAT}
        until_started = {
            "()": f"{UntilStarted.__module__}.{UntilStarted.__name__}",
            "marker": str(self._started),
        }
        config.setdefault("filters", {})["until_started"] = until_started
        handler = {"class": "logging.FileHandler", "formatter": "postmortem", "delay": True}
        config["handlers"] |= {
            "postmortem": handler | {"filename": str(self._errors), "level": "ERROR"},
            "messages": handler
            | {"filename": str(self.messages), "level": "INFO", "filters": ["until_started"]},
        }
        config["loggers"]["vllm"]["handlers"] += ["postmortem", "messages"]
        path = Path(self._directory.name, "logging.json")
        path.write_text(json.dumps(config))
        return str(path)

    def skip(self) -> None:
        """Forget what was logged so far: the engine has started in spite of it."""
        self._started.touch()
        self._read_from = self._errors.stat().st_size if self._errors.exists() else 0

    def first_failure(self) -> str:
        """Return the first traceback of another process, or an empty string."""
        if not self._errors.exists():
            return ""
        return first_failure(self._errors.read_text(errors="replace")[self._read_from :])

    def close(self) -> None:
        self._directory.cleanup()


def first_failure(log: str, own_pid: int | None = None) -> str:
    """Return the first record with a traceback that a process other than `own_pid` wrote."""
    own = str(os.getpid() if own_pid is None else own_pid)
    for record in log.split(_RECORD)[1:]:
        pid, _, text = record.partition(" ")
        if pid != own and _TRACEBACK in text:
            return text.strip()
    return ""


def attach(error: BaseException, failure: str) -> None:
    """Add `failure` as a note to `error`, for `root_cause` and for tracebacks."""
    if failure:
        error.add_note(_HEADER + failure)


def root_cause(error: BaseException) -> str:
    """Return the exception that started it all, as `Type: message`, from whichever process."""
    for note in getattr(error, "__notes__", ()):
        if note.startswith(_HEADER):
            return _last_exception(note)
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    return f"{type(error).__name__}: {error}"


def _last_exception(text: str) -> str:
    """Return the exception and its message, behind the last indented line of a traceback."""
    lines = text.splitlines()
    start = max((i for i, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return re.sub(r"^[\w.]*\.(?=\w+:)", "", "\n".join(lines[start + 1 :]).strip())


def sentence(failure: str, exit_codes: Mapping[str, int]) -> str:
    """Return in a sentence why a running engine died."""
    if failure:
        return f"the engine process failed: {_last_exception(failure)}"
    for name, code in exit_codes.items():
        if code < 0:
            killed = signal.Signals(-code).name
            hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
            return f"the engine process {name} was killed with {killed}{hint}"
        return f"the engine process {name} ended with exit code {code}"
    return "the engine process can no longer be reached"
