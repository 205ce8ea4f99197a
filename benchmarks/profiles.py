"""Where a Python process spends its time, by py-spy: sampled from outside, beside a benchmark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

_PER_SECOND = 200
_SHOWN = 20


def check() -> None:
    """Raise click.UsageError where there is no py-spy."""
    if _program() is None:
        raise click.UsageError("--profile needs py-spy: .venv/bin/uv pip install py-spy")


def _program() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


@contextmanager
def recording(pid: int, file: Path, seconds: float) -> Iterator[None]:
    """Collapsed stacks of the process's busy time in `file`, one a line, as flame graphs take."""
    command = [
        *(_program() or "py-spy", "record", "--pid", str(pid), "--output", str(file)),
        *("--format", "raw", "--rate", str(_PER_SECOND), "--duration", f"{seconds:.0f}"),
        *("--nonblocking", "--function"),
    ]
    done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        _, errors = done.communicate(timeout=60)
    if done.returncode:
        raise RuntimeError(f"py-spy: {errors.strip()}")


def shares(file: Path) -> list[str]:
    """The functions with the largest share of the time: their own, and with what they call."""
    own, whole = counted(file.read_text().splitlines())
    samples = max(1, sum(own.values()))
    lines = [f"   own  whole  ({samples} samples; stacks in {file})"]
    for name, count in own.most_common(_SHOWN):
        lines.append(f"{count / samples:6.1%} {whole[name] / samples:6.1%}  {name}")
    return lines


def counted(stacks: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Samples of each function: as the innermost one, and anywhere in a stack."""
    own, whole = Counter[str](), Counter[str]()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        names = stack.split(";")
        own[names[-1]] += int(count)
        for name in set(names):
            whole[name] += int(count)
    return own, whole
