"""Counts the fields that a user writes for the same function here and elsewhere.

    python -m scripts.count_fields           prints the table of examples/comparison/README.md
    python -m scripts.count_fields --write   writes it there

Read are the files examples/comparison/FUNCTION/SYSTEM.yaml. A field is a path that ends in a value,
such as `spec.model.uri`, counted once for each kind of document, whatever the number of list items
or of documents of that kind. `apiVersion` and `kind` are one field together. A mapping without
content, such as `route: {}`, is a field too. A line `# needs:` names what else a cluster must have.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "examples/comparison"
SYSTEMS = {
    "open-autoglm": "Open-AutoGLM",
    "kubeai": "KubeAI",
    "kserve": "KServe",
    "production-stack": "production-stack",
}
FUNCTIONS = {
    "one-gpu": "one model on one GPU",
    "autoscaled": "autoscaled by load, 1 to 4",
    "two-models": "two models behind one address",
    "gated": "a gated model",
    "cache": "weights kept on a shared volume",
    "keys": "API keys",
    "ingress": "a host name with TLS",
}
_TABLE = re.compile(r"(?<=<!-- counted -->\n).*?(?=<!-- end -->)", re.DOTALL)


def fields(text: str) -> set[tuple[str, str]]:
    """The fields of a file as (kind, path); kind is empty for values of a chart."""
    found = set()
    for document in yaml.safe_load_all(text):
        kind = document.pop("kind", "")
        if kind:
            found.add((kind, "kind"))
            document.pop("apiVersion")
        found |= {(kind, path) for path in _paths(document)}
    return found


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, child in value.items():
            yield from _paths(child, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from _paths(item, path)
    else:
        yield path


def table() -> str:
    lines = ["| | " + " | ".join(SYSTEMS.values()) + " |", "|---" * (len(SYSTEMS) + 1) + "|"]
    for function, title in FUNCTIONS.items():
        cells = [_cell(FOLDER / function / f"{system}.yaml") for system in SYSTEMS]
        lines.append(f"| {title} (`{function}`) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(file: Path) -> str:
    if not file.exists():
        return "–"
    text = file.read_text()
    needs = re.search(r"^# needs: (.*)$", text, re.MULTILINE)
    return f"{len(fields(text))}" + (f"; {needs[1]}" if needs else "")


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--write"]:
        readme = FOLDER / "README.md"
        readme.write_text(_TABLE.sub(lambda _: table(), readme.read_text()))
    else:
        print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
