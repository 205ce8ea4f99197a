"""Starts a child process in its own process group, ends it, and reports why it ended.

`runtime` decides when.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from autoglm.common.process import ExitCode
from autoglm.local.planning import LOOPBACK, Addresses, Process

TERMINATION_VARIABLE = "AUTOGLM_TERMINATION_MESSAGE_FILE"
_TAIL_BYTES = 4096
_SHOWN_CHARACTERS = 400
_DIAGNOSIS = re.compile(r"(?:(?P<reason>[A-Z]\w+): )?(?P<message>.+)", re.DOTALL)
_CANNOT_START = re.compile(r"autoglm \w+ (?:cannot start|ends): (?P<why>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Files:
    """Files that a replica writes."""

    log: Path
    termination: Path


@dataclass(frozen=True, slots=True)
class Failure:
    """Reason of an unexpected exit."""

    message: str
    exit_code: int | None = None
    reason: str = ""
    """A word for machines, of the process's own diagnosis."""

    def is_final(self, *, has_fixed_addresses: bool = False) -> bool:
        """Return whether another start fails alike until something changes.

        A process without fixed addresses gets other ones at its next start.
        """
        if self.exit_code == ExitCode.ADDRESS_IN_USE:
            return has_fixed_addresses
        return self.exit_code in set(ExitCode) and ExitCode(self.exit_code).is_final


class Child:
    """A running child and its whole process group."""

    def __init__(self, process: asyncio.subprocess.Process, files: Files) -> None:
        self._process = process
        self._files = files
        self.pid = process.pid

    async def wait(self) -> int:
        return await self._process.wait()

    def terminate(self) -> None:
        """Send SIGTERM to the leader, which drains and ends the rest of its group."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill_group(self) -> None:
        """Send SIGKILL to the leader and all processes that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def failure(self) -> Failure:
        """Return the child's termination message, or else its exit status and last log line."""
        code = self._process.returncode
        diagnosis = _DIAGNOSIS.fullmatch(_read_tail(self._files.termination).strip())
        if diagnosis:
            return Failure(diagnosis["message"], code, diagnosis["reason"] or "")
        status = f"exited with code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (by a user, or by the kernel when out of memory)" if name == "SIGKILL" else ""
            status = f"killed by {name}{hint}"
        last = last_line(self._files.log)
        if said := _CANNOT_START.match(last):
            return Failure(said["why"], code)
        shown = f"; last line: {last}" if last else ""
        return Failure(f"{status}{shown}; log: {self._files.log}", code)


async def start(process: Process, addresses: Addresses, files: Files) -> Child:
    """Start a child. Raises OSError if the program can't be run."""
    command = [*process.argv, *addresses.flags()]
    termination = {TERMINATION_VARIABLE: str(files.termination)}
    with ExitStack() as stack:
        log = stack.enter_context(files.log.open("ab"))
        files.termination.unlink(missing_ok=True)
        # Its own group, since Ctrl-C on the terminal must not reach it: `runtime` drains it.
        running = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **dict(process.env), **termination},
            start_new_session=True,
        )
    return Child(running, files)


def free_addresses(taken: Collection[Addresses] = ()) -> Addresses:
    """Return three free loopback addresses that are not in `taken`."""
    reserved = {text for a in taken for text in (a.grpc, a.http, a.metrics)}
    found: list[str] = []
    with ExitStack() as stack:
        while len(found) < 3:
            listener = stack.enter_context(socket.socket())
            listener.bind((LOOPBACK, 0))
            address = f"{LOOPBACK}:{listener.getsockname()[1]}"
            found += [address] if address not in reserved else []
    return Addresses(*found)


def with_free_ports(addresses: Addresses) -> Addresses:
    """Replace each port 0 by a free port."""
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
    """Return the last non-empty line of a log, or its message if it is JSON; shortened."""
    lines = [line.strip() for line in _read_tail(log).splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    with suppress(ValueError):
        record = json.loads(last)
        if isinstance(record, dict) and "message" in record:
            last = str(record["message"])
    return last[:_SHOWN_CHARACTERS]


def _read_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
