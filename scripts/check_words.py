"""Checks that texts use the terms of docs/glossary.md.

    python -m scripts.check_words            exits 1 and lists what is new, as FILE:LINE: WORD
    python -m scripts.check_words PATH...    lists everything found in these files
    python -m scripts.check_words --update   writes the lower counts; run it after moving files

Read are docstrings, comments, messages and names of Python, and every other text whole. Strings of
tests are data and are not read. scripts/words_allowed.toml lists what may stay, with the reason.
Until every file is clean scripts/words_baseline.json holds the count of each: it may only fall.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scripts.measure.words import Allowed, Found, find

ROOT = Path(__file__).parents[1]
ALLOWED = ROOT / "scripts/words_allowed.toml"
BASELINE = ROOT / "scripts/words_baseline.json"
Counts = Mapping[str, int]


def allowed(text: str) -> list[Allowed]:
    return [
        Allowed(path, rule["reason"], rule.get("phrase", ""))
        for rule in tomllib.loads(text)["allow"]
        for path in rule["paths"]
    ]


def exceeded(baseline: Counts, counts: Counts) -> dict[str, int]:
    """Files with more than they may have. What files had that are gone, new files may have."""
    over = {
        path: count for path, count in counts.items() if path in baseline and count > baseline[path]
    }
    new = {path: count for path, count in counts.items() if path not in baseline}
    gone = sum(count for path, count in baseline.items() if path not in counts)
    return over | new if sum(new.values()) > gone else over


def files() -> Iterator[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    yield from listed.stdout.splitlines()


def read(paths: Iterator[str] | Sequence[str], rules: Sequence[Allowed]) -> Iterator[Found]:
    for path in paths:
        file = ROOT / path
        if not file.is_file() or file.is_symlink():
            continue
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for found in find(path, text, rules):
            if found.kind != "string" or not path.startswith("tests/"):
                yield found


def update(baseline: Counts, counts: Counts) -> str:
    """What is wrong with these counts as the next baseline; empty if nothing is."""
    if sum(counts.values()) <= sum(baseline.values()):
        return ""
    return (
        f"{sum(counts.values())} words instead of {sum(baseline.values())}: the count may only "
        "fall. Use the terms of docs/glossary.md"
    )


def main(arguments: Sequence[str]) -> int:
    rules = allowed(ALLOWED.read_text())
    paths = [argument for argument in arguments if not argument.startswith("-")]
    found = sorted(read(paths or files(), rules), key=lambda one: (one.path, one.line))
    if paths:
        print("\n".join(map(str, found)) or "words: none found")
        return 1 if found else 0
    counts = Counter(one.path for one in found)
    baseline: dict[str, int] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if "--update" in arguments:
        if problem := update(baseline, counts):
            print(problem)
            return 1
        BASELINE.write_text(json.dumps(dict(sorted(counts.items())), indent=0) + "\n")
        return 0
    over = exceeded(baseline, counts)
    for one in found:
        if one.path in over:
            print(one)
    for path, count in over.items():
        print(f"{path}: {count} words, {baseline.get(path, 0)} allowed by {BASELINE.name}")
    if not over:
        print(f"words: none new; {sum(counts.values())} left in {len(counts)} files")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
