"""Commands on a pseudo-terminal of a given width, and what its screen shows then."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_ROWS = 60
_READ_BYTES = 65536
_PAUSE_SECONDS = 0.2
# What rich writes besides text and colours: return, cursor up, erase line; others change no text.
_TOKEN = re.compile(r"\r\n|\n|\r|\x1b\[\d*[A-Za-ln-z]|\x1b\[\?\d+[hl]")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


class Failed(Exception):
    """A command did not come as far as it should; the text has its screen."""


@dataclass
class Terminal:
    """A running command and what it has written."""

    process: subprocess.Popen[bytes]
    _descriptor: int
    _written: bytes = b""

    @property
    def written(self) -> str:
        return self._written.decode(errors="replace")

    def resize(self, columns: int) -> None:
        """Set the width, which the command finds when it reads it again."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, _size(columns))

    def read(self, seconds: float) -> bool:
        """Read for at most `seconds`; return False once the command has closed the terminal."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self._descriptor], [], [], left)[0]:
                return True
            try:
                new = os.read(self._descriptor, _READ_BYTES)
            except OSError:  # Linux reports the end of the other side so.
                return False
            if not new:
                return False
            self._written += new
        return True

    def read_frames(self, count: int, seconds: float) -> None:
        """Read until the command has drawn so often, with pauses between. Raises Failed."""
        end = time.monotonic() + seconds
        for _ in range(count):
            before = len(self._written)
            while len(self._written) == before:
                if not self.read(_PAUSE_SECONDS) or time.monotonic() > end:
                    raise Failed(f"nothing is drawn any more:\n{self.written}")

    def read_until(self, text: str, seconds: float) -> None:
        """Read until `text` is written. Raises Failed where that takes longer, or never comes."""
        end = time.monotonic() + seconds
        is_open = True
        while text not in _COLOR.sub("", self.written):
            if not is_open or time.monotonic() > end:
                raise Failed(f"no {text!r} on the screen:\n{self.written}")
            is_open = self.read(_PAUSE_SECONDS)


@contextmanager
def running(
    command: Sequence[str], width: int, environment: Mapping[str, str], directory: Path
) -> Iterator[Terminal]:
    """Run a command on a terminal of `width` columns; interrupt it at the end, as Ctrl-C does."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, _size(width))
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**environment, "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(process, ours)
    try:
        yield terminal
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        while terminal.read(60):
            pass
        process.wait(60)
        os.close(ours)


def _size(columns: int) -> bytes:
    return struct.pack("HHHH", _ROWS, columns, 0, 0)


def shown(written: str) -> list[str]:
    """Return the lines that a screen shows, each with its colours. Pure."""
    lines, row, start = [""], 0, 0
    for match in [*_TOKEN.finditer(written), None]:
        lines[row] += written[start : match.start() if match else None]
        if match is None:
            break
        start = match.end()
        if match[0].endswith("\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif match[0].endswith("A"):
            row = max(0, row - int(match[0][2:-1] or 1))
        elif match[0].endswith("K"):
            lines[row] = ""
    while lines and not _COLOR.sub("", lines[-1]).strip():
        lines.pop()
    return lines


def plain(lines: Sequence[str], width: int) -> list[str]:
    """Return the lines without colours, broken where a terminal breaks them. Pure."""
    found = []
    for line in lines:
        text = _COLOR.sub("", line).rstrip()
        found += [text[at : at + width].rstrip() for at in range(0, len(text), width)] or [""]
    return found
