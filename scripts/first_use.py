"""Measures what a new user waits for, in a fresh clone of this repository's last commit.

    python -m scripts.first_use                 all steps, in their order; about half an hour
    python -m scripts.first_use install serve   these
    python -m scripts.first_use --here serve    in this checkout, with its .venv
    python -m scripts.first_use --cold          without the packages that uv and pip have cached

Prints a table with seconds and CPU seconds, the machine's first. Run it while nothing else does.
A step that fails ends the run with its output; exits with 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
URL = "http://127.0.0.1:8080/v1/chat/completions"
_SECONDS = 3600.0
_STOP_SECONDS = 120.0
_BODY = {"model": "tiny-glm", "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}


class StepFailed(Exception):
    """A step did not do what it should; the text has its output."""


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    what: str
    run: Callable[[Path, Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class Taken:
    what: str
    seconds: float
    cpu_seconds: float


def shell(command: str) -> Callable[[Path, Mapping[str, str]], None]:
    """Return a step that runs a command to its end. The step raises StepFailed."""

    def run(clone: Path, environment: Mapping[str, str]) -> None:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise StepFailed(f"`{command}` ended with exit code {done.returncode}:\n{done.stdout}")

    return run


def serve(clone: Path, environment: Mapping[str, str]) -> None:
    """Serve the tiny model until the first token of a response. Raises StepFailed."""
    command = (".venv/bin/autoglm", "serve", "examples/tiny-glm/model")
    with (clone / "serve.log").open("w+") as log:
        server = subprocess.Popen(
            command, cwd=clone, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            end = time.monotonic() + _SECONDS
            while not has_token(URL):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise StepFailed(f"`{' '.join(command)}` sent no token:\n{log.read()}")
                time.sleep(0.1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.send_signal(signal.SIGINT)
            server.wait(_STOP_SECONDS)


def has_token(url: str) -> bool:
    """Return whether a stream from the server has a token; False where none listens yet."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(_BODY).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return any(_content(line) for line in response)
    except OSError:  # HTTPError as well: the model is not ready.
        return False


def _content(line: bytes) -> str:
    if not line.startswith(b"data: {"):
        return ""
    choices = json.loads(line[len(b"data: ") :])["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


_PAGES = "docs/guides/own-model-laptop.md", "docs/guides/own-model-cluster.md"
STEPS = (
    Step("install", "make install", shell("make install")),
    Step("demo", "make demo", shell("make demo")),
    Step("serve", "autoglm serve examples/tiny-glm/model, to the first token", serve),
    *(
        Step(
            Path(page).stem.removeprefix("own-model-"),
            f"the commands of {page}",
            shell(f".venv/bin/python -m scripts.pages {page}"),
        )
        for page in _PAGES
    ),
    Step("cluster-demo", "make cluster-demo", shell("make cluster-demo")),
)


@contextlib.contextmanager
def fresh_clone() -> Iterator[Path]:
    """Yield a clone of the last commit, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="autoglm-first-use-") as scratch:
        clone = Path(scratch) / "open-autoglm"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        yield clone


def measured(steps: Sequence[Step], clone: Path, environment: Mapping[str, str]) -> Iterator[Taken]:
    """Run the steps; yield what each took. Raises StepFailed."""
    for step in steps:
        print(f"== {step.what}", file=sys.stderr, flush=True)
        began, before = time.monotonic(), _cpu_seconds()
        step.run(clone, environment)
        yield Taken(step.what, time.monotonic() - began, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(taken: Sequence[Taken]) -> str:
    """Return the Markdown table of what the steps took."""
    rows = [f"| {t.what} | {t.seconds:.1f} | {t.cpu_seconds:.1f} |" for t in taken]
    return "\n".join(["| step | seconds | CPU seconds |", "|---|---|---|", *rows])


def main(arguments: Sequence[str]) -> int:
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(
        prog="python -m scripts.first_use",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--here", action="store_true", help="in this checkout, with its .venv")
    parser.add_argument("--cold", action="store_true", help="without cached packages")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(names))
    options = parser.parse_args(arguments)
    if unknown := set(options.steps) - set(names):
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    steps = [step for step in STEPS if not options.steps or step.name in options.steps]
    taken: list[Taken] = []
    with contextlib.ExitStack() as stack:
        clone = ROOT if options.here else stack.enter_context(fresh_clone())
        environment = dict(os.environ)
        if options.cold:
            cache = stack.enter_context(tempfile.TemporaryDirectory(prefix="autoglm-packages-"))
            environment |= {"UV_CACHE_DIR": f"{cache}/uv", "PIP_CACHE_DIR": f"{cache}/pip"}
        try:
            taken.extend(measured(steps, clone, environment))
        except StepFailed as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            print(f"{os.cpu_count()} cores, {platform.platform()}, Python {sys.version.split()[0]}")
            print(table(taken))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
