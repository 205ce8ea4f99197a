"""Runs the commands of the documentation's pages, and prints what each page took.

    python -m scripts.pages                  all pages that have marked blocks; minutes
    python -m scripts.pages docs/a.md ...    these

Each page runs in a copy of what a clone has, with the environment of `make install` and no network:
on Linux all of it runs in a network namespace of its own, where the ports of the pages are free.
Exits 1 if a command does not do what its page says.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.pages import stand_ins
from scripts.pages.blocks import BadPage, Block, blocks, is_printed, on_this_machine, rehearsals
from scripts.pages.isolation import ISOLATED, isolation
from scripts.pages.session import ROOT, Failed, Session

_COLUMNS = ("PAGE", "RUN", "DRY", "SHOWN", "SECONDS", "RESULT")


@dataclass
class Result:
    """What became of a page: numbers of commands, and seconds until each mark."""

    page: str
    ran: int = 0
    dry: int = 0
    shown: int = 0
    seconds: float = 0.0
    marks: dict[str, float] = field(default_factory=dict)
    error: str = ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.pages", description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="all pages where none is given")
    options = parser.parse_args(arguments)
    if command := isolation():
        again = [*command, sys.executable, "-m", "scripts.pages", *arguments]
        return subprocess.run(again, env={**os.environ, ISOLATED: "1"}, check=False).returncode
    results = []
    for page in options.pages or marked_pages():
        print(f"== {page}", file=sys.stderr, flush=True)
        results.append(check(page))
        if results[-1].error:
            print(f"{page}: {results[-1].error}", file=sys.stderr, flush=True)
    print("\n".join(table(results)))
    return 1 if any(result.error for result in results) else 0


def marked_pages() -> Iterator[Path]:
    """The pages that have marked blocks, quick ones and slow ones."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return (page.relative_to(ROOT) for page in pages if blocks(page.read_text()))


def check(page: Path) -> Result:
    """Run the commands of one page, in a directory that is gone afterwards."""
    result = Result(str(page))
    with tempfile.TemporaryDirectory(prefix="autoglm-pages-") as scratch:
        session = Session(Path(scratch))
        try:
            found = blocks((ROOT / page).read_text())
            session.prepare()
            began = time.monotonic()
            try:
                for block in found:
                    carry_out(block, session, result)
                    if block.mark:
                        result.marks[block.mark] = time.monotonic() - began
            finally:
                session.stop()
            result.seconds = time.monotonic() - began
        except (BadPage, Failed) as error:
            result.error = str(error)
    return result


def carry_out(block: Block, session: Session, result: Result) -> None:
    """Run one block, and count its commands. Raises Failed."""
    if block.kind == "dry":
        has_helm = shutil.which("helm", path=session.environment["PATH"])
        for command in rehearsals(block):
            if not command or (command.startswith("helm ") and not has_helm):
                result.shown += 1
                continue
            session.run(command)
            result.dry += 1
        return
    models = session.scratch / "models"
    text = on_this_machine(block.text, stand_ins.MODELS, lambda name: stand_ins.make(name, models))
    is_server = block.kind == "server"
    output = session.serve(text) if is_server else session.run(text, block.exit_code)
    result.ran += len(block.commands)
    if block.output is not None and not is_printed(block.output, output):
        raise Failed(f"line {block.line} prints something else than its page says:\n{output}")


def table(results: Sequence[Result]) -> Iterator[str]:
    rows = [_COLUMNS] + [
        (
            r.page,
            str(r.ran),
            str(r.dry),
            str(r.shown),
            f"{r.seconds:.1f}",
            "failed" if r.error else "ok",
        )
        for r in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for result in results:
        for mark, seconds in result.marks.items():
            yield f"{result.page}: {mark} after {seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
