"""Checks the documents: Python examples parse and import; links of those outside docs/ resolve.

The build of the site (scripts/docs_site) checks the links of docs/. Examples that talk to a server
are run against a real one by tests/conformance/test_docs.py.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
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
    if document.is_relative_to(ROOT / "docs"):
        return
    for path, anchor in _LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        if not target.exists():
            yield f"link to {path!r} leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            yield f"link to {path}#{anchor}: {target.name} has no such heading"


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    found: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


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
