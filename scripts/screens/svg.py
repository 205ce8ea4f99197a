"""A terminal's screen as an image. Pure."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

# Without fonts of another site, which rich's own form names.
_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def drawn(lines: Sequence[str], columns: int, title: str) -> str:
    """Return an SVG of lines with their colours."""
    console = Console(record=True, width=columns, file=io.StringIO(), legacy_windows=False)
    for line in lines:
        console.print(Text.from_ansi(line.rstrip()), soft_wrap=True)
    image = console.export_svg(title=title, unique_id="screen")
    image = _FONT.sub("", image).replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return "\n".join(line.rstrip() for line in image.splitlines()) + "\n"
