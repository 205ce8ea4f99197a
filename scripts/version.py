#!/usr/bin/env python3
"""Keeps the version in one place: `[project] version` in pyproject.toml. Everything else follows.

scripts/version.py               prints it
scripts/version.py --check       exits 1 and names each place that states another version
scripts/version.py --write       corrects these places
scripts/version.py --write X.Y.Z sets a new version first

A place is a tag of one of our images, or a field that states our version, in any file of the
repository. The version written in a form that no pattern below knows is an error too, so that a
new place cannot stay behind at the next release.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_VERSION = r"(?P<version>\d+\.\d+\.\d+)"
_EXACT = re.compile(r"\d+\.\d+\.\d+")
_SOURCE = re.compile(rf'(?m)^version = "{_VERSION}"$')
_ANYWHERE = (
    # open-autoglm:X.Y.Z, open-autoglm-inference:X.Y.Z-cpu
    re.compile(rf"\bopen-autoglm(?:-inference)?:{_VERSION}"),
    re.compile(rf"\bapp\.kubernetes\.io/version: {_VERSION}"),
    re.compile(rf"\bnewTag: {_VERSION}"),
    # tag: X.Y.Z-cpu, inferenceImage.tag=X.Y.Z-cpu, "with tag X.Y.Z-cpu"
    re.compile(rf"\btag(?::|=| ) ?{_VERSION}-cpu\b"),
)
_IN_FILES = {
    "Chart.yaml": re.compile(rf"(?m)^(?:version|appVersion): {_VERSION}$"),
    "Dockerfile": re.compile(rf"(?m)^ARG VERSION={_VERSION}$"),
    "pyproject.toml": _SOURCE,
}
_TESTS = "tests/unit/scripts/"
# Versions of others, and history.
_FOREIGN = re.compile(
    r"(^|/)(go\.(mod|sum|work\.sum)|package(-lock)?\.json|CHANGELOG\.md|upgrade\.md)$|\.txt$"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A line that states our version."""

    line: int
    start: int
    end: int
    version: str


def places(name: str, text: str) -> list[Place]:
    """Where `text`, of the file `name`, states our version; pure."""
    own = _IN_FILES.get(name.rpartition("/")[2])
    patterns = (*_ANYWHERE, own) if own else _ANYWHERE
    found = {match.span("version") for pattern in patterns for match in pattern.finditer(text)}
    return [
        Place(text.count("\n", 0, start) + 1, start, end, text[start:end])
        for start, end in sorted(found)
    ]


def problems(name: str, text: str, version: str) -> Iterator[str]:
    """What is wrong in one file; pure."""
    known = places(name, text)
    for place in known:
        if place.version != version:
            yield f"{name}:{place.line} has {place.version}: run scripts/version.py --write"
    starts = {place.start for place in known}
    for match in re.finditer(rf"(?<![\w.=<>/-]){re.escape(version)}(?![\w.])", text):
        if match.start() not in starts:
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line} states {version} in a form that scripts/version.py does not know"


def corrected(name: str, text: str, version: str) -> str:
    """`text` with our version in every place; pure."""
    for place in reversed(places(name, text)):
        text = text[: place.start] + version + text[place.end :]
    return text


def current() -> str:
    """The version in pyproject.toml."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _files() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if (
            _FOREIGN.search(name)
            or name.startswith(_TESTS)
            or path.is_symlink()
            or not path.is_file()
        ):
            continue
        try:
            yield name, path.read_text()
        except UnicodeDecodeError:
            continue


def write(version: str) -> None:
    """Writes `version` to every place of the working tree."""
    for name, text in _files():
        if (new := corrected(name, text, version)) != text:
            (ROOT / name).write_text(new)
            print(f"wrote {name}")


def problems_of_tree(version: str) -> list[str]:
    """What is wrong in the files of the repository."""
    return [problem for name, text in _files() for problem in problems(name, text, version)]


def check() -> int:
    version = current()
    found = problems_of_tree(version)
    print("\n".join(found) or f"version: {version} everywhere")
    return 1 if found else 0


def main(arguments: list[str]) -> int:
    match arguments:
        case []:
            print(current())
        case ["--check"]:
            return check()
        case ["--write"]:
            write(current())
        case ["--write", version] if _EXACT.fullmatch(version):
            write(version)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
