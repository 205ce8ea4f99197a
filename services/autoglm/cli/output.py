"""Output formats of the commands: JSON, YAML, and tables with aligned columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as a dictionary with the API's field names."""
    fields: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return fields


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def document(value: object, output: str) -> str:
    """Return a value as `json` or `yaml`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if output == "json":
        return f"{text}\n"
    import yaml

    # Through JSON, so that only plain values remain.
    return yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows with aligned columns, two spaces apart."""
    cells = [list(header), *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
