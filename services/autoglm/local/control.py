"""The user of a run directory: one `autoglm up` at a time, which commands reach by a socket in it.

A lock says whose the directory is, and a connection to the socket that the run is alive. Both end
with the process, however it ends, so nothing that it leaves behind can be taken for a run.
`Server` is the side of `up`, `Run` that of the commands.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    from aiohttp import web

DEFAULT_RUN_DIR = Path(".autoglm")
RUN_LOG = "up.log"
"""Log of a detached run itself, in its run directory."""
_SOCKET, _LOCK = "control.sock", "lock"
_RELEASE_SECONDS, _POLL_SECONDS = 10.0, 0.05
_BACKLOG = 16


class Controlled(Protocol):
    """A run that commands inspect and change."""

    def state(self) -> dict[str, Any]:
        """Return the run's processes, its gateway, and whether all is ready."""

    async def restart(self, name: str) -> dict[str, Any] | None:
        """Restart a replica or the gateway; return its state then, or None for an unknown name."""

    def stop(self) -> None:
        """Drain and end the run; called again, end it at once."""


class NotRunning(Exception):
    """No `autoglm up` uses the run directory."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(
            f"no `autoglm up` runs in {run_dir}; start one by `autoglm up -d -f FILE"
            f"{flag_of(run_dir)}`"
        )


def flag_of(run_dir: Path) -> str:
    """Return the flag for a command that names the run directory; empty for the default one."""
    return "" if run_dir == DEFAULT_RUN_DIR else f" --run-dir {run_dir}"


def in_use(run_dir: Path) -> str:
    """Return what to do where another run uses the directory."""
    return (
        f"another `autoglm up` uses {run_dir}; end it by `autoglm down{flag_of(run_dir)}`, or "
        "choose another directory with --run-dir"
    )


@contextlib.contextmanager
def sole_user(run_dir: Path) -> Iterator[None]:
    """Lock the run directory. Raises BlockingIOError if another `up` has it."""
    with (run_dir / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.asynccontextmanager
async def served(run_dir: Path, run: Controlled) -> AsyncIterator[None]:
    """Serve the socket of a locked run directory, for this user's processes only."""
    from aiohttp import web  # which commands do not need

    async def state(request: web.Request) -> web.Response:
        return web.json_response(run.state())

    async def restart(request: web.Request) -> web.Response:
        found = await run.restart(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return web.json_response(found)

    async def stop(request: web.Request) -> web.Response:
        run.stop()
        return web.json_response({})

    app = web.Application()
    app.add_routes(
        [
            web.get("/state", state),
            web.post("/restart/{name}", restart),
            web.post("/stop", stop),
        ]
    )
    # Requests that wait for a restart end with the run.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, _bound(run_dir), backlog=_BACKLOG).start()
        yield
    finally:
        (run_dir / _SOCKET).unlink(missing_ok=True)
        await runner.cleanup()


def _bound(run_dir: Path) -> socket.socket:
    """Return the listening socket, which only this user's processes can reach at any moment."""
    listener = socket.socket(socket.AF_UNIX)
    # In a directory of mode 0700 until it has its own mode. By its name alone, since a socket's
    # path has at most some hundred characters.
    with tempfile.TemporaryDirectory(dir=run_dir) as private, contextlib.chdir(private):
        listener.bind(_SOCKET)
        Path(_SOCKET).chmod(0o600)
        Path(_SOCKET).replace(Path("..", _SOCKET))  # also one of a run that was killed
    return listener


class _Connection(http.client.HTTPConnection):
    def __init__(self, run_dir: Path) -> None:
        super().__init__("localhost")
        self._run_dir = run_dir

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        with contextlib.chdir(self._run_dir):
            self.sock.connect(_SOCKET)


class Run:
    """The run of a directory, for commands. Methods raise NotRunning where there is none."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    @property
    def is_alive(self) -> bool:
        try:
            self.state()
        except NotRunning:
            return False
        return True

    def state(self) -> dict[str, Any]:
        return self._request("GET", "/state")

    def restart(self, name: str) -> dict[str, Any]:
        """Restart one process; return its state when it is ready or has failed."""
        return self._request("POST", f"/restart/{quote(name, safe='')}")

    def stop(self) -> None:
        """Begin to drain; called again, end the run at once."""
        self._request("POST", "/stop")

    def wait_released(self) -> None:
        """Wait until the ending run has left the directory to the next one."""
        end = time.monotonic() + _RELEASE_SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError), sole_user(self.run_dir):
                return
            time.sleep(_POLL_SECONDS)

    def _request(self, method: str, path: str) -> dict[str, Any]:
        connection = _Connection(self.run_dir)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(self.run_dir) from error
        finally:
            connection.close()
        found: Mapping[str, Any] = json.loads(body) if response.status == 200 else {}
        return dict(found)
