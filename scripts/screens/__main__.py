"""Draws the screens of docs/guides/screens.md and docs/figures/up.svg from real runs.

    python -m scripts.screens                    all that this machine can run
    python -m scripts.screens size fields ...    these
    python -m scripts.screens --check size ...   exits 1 where the page shows something else

Commands run on terminals of the widths that the page names, with echo models and the directory of
the tiny GLM-4.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.pages.isolation import ISOLATED, isolation
from scripts.screens import svg
from scripts.screens.page import Key, keys, lines_of, with_screens
from scripts.screens.terminal import plain, running, shown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/guides/screens.md"
FIGURE = ROOT / "docs/figures/up.svg"
MANIFEST = "examples/two-models.yaml"
_SECONDS = 300.0
_FIGURE_COLUMNS = 100
# The first one may have been drawn for the width before.
_FRAMES = 3
_ALONE = {
    "size": ("autoglm", "size", "examples/tiny-glm/model", "--context", "2048"),
    "fields": ("autoglm", "explain", "agd.spec.model.cache"),
}
"""What needs no server: always the same output."""
_LOCAL = {
    "status": ("autoglm", "status"),
    "explain-route": ("autoglm", "explain-route", "--model", "echo-small", "What is a gateway?"),
}
"""What a running `autoglm up` shows."""
Screens = dict[Key, list[str]]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.screens", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare; write nothing")
    parser.add_argument("names", nargs="*", help="such as size; all where none is given")
    options = parser.parse_args(arguments)
    if command := isolation():
        again = [*command, sys.executable, "-m", "scripts.screens", *arguments]
        return subprocess.run(again, env={**os.environ, ISOLATED: "1"}, check=False).returncode
    page = PAGE.read_text()
    wanted = [key for key in keys(page) if not options.names or key.name in options.names]
    with workplace() as directory:
        drawn = {k: _run(_ALONE[k.name], k, directory) for k in wanted if k.name in _ALONE}
        if served := [key for key in wanted if key.name in {"up", *_LOCAL}]:
            drawn |= _served(served, directory, figure=None if options.check else FIGURE)
        if options.check:
            return max([differs(key, drawn[key], page) for key in drawn], default=0)
        PAGE.write_text(with_screens(page, drawn))
    return 0


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yield an empty directory that has the examples of a clone."""
    with tempfile.TemporaryDirectory(prefix="autoglm-screens-") as scratch:
        (Path(scratch) / "examples").symlink_to(ROOT / "examples")
        yield Path(scratch)


def differs(key: Key, lines: Sequence[str], page: str) -> int:
    """Return 1 and print it where the page shows another screen; else 0."""
    if dict(lines_of(page))[key] == list(lines):
        return 0
    print(f"{PAGE.name} is not current: run python -m scripts.screens {key.name}", file=sys.stderr)
    return 1


def _served(wanted: Sequence[Key], directory: Path, figure: Path | None) -> Screens:
    """Draw screens of one `autoglm up`, once it is ready and has served; write it as an image."""
    variables = {**environment(), "AUTOGLM_ROUTE_DEBUG": "true"}
    command = ("autoglm", "up", "-f", MANIFEST)
    with running(command, _FIGURE_COLUMNS, variables, directory) as terminal:
        terminal.read_until("ready: ", _SECONDS)
        found = {
            key: _run(_LOCAL[key.name], key, directory) for key in wanted if key.name in _LOCAL
        }
        for key in (key for key in wanted if key.name == "up"):
            terminal.resize(key.columns)
            terminal.read_frames(_FRAMES, _SECONDS)
            found[key] = plain(shown(terminal.written), key.columns)
        if figure:
            terminal.resize(_FIGURE_COLUMNS)
            terminal.read_frames(_FRAMES, _SECONDS)
            lines = shown(terminal.written)
            figure.write_text(svg.drawn(lines, _FIGURE_COLUMNS, " ".join(command)))
    return found


def _run(command: Sequence[str], key: Key, directory: Path) -> list[str]:
    with running(command, key.columns, environment(), directory) as terminal:
        terminal.read(_SECONDS)
    return plain(shown(terminal.written), key.columns)


def environment() -> dict[str, str]:
    """Return the variables of commands: those of `make install`, without what would change them."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
