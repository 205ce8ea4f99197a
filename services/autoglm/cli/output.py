"""Output formats of the commands: JSON, YAML, and tables with aligned columns."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

_UNLIMITED = 4096


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


def terminal_columns() -> int:
    """Return the terminal's width; in a file or a pipe, where nothing is wrapped, a large one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows with aligned columns, two spaces apart.

    What a narrow terminal has no room for is below its row, with its name, as far as the extra
    `cli` is installed.
    """
    cells = [list(header), *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    if sum(widths) + 2 * (len(widths) - 1) > terminal_columns():
        with suppress(ModuleNotFoundError):
            # Imported here: a core install has no rich.
            from autoglm.cli import screen

            canvas = screen.canvas_of_terminal()
            click.echo(screen.drawn([screen.table(header, cells[1:])], canvas), nl=False)
            return
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a text that breaks between words where the terminal ends."""
    lines = wrapped(text, terminal_columns(), indent, f"{indent}  ")
    click.echo("\n".join(lines))


def wrapped(text: str, width: int, first: str = "", others: str = "") -> list[str]:
    """Return the text's lines of at most `width`, apart from words that are longer themselves."""
    return textwrap.wrap(
        text,
        max(width, 1),
        initial_indent=first,
        subsequent_indent=others,
        expand_tabs=False,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
