"""Checks that texts use the terms of docs/glossary.md.

    python -m scripts.check_words            exits 1 and lists what it found, as FILE:LINE: WORD
    python -m scripts.check_words PATH...    the same for these files

Read are docstrings, comments, messages and names of Python, and every other text whole. Strings of
tests are data and are not read. scripts/words_allowed.toml lists what may stay, with the reason.

A docstring of services/ states what its function returns or does: "Return whether ...", not
"Whether ..." or "The ...". Those of modules and classes begin with no such clause either.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from scripts.measure.words import Allowed, Found, find

ROOT = Path(__file__).parents[1]
ALLOWED = ROOT / "scripts/words_allowed.toml"
_CLAUSE = r"What|Whether|Who|Whose|Of"
OPENING = re.compile(rf"(?:{_CLAUSE})\b")
FUNCTION_OPENING = re.compile(rf"(?:{_CLAUSE}|How|When|Where|Which|Why|The|An?)\b")


def allowed(text: str) -> list[Allowed]:
    return [
        Allowed(path, rule["reason"], rule.get("phrase", ""))
        for rule in tomllib.loads(text)["allow"]
        for path in rule["paths"]
    ]


def files() -> Iterator[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    yield from listed.stdout.splitlines()


def read(paths: Iterable[str], rules: Sequence[Allowed]) -> Iterator[Found]:
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
        is_generated = any(rule.covers(path) and not rule.phrase for rule in rules)
        if path.startswith("services/") and path.endswith(".py") and not is_generated:
            yield from openings(path, text)


def openings(path: str, text: str) -> Iterator[Found]:
    """Yield the docstrings that begin with a clause, and those of functions without a verb."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            form = FUNCTION_OPENING
        elif isinstance(node, ast.Module | ast.ClassDef):
            form = OPENING
        else:
            continue
        opening = form.match(ast.get_docstring(node, clean=False) or "")
        if opening is not None:
            yield Found(path, node.body[0].lineno, opening.group().lower(), "docstring")


def main(paths: Sequence[str]) -> int:
    found = list(read(paths or files(), allowed(ALLOWED.read_text())))
    for one in sorted(found, key=lambda one: (one.path, one.line)):
        print(one)
    print(f"words: {len(found) or 'none'} found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
