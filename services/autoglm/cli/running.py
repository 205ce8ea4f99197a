"""`autoglm ps`, `logs`, `restart` and `down`: inspect and change what `autoglm up` runs.

They work on the run directory: its socket while it runs, and the logs in it at any time.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import click

from autoglm.cli.options import document_option, examples
from autoglm.cli.output import document
from autoglm.cli.screen import age, canvas_of_terminal, drawn, table
from autoglm.local.control import DEFAULT_RUN_DIR, RUN_LOG, NotRunning, Run

_POLL_SECONDS = 0.2
_COLORS = ("cyan", "yellow", "green", "magenta", "blue")
_ENDED_BADLY = ("failed", "exited")
Raw = Mapping[str, Any]

run_dir_option = click.option(
    "--run-dir",
    default=DEFAULT_RUN_DIR,
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for logs and state, for one `autoglm up` at a time.",
)


@click.command(epilog=examples("autoglm ps", "autoglm ps --output json | jq .replicas[].state"))
@run_dir_option
@document_option
def ps(run_dir: Path, output: str) -> int:
    """List the processes that `autoglm up` runs.

    Without a run the list is empty.
    """
    try:
        state = Run(run_dir).state()
    except NotRunning as error:
        state = {"replicas": []}
        click.echo(str(error), err=True)
    if output != "text":
        click.echo(document(state, output), nl=False)
    elif state["replicas"]:
        click.echo(drawn([table(_HEADER, map(_cells, state["replicas"]))], canvas_of_terminal()))
    return 0


_HEADER = ("NAME", "STATE", "PID", "GRPC", "HTTP", "METRICS", "RESTARTS", "AGE", "MESSAGE")


def _cells(replica: Raw) -> Sequence[str]:
    return (
        replica["name"],
        replica["state"],
        str(replica["pid"] or "-"),
        *(replica[kind] for kind in ("grpc", "http", "metrics")),
        str(replica["restarts"]),
        age(replica["age_seconds"]),
        replica["stage"] or replica["last_failure"] or "-",
    )


@click.command(
    epilog=examples(
        "autoglm logs", "autoglm logs -f tiny-glm", "autoglm logs --tail 20 gateway tiny-glm-0"
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the run ends, or Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0), help="Last lines of each. [default: all]")
@click.option("--no-log-prefix", is_flag=True, help="Print lines without the name before them.")
@run_dir_option
def logs(
    names: tuple[str, ...], follow: bool, tail: int | None, no_log_prefix: bool, run_dir: Path
) -> int:
    """Print what processes of `autoglm up` have logged, also after it has ended.

    NAME is a model, a replica, `gateway`, or `up` for what a detached run reported itself; without
    one all are printed.
    """
    run = Run(run_dir)
    _chosen(run, names)  # names that there are not are an error at once
    width = max(map(len, _logs(run)), default=0)
    colors = cycle(_COLORS)
    shown: dict[str, _Log] = {}
    while True:
        is_alive = follow and run.is_alive
        for name, path in _chosen(run, names, is_strict=False).items():
            if name not in shown:
                prefix = "" if no_log_prefix else click.style(f"{name:{width}} | ", next(colors))
                shown[name] = _Log(path, prefix)
        for log in shown.values():
            for line in log.lines(tail):
                click.echo(f"{log.prefix}{line}")
        if not is_alive:
            return 0
        tail = None
        time.sleep(_POLL_SECONDS)


@dataclass
class _Log:
    """A log that grows, and that another may replace."""

    path: Path
    prefix: str
    _file: int = 0
    _position: int = 0
    _rest: bytes = field(default=b"")

    def lines(self, tail: int | None) -> Iterator[str]:
        """Yield the lines since the last call, at most the last `tail`."""
        try:
            with self.path.open("rb") as file:
                about = self.path.stat()
                if (about.st_ino, about.st_size >= self._position) != (self._file, True):
                    self._file, self._position, self._rest = about.st_ino, 0, b""
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return
        self._position += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in deque(whole, tail):
            yield line.decode(errors="replace")


def _logs(run: Run) -> dict[str, Path]:
    """Return the logs by the names of their processes: those that run, or else all there are."""
    own = {RUN_LOG.removesuffix(".log"): run.run_dir / RUN_LOG}
    try:
        found = {each["name"]: Path(each["log"]) for each in run.state()["replicas"]}
    except NotRunning:
        found = {file.stem: file for file in sorted(run.run_dir.glob("*.log"))}
    return {name: file for name, file in (found | own).items() if file.exists()}


def _chosen(run: Run, names: Sequence[str], *, is_strict: bool = True) -> dict[str, Path]:
    """Return the logs of the named models and processes, of all without names.

    Raises ClickException for a name without a log.
    """
    known = _logs(run)
    if not known and is_strict:
        raise click.ClickException(f"there are no logs in {run.run_dir}; {NotRunning(run.run_dir)}")
    if not names:
        return known
    found = {name: _of(name, known) for name in names}
    if is_strict:
        _reject_unknown(found, known)
    return {each: known[each] for matches in found.values() for each in matches}


def _of(name: str, known: Mapping[str, Any]) -> list[str]:
    """Return the processes of a name: the one with it, or the replicas of the model. Pure."""
    return [each for each in known if name in (each, each.rpartition("-")[0])]


def _reject_unknown(found: Mapping[str, Sequence[str]], known: Mapping[str, Any]) -> None:
    if unknown := [name for name, matches in found.items() if not matches]:
        raise click.BadParameter(
            f"there is no process or model {unknown[0]}; there are: {', '.join(known)}",
            param_hint="NAME",
        )


@click.command(
    epilog=examples("autoglm restart", "autoglm restart tiny-glm", "autoglm restart tiny-glm-0")
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@run_dir_option
def restart(names: tuple[str, ...], run_dir: Path) -> int:
    """Drain and restart models, replicas or the gateway of `autoglm up`, one after the other.

    Without a NAME all are restarted. With several replicas of a model the others serve meanwhile.
    Exits with the code of a replica that fails.
    """
    run, code = Run(run_dir), 0
    known = {each["name"]: each for each in _state(run)["replicas"]}
    found = {name: _of(name, known) for name in names or known}
    _reject_unknown(found, known)
    for name in dict.fromkeys(each for matches in found.values() for each in matches):
        click.echo(f"{name}: restarting")
        began = time.monotonic()
        after = _unless_ended(run.restart, name)
        if after.get("state") in _ENDED_BADLY:
            click.echo(f"{name}: {after['last_failure']}", err=True)
            code = after["exit_code"] or 1
        elif after:
            click.echo(f"{name}: {after['state']} after {time.monotonic() - began:.1f} s")
        else:
            click.echo(f"{name}: gone", err=True)
    return code


def _state(run: Run) -> dict[str, Any]:
    return _unless_ended(run.state)


def _unless_ended(request: Callable[..., dict[str, Any]], *names: str) -> dict[str, Any]:
    """Return the response of the run. Raises ClickException without a run."""
    try:
        return request(*names)
    except NotRunning as error:
        raise click.ClickException(str(error)) from error


@click.command(epilog=examples("autoglm down", "autoglm down --timeout 5"))
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End what still runs after this time. [default: each resource's grace period]",
)
@run_dir_option
def down(timeout: float | None, run_dir: Path) -> int:
    """Drain and end what `autoglm up` runs.

    Where nothing runs there is nothing to do.
    """
    run = Run(run_dir)
    try:
        running = _names(run)
    except NotRunning as error:
        click.echo(str(error), err=True)
        return 0
    _stop(run, running, timeout)
    run.wait_released()
    click.echo("stopped")
    return 0


def _stop(run: Run, running: Sequence[str], timeout: float | None) -> None:
    """Stop the run, and report each process that has ended until all have."""
    end = None if timeout is None else time.monotonic() + timeout
    with contextlib.suppress(NotRunning):
        run.stop()
        while True:
            left = _names(run)
            _report_stopped(running, left)
            running = left
            if end is not None and time.monotonic() >= end:
                run.stop()
                end = None
            time.sleep(_POLL_SECONDS)
    _report_stopped(running, ())


def _report_stopped(running: Sequence[str], left: Sequence[str]) -> None:
    for name in running:
        if name not in left:
            click.echo(f"{name}: stopped")


def _names(run: Run) -> list[str]:
    return [each["name"] for each in run.state()["replicas"]]
