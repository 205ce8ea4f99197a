"""Renders the table of `autoglm precheck`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.text import Text

from autoglm.cli.screen import STYLES, Canvas, drawn, heading, table

Outcome = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check, what was found, and the remedy."""

    name: str
    outcome: Outcome
    found: str
    remedy: str = ""


def precheck_text(checks: Sequence[Check], canvas: Canvas) -> str:
    """Render a table of checks and a summary."""
    rows = [(Text(c.outcome, STYLES[c.outcome]), c.name, c.found, c.remedy) for c in checks]
    failed = sum(check.outcome == "fail" for check in checks)
    warned = sum(check.outcome == "warn" for check in checks)
    counts = [f"{failed} failed"] if failed else []
    counts += [f"{warned} warnings" if warned > 1 else "1 warning"] if warned else []
    style = STYLES["fail" if failed else "warn" if warned else "ok"]
    summary = heading(", ".join(counts) if counts else "All checks passed.", style)
    return drawn([table(("", "CHECK", "FOUND", "WHAT TO DO"), rows), "", summary], canvas)
