"""One child process: start it in a group of its own, say why it ended, leave nothing of it behind.

Decides nothing; `runtime` says when.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from autoglm.local.planning import LOOPBACK, Addresses, Process

TERMINATION_VARIABLE = "AUTOGLM_TERMINATION_MESSAGE_FILE"
# Exit codes of the pods' start-up diagnosis: a further try can't go better.
PERMANENT_EXIT_CODES = range(64, 80)
_TAIL_BYTES = 4096
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Files:
    """Where a replica writes."""

    log: Path
    termination: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a replica ended that should not have."""

    message: str
    exit_code: int | None = None

    @property
    def is_permanent(self) -> bool:
        return self.exit_code in PERMANENT_EXIT_CODES


class Child:
    """A running child and its whole process group."""

    def __init__(self, process: asyncio.subprocess.Process, files: Files) -> None:
        self._process = process
        self._files = files
        self.pid = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def terminate(self) -> None:
        """Asks the leader to drain; the rest of the group is the leader's to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill_group(self) -> None:
        """Ends the leader and everything it started, now."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def failure(self) -> Failure:
        """Why it ended: its own words, or how it went and what it logged last."""
        code = self._process.returncode
        message = _read_tail(self._files.termination).strip()
        if message:
            return Failure(message, code)
        last = last_line(self._files.log)
        said = f"; last line: {last}" if last else ""
        return Failure(f"{_how_it_ended(code)}{said}; log: {self._files.log}", code)


async def start(process: Process, addresses: Addresses, files: Files) -> Child:
    """Starts a child. Raises OSError when the program can't be run."""
    command = [*process.argv, *addresses.flags()]
    env = _environment(process, files)
    with ExitStack() as stack:
        log = stack.enter_context(files.log.open("ab"))
        files.termination.unlink(missing_ok=True)
        # A group of its own keeps the terminal's Ctrl-C away: draining is ours to order.
        running = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            start_new_session=True,
        )
    return Child(running, files)


def free_addresses(taken: Collection[Addresses] = ()) -> Addresses:
    """Three loopback addresses that are free now and not promised to anyone else."""
    promised = {text for a in taken for text in (a.grpc, a.http, a.metrics)}
    found: list[str] = []
    with ExitStack() as stack:
        while len(found) < 3:
            listener = stack.enter_context(socket.socket())
            listener.bind((LOOPBACK, 0))
            address = f"{LOOPBACK}:{listener.getsockname()[1]}"
            found += [address] if address not in promised else []
    return Addresses(*found)


def with_free_ports(addresses: Addresses) -> Addresses:
    """The same addresses with a free port wherever the port is 0."""
    free = free_addresses()
    return Addresses(
        _with_port(addresses.grpc, free.grpc),
        _with_port(addresses.http, free.http),
        _with_port(addresses.metrics, free.metrics),
    )


def _with_port(address: str, free: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{free.rpartition(':')[2]}" if port == "0" else address


def last_line(log: Path) -> str:
    """The last line of a log that says something, shortened."""
    lines = [line.strip() for line in _read_tail(log).splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return _message(last)[:_SHOWN_CHARACTERS]


def _message(line: str) -> str:
    """What a JSON log line says; any other line as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return str(record["message"]) if isinstance(record, dict) and "message" in record else line


def _environment(process: Process, files: Files) -> Mapping[str, str]:
    return {**os.environ, **dict(process.env), TERMINATION_VARIABLE: str(files.termination)}


def _read_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


def _how_it_ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exited with code {code}"
    name = signal.Signals(-code).name
    hint = " (by hand, or by the kernel when memory ran out)" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"
