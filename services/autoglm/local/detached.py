"""Starts `up` as a process that outlives the shell, and follows it until all is ready.

The process is this module's, in a session of its own. It gets its manifests and options on standard
input, as JSON, and writes its lines to `up.log` in the run directory.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autoglm.common.process import ExitCode, raise_open_file_limit
from autoglm.local import control
from autoglm.local.manifest import Source, Text
from autoglm.local.planning import Addresses
from autoglm.local.up import UpOptions, up

_POLL_SECONDS = 0.2


def start(sources: Sequence[Source], options: UpOptions, report: Callable[[str], None]) -> int:
    """Start a run and report its lines until all is ready; return its exit code if it ends before.

    Ctrl-C ends the run.
    """
    run, log = control.Run(options.run_dir), options.run_dir / control.RUN_LOG
    options.run_dir.mkdir(parents=True, exist_ok=True)
    if run.is_alive:
        report(control.in_use(options.run_dir))
        return ExitCode.ADDRESS_IN_USE
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(encoded(sources, options).encode())
    process.stdin.close()
    with log.open() as lines:

        def report_lines() -> None:
            for line in lines:
                report(line.rstrip("\n"))

        try:
            return _follow(process, run, report_lines)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            report_lines()
            raise


def _follow(
    process: subprocess.Popen[bytes], run: control.Run, report_lines: Callable[[], None]
) -> int:
    while True:
        code = process.poll()
        is_ready = code is None and _is_ready(run)
        report_lines()
        if code is not None:
            return code
        if is_ready:
            process.returncode = 0  # No child to wait for any more.
            return 0
        time.sleep(_POLL_SECONDS)


def _is_ready(run: control.Run) -> bool:
    try:
        return bool(run.state()["ready"])
    except control.NotRunning:  # yet
        return False


def encoded(sources: Sequence[Source], options: UpOptions) -> str:
    """Return manifests and options as JSON; `decoded` is the inverse."""
    value = {
        "texts": [each.text for each in sources if isinstance(each, Text)],
        "files": [str(each) for each in sources if isinstance(each, Path)],
        "run_dir": str(options.run_dir),
        "gateway": asdict(options.gateway),
        "traces": options.traces,
        "gateway_flags": options.gateway_flags,
        "watch": options.watch,
        "program": options.program,
    }
    return json.dumps(value)


def decoded(text: str) -> tuple[list[Source], UpOptions]:
    """Return manifests and options of a detached run."""
    value: dict[str, Any] = json.loads(text)
    options = UpOptions(
        run_dir=Path(value["run_dir"]),
        gateway=Addresses(**value["gateway"]),
        traces=value["traces"],
        gateway_flags=tuple(value["gateway_flags"]),
        watch=value["watch"],
        program=tuple(value["program"]),
    )
    sources: list[Source] = [*map(Path, value["files"]), *map(Text, value["texts"])]
    return sources, replace(options, is_detached=True, table=False)


def main() -> int:
    """Run as the detached process."""
    sources, options = decoded(sys.stdin.read())
    raise_open_file_limit()
    return asyncio.run(up(sources, options))


if __name__ == "__main__":
    sys.exit(main())
