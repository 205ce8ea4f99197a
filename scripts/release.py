"""Makes a release from a clean checkout: `make release`. Publishes nothing; docs/releasing.md.

    python -m scripts.release            checks, then writes dist/VERSION
    python -m scripts.release --dry-run  checks, and lists what would be written

In dist/VERSION: wheel, source distribution, packaged chart, release notes from CHANGELOG.md, and
SHA256SUMS. Needs build/bin/helm (`scripts/go_tools helm`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from scripts.images import TAGS, dockerfile
from scripts.version import ROOT, current, problems_of_tree

CHART = "deploy/helm/open-autoglm"
IMAGES = {tag: dockerfile(image) for image, tag in TAGS.items()}
_HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\S+))?[^\n]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """One version of the changelog."""

    date: str
    body: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """What decides whether a release can be made."""

    version: str
    today: date
    changelog: str
    changed_files: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    wrong_versions: tuple[str, ...] = ()


def sections(changelog: str) -> dict[str, Section]:
    """The changelog by version; pure."""
    found = list(_HEADING.finditer(changelog))
    ends = [match.start() for match in found[1:]] + [len(changelog)]
    return {
        match["name"]: Section(match["date"] or "", changelog[match.end() : end].strip())
        for match, end in zip(found, ends, strict=True)
    }


def problems(checkout: Checkout) -> Iterator[str]:
    """Why a release cannot be made, each with the way out; pure."""
    version = checkout.version
    if checkout.changed_files:
        names = ", ".join(checkout.changed_files[:5])
        yield f"the tree is not clean ({names}): commit or stash first"
    if f"v{version}" in checkout.tags:
        yield f"v{version} is tagged already: python scripts/version.py --write X.Y.Z"
    yield from checkout.wrong_versions
    parts = sections(checkout.changelog)
    if version not in parts:
        yield f"CHANGELOG.md has no section: rename [Unreleased] to [{version}] - {checkout.today}"
        return
    if parts.get("Unreleased", Section("", "")).body:
        yield f"CHANGELOG.md has entries under [Unreleased]: move them to [{version}]"
    yield from _problems_of_section(parts[version], version, checkout.today)


def _problems_of_section(section: Section, version: str, today: date) -> Iterator[str]:
    if not section.body:
        yield f"CHANGELOG.md says nothing under [{version}]"
    try:
        if date.fromisoformat(section.date) > today:
            yield f"CHANGELOG.md dates [{version}] {section.date}, which is to come: use {today}"
    except ValueError:
        yield f"CHANGELOG.md has no date for [{version}]: write ## [{version}] - {today}"


def artifacts(version: str) -> list[str]:
    """The files of a release; pure."""
    return [
        f"open_autoglm-{version}-py3-none-any.whl",
        f"open_autoglm-{version}.tar.gz",
        f"open-autoglm-{version}.tgz",
        "release-notes.md",
        "SHA256SUMS",
    ]


def notes(section: Section, version: str) -> str:
    """The text of the release; pure."""
    images = "\n".join(f"- `{tag.format(version)}` ({file})" for tag, file in IMAGES.items())
    return f"# Open-AutoGLM {version}\n\n{section.body}\n\n### Images\n\n{images}\n"


def next_steps(version: str) -> str:
    """The commands that publish, for a person to run; pure."""
    place, registry = f"dist/{version}", "$REGISTRY"
    return "\n".join(
        (
            f'git tag --sign v{version} --message "Open-AutoGLM {version}"',
            f"git push origin v{version}",
            f"make images IMAGES=all REGISTRY={registry}",
            f".venv/bin/uv publish {place}/*.whl {place}/open_autoglm-{version}.tar.gz",
            f"build/bin/helm push {place}/open-autoglm-{version}.tgz oci://{registry}/charts",
            f"gh release create v{version} --verify-tag --notes-file {place}/release-notes.md "
            f"{place}/*.whl {place}/*gz {place}/SHA256SUMS",
        )
    )


def _output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


def _checkout() -> Checkout:
    changed = _output("git", "status", "--porcelain").splitlines()
    return Checkout(
        version=current(),
        today=datetime.now(UTC).date(),
        changelog=(ROOT / "CHANGELOG.md").read_text(),
        changed_files=tuple(line[3:] for line in changed),
        tags=frozenset(_output("git", "tag", "--list").split()),
        wrong_versions=tuple(problems_of_tree(current())),
    )


def build(checkout: Checkout, place: Path) -> None:
    """Writes the files of the release into `place`."""
    version = checkout.version
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    # The commit's time, so that building twice gives the same bytes.
    epoch = _output("git", "log", "-1", "--format=%ct").strip()
    uv = ROOT / ".venv/bin/uv"
    _output(uv, "build", "--quiet", "--out-dir", place, SOURCE_DATE_EPOCH=epoch)
    (place / ".gitignore").unlink(missing_ok=True)
    _output(ROOT / "build/bin/helm", "package", CHART, "--destination", place)
    (place / "release-notes.md").write_text(notes(sections(checkout.changelog)[version], version))
    files = [place / name for name in artifacts(version) if name != "SHA256SUMS"]
    sums = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (place / "SHA256SUMS").write_text("".join(sums))


def check_wheel(place: Path, version: str) -> None:
    """Raises if the wheel, installed alone, does not run as this version."""
    wheel = place / artifacts(version)[0]
    run = (ROOT / ".venv/bin/uv", "run", "--quiet", "--isolated", "--no-project", "--with", wheel)
    printed = _output(*run, "--python", sys.executable, "autoglm", "version")
    if f"autoglm {version} " not in printed:
        raise SystemExit(f"release: the wheel runs as {printed!r}, not as {version}")


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--dry-run"]):
        print(__doc__, file=sys.stderr)
        return 2
    checkout = _checkout()
    version, place = checkout.version, ROOT / "dist" / checkout.version
    if found := list(problems(checkout)):
        print(f"release: {version} cannot be made:", *found, sep="\n  ", file=sys.stderr)
        return 1
    if not arguments:
        build(checkout, place)
        check_wheel(place, version)
    print(f"release: {version}, in dist/{version}{' (not written)' if arguments else ''}:")
    print(*(f"  {name}" for name in artifacts(version)), sep="\n")
    print("images:", *(f"  {tag.format(version)}" for tag in IMAGES), sep="\n")
    print("Nothing is published. The next steps, by hand:", next_steps(version), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
