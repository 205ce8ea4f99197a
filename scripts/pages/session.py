"""One page's run: a directory with the files of a clone, a shell's variables, and a server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 300.0
START_SECONDS = 900.0
STOP_SECONDS = 120.0
_POLL_SECONDS = 0.1
# Without a hub, as in a test; and nothing of the caller's that commands would read.
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
_KEPT = ("HOME", "LANG", "TMPDIR", "TERM")
# Variables live on in the next block; what it exits with is what the block exits with.
_SHELL = """set -e
[ ! -f {state} ] || . {state}
trap 'code=$?; export -p > {state}; exit $code' EXIT
{text}"""


class Failed(Exception):
    """A command did something else than its page says; the text says what."""


@dataclass
class Session:
    scratch: Path
    environment: dict[str, str] = field(default_factory=dict)
    _server: subprocess.Popen[bytes] | None = None
    _log: Path = Path()

    @property
    def clone(self) -> Path:
        return self.scratch / "clone"

    def prepare(self) -> None:
        """Copy what a clone has, and lend it this one's environment."""
        self.clone.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.clone / name, follow_symlinks=False)
        (self.clone / ".venv").symlink_to(ROOT / ".venv")
        paths = f"{ROOT}/.venv/bin:{ROOT}/build/bin:{os.environ['PATH']}"
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment = {**kept, "PATH": paths, **_ENVIRONMENT}

    def run(self, text: str, exit_code: int = 0) -> str:
        """Run a block; return what it printed. Raises Failed."""
        script = _SHELL.format(state=self.scratch / "variables", text=text)
        try:
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=RUN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"not done after {RUN_SECONDS:g} s:\n{text}") from error
        if done.returncode != exit_code:
            raise Failed(f"exit code {done.returncode}, not {exit_code}:\n{text}\n{done.stdout}")
        return done.stdout

    def serve(self, text: str) -> str:
        """Start a server; return what it printed until it was ready. Raises Failed."""
        self.stop()
        self._log = self.scratch / "server.log"
        script = _SHELL.format(state=self.scratch / "variables", text=text)
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.clone,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell cannot take back that its parent ignores interrupts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        end = time.monotonic() + START_SECONDS
        while not any(line.startswith("ready:") for line in self._printed().splitlines()):
            if self._server.poll() is not None:
                raise Failed(f"ended before it was ready:\n{text}\n{self._printed()}")
            if time.monotonic() > end:
                raise Failed(f"not ready after {START_SECONDS:g} s:\n{text}\n{self._printed()}")
            time.sleep(_POLL_SECONDS)
        return self._printed()

    def _printed(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End the server as Ctrl-C does. Raises Failed where it does not end well."""
        server, self._server = self._server, None
        if server is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        try:
            code = server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"did not end on Ctrl-C:\n{self._printed()}") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
        if code not in (0, 130, -signal.SIGINT):
            raise Failed(f"ended with exit code {code} on Ctrl-C:\n{self._printed()}")
