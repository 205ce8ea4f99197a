"""Checks the documents: links lead somewhere, and Python examples import and compile.

Examples that talk to a server are run against a real one by tests/integration/test_docs.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def documents() -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return (ROOT / line for line in listed.stdout.splitlines())


def dead_links(document: Path) -> Iterator[str]:
    for target in _LINK.findall(document.read_text()):
        if not (document.parent / target).exists():
            yield f"link to {target!r} leads nowhere"


def bad_examples(document: Path) -> Iterator[str]:
    for code in _PYTHON.findall(document.read_text()):
        try:
            yield from missing_names(ast.parse(code))
        except SyntaxError as error:
            yield f"Python example does not parse: {error}"


def missing_names(tree: ast.Module) -> Iterator[str]:
    """Names of ours that an example imports and that do not exist."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "autoglm":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    yield f"example imports {alias.name!r}, which {node.module} does not have"


def main() -> int:
    problems = [
        f"{document.relative_to(ROOT)}: {problem}"
        for document in documents()
        for problem in (*dead_links(document), *bad_examples(document))
    ]
    print("\n".join(problems) or "documents: links and examples are good")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
