"""A PATH without compilers, as images of pods have it."""

from __future__ import annotations

import os
import re
from pathlib import Path

COMPILER = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+|cpp|c[89]9)(-[\d.]+)?")


def path_without_compiler(directory: Path) -> Path:
    """Fills the directory with links to every program on PATH but compilers; returns it."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for program in Path(folder).glob("*"):
            link = directory / program.name
            if not COMPILER.fullmatch(program.name) and not link.is_symlink():
                link.symlink_to(program.resolve())
    return directory
